//! Destroys the sockets of flows that are no longer allowed, wherever they are on this host.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use super::cgroups::{Chains, Tree};
use super::diag::Diag;
use super::error::Error;
use super::namespaces::{self, Namespaces};
use super::sys;
use crate::domain::revoke::{Judged, Socket};

/// Failures that are told one by one.
const NAMED: usize = 3;

/// See the module. Independent of the other handles on the kernel, so that nobody waits for it.
#[derive(Debug)]
pub struct Revoker {
    /// The map `SOCKETS`.
    storage: OwnedFd,
    tree: Tree,
}

/// What one pass over all sockets did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// Network namespaces that were visited.
    pub namespaces: u64,
    /// Network namespaces that could not be visited, or in which not all sockets could be listed.
    pub unvisited: u64,
    /// Processes whose network namespaces can't be told, because the right to trace them is missing.
    pub hidden: u64,
    /// Sockets that were looked at.
    pub sockets: u64,
    /// Connected sockets whose ends can't be told; they stay.
    pub undecided: u64,
    /// Destroyed sockets by IP protocol number and the reason's code.
    pub destroyed: BTreeMap<(u8, u8), u64>,
    /// Sockets that should have been destroyed and were not.
    pub failed: u64,
    /// The first failures, one sentence each.
    pub problems: Vec<String>,
    /// How long it took.
    pub time: Duration,
}

impl Revoker {
    /// By the pins of a kernel room that has started, and its cgroup tree.
    ///
    /// # Errors
    /// If the pin of the socket storage, or the tree, can't be opened.
    pub fn new(pins: &Path, cgroup_root: &Path) -> Result<Self, Error> {
        let path = || cgroup_root.to_owned();
        let tree = Tree::open(cgroup_root);
        let tree = tree.map_err(|source| Error::Io { operation: "open", path: path(), source })?;
        Ok(Self { storage: sys::open_pin(&pins.join("SOCKETS"))?, tree })
    }

    /// Has all sockets of all network namespaces judged, and destroys those that have to go. Blocks.
    ///
    /// `judge` is called once per namespace, after its sockets were listed: it should judge by what is in force then.
    ///
    /// # Errors
    /// If there is no thread for it, or no list of processes to begin with.
    pub fn pass(&self, judge: &(dyn Fn(&[Socket]) -> Judged + Sync)) -> io::Result<Pass> {
        let begin = Instant::now();
        // The namespace is the thread's: it ends here instead of going back.
        let mut pass = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("revoke".into());
            let running = thread.spawn_scoped(scope, || self.visit_all(judge))?;
            running
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("the thread that destroys sockets panicked")))
        })?;
        pass.time = begin.elapsed();
        Ok(pass)
    }

    fn visit_all(&self, judge: &(dyn Fn(&[Socket]) -> Judged + Sync)) -> io::Result<Pass> {
        let found = Namespaces::find()?;
        let mut chains = Chains::of(&self.tree);
        let mut pass = Pass { unvisited: found.unvisited, hidden: found.hidden, ..Pass::default() };
        for namespace in &found.files {
            match self.visit(namespace, judge, &mut chains, &mut pass) {
                Ok(()) => pass.namespaces += 1,
                Err(error) => {
                    pass.unvisited += 1;
                    pass.note(|| format!("a network namespace can't be visited: {error}"));
                }
            }
        }
        Ok(pass)
    }

    fn visit(
        &self,
        namespace: &File,
        judge: &(dyn Fn(&[Socket]) -> Judged + Sync),
        chains: &mut Chains<'_>,
        pass: &mut Pass,
    ) -> io::Result<()> {
        namespaces::enter(namespace)?;
        let mut diag = Diag::open()?;
        let list = diag.list(self.storage.as_fd(), chains);
        if let Some(missing) = list.missing.first() {
            pass.unvisited += 1;
            pass.note(|| format!("the kernel does not list {missing}"));
        }
        let Judged { revoked, undecided } = judge(&list.sockets);
        pass.sockets += list.sockets.len() as u64;
        pass.undecided += undecided as u64;
        let indexes: Vec<usize> = revoked.iter().map(|revoked| revoked.index).collect();
        for (revoked, result) in revoked.iter().zip(diag.destroy(&list, &indexes)) {
            let protocol = list.sockets.get(revoked.index).map_or(0, |socket| socket.protocol);
            match result {
                Ok(true) => {
                    *pass.destroyed.entry((protocol, revoked.word.reason_code())).or_default() += 1;
                }
                Ok(false) => {}
                Err(error) => {
                    pass.failed += 1;
                    pass.note(|| format!("the kernel does not destroy a socket: {error}"));
                }
            }
        }
        Ok(())
    }
}

impl Pass {
    fn note(&mut self, problem: impl FnOnce() -> String) {
        if self.problems.len() < NAMED {
            let problem = problem();
            if !self.problems.contains(&problem) {
                self.problems.push(problem);
            }
        }
    }
}
