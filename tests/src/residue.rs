//! What a killed run leaves behind: finding it by its names, telling it, removing it.
//!
//! Every trace of a test or demo begins with one of [`PREFIXES`] and the process id of its owner. While that owner
//! lives, what it has made is none of our business. Network namespaces and unpinned BPF objects have no names; they go
//! with the processes.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::patience;

/// Begins the names of tests.
pub const TEST: &str = "enforcer-test-";
/// Begins the names of demos.
pub const DEMO: &str = "enforcer-demo-";
/// All of them.
pub const PREFIXES: [&str; 2] = [TEST, DEMO];

/// How long the kernel may take to end a killed process.
const LIMIT: Duration = Duration::from_secs(20);

/// How often it is looked at.
const STEP: Duration = Duration::from_millis(2);

/// What is left of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Residue {
    /// The name of all of it.
    pub name: String,
    /// Its cgroup directory.
    pub cgroup: PathBuf,
    /// Its folder.
    pub folder: PathBuf,
    /// Processes that still run in its cgroups.
    pub processes: Vec<u32>,
    /// Pinned maps and links.
    pub pins: usize,
}

impl fmt::Display for Residue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, processes, pins, .. } = self;
        write!(f, "{name}: {} processes, {pins} pins", processes.len())
    }
}

/// Everything whose owner is gone. A demo that was told to stay has no owner.
pub fn find() -> Vec<Residue> {
    all().into_iter().filter(|residue| !is_owned(&residue.name)).collect()
}

/// Everything that the process with this id has made, whether it lives or not.
pub fn made_by(pid: u32) -> Vec<Residue> {
    all().into_iter().filter(|residue| owner(&residue.name) == Some(pid)).collect()
}

fn all() -> Vec<Residue> {
    let root = enforcer::config::cgroup_root(None).ok();
    let temp = std::env::temp_dir();
    let mut names = BTreeSet::new();
    for place in root.iter().chain([&temp]) {
        names.extend(names_in(place));
    }
    let of = |name: String| {
        let cgroup = root.clone().unwrap_or_default().join(&name);
        let folder = temp.join(&name);
        let pins = fs::read_dir(folder.join("bpf/enforcer")).map_or(0, Iterator::count);
        Residue { processes: processes(&cgroup), cgroup, folder, pins, name }
    };
    names.into_iter().map(of).collect()
}

/// Removes everything whose owner is gone, and says what it does. Returns what could not be removed.
pub fn clean(mut say: impl FnMut(&str)) -> Vec<String> {
    let mut problems = Vec::new();
    for residue in find() {
        say(&format!("removing {residue}"));
        problems.extend(remove(&residue.cgroup, &residue.folder));
    }
    problems
}

/// Removes one run's traces: processes, then links by their directories, then pins, then files. What is not there is
/// removed already. Returns what could not be removed.
pub fn remove(cgroup: &Path, folder: &Path) -> Vec<String> {
    let mut problems = Vec::new();
    let mut note = |what: &Path, result: io::Result<()>| match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            problems.push(format!("{}: {error}", what.display()));
        }
        _ => {}
    };
    note(cgroup, end_processes(cgroup));
    let bpf = folder.join("bpf");
    note(&bpf, unmount(&bpf));
    for directory in directories(cgroup) {
        note(&directory, when_free(|| fs::remove_dir(&directory)));
    }
    // Never into something that is still mounted there: `remove_dir_all` would empty it.
    note(&bpf, fs::remove_dir(&bpf));
    note(folder, fs::remove_dir_all(folder));
    problems
}

fn names_in(place: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(place) else { return Vec::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| PREFIXES.iter().any(|prefix| name.starts_with(prefix))).collect()
}

/// The process that made this.
fn owner(name: &str) -> Option<u32> {
    let rest = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix))?;
    rest.split('-').next()?.parse().ok()
}

/// Whether the process that made this still runs. A process id that meanwhile means another program does not count.
fn is_owned(name: &str) -> bool {
    let Some(pid) = owner(name) else { return false };
    let ours = |program: String| ["live", "demo", "bench"].iter().any(|name| program.starts_with(name));
    let is_zombie = |state: String| state.contains(") Z ");
    !fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(is_zombie)
        && fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(ours)
}

/// The directory and those below it, innermost first.
fn directories(top: &Path) -> Vec<PathBuf> {
    let mut found = vec![top.to_owned()];
    let mut index = 0;
    while let Some(directory) = found.get(index) {
        let entries = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
        let inner: Vec<_> = entries
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|it| it.path())
            .collect();
        found.extend(inner);
        index += 1;
    }
    found.reverse();
    found
}

fn processes(top: &Path) -> Vec<u32> {
    let read = |directory: PathBuf| fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    let texts: Vec<String> = directories(top).into_iter().map(read).collect();
    texts.iter().flat_map(|text| text.lines()).filter_map(|line| line.parse().ok()).collect()
}

/// Kills what runs in these directories and waits until it is gone.
fn end_processes(top: &Path) -> io::Result<()> {
    if !top.exists() {
        return Ok(());
    }
    let deadline = Instant::now() + LIMIT.max(patience::seconds(5));
    loop {
        let left = processes(top);
        if left.is_empty() {
            return Ok(());
        }
        for pid in &left {
            // One that ended meanwhile is what we want.
            if let Ok(pid) = i32::try_from(*pid) {
                kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
            }
        }
        if Instant::now() > deadline {
            return Err(io::Error::other(format!("processes {left:?} do not end")));
        }
        std::thread::sleep(STEP);
    }
}

/// Does it as soon as the kernel lets go: a killed process is out of all lists before it is gone.
fn when_free(mut work: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    let deadline = Instant::now() + LIMIT;
    loop {
        match work() {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline => {
                std::thread::sleep(STEP);
            }
            result => return result,
        }
    }
}

/// Unmounts as often as something is mounted there.
fn unmount(point: &Path) -> io::Result<()> {
    while is_mounted(point)? {
        when_free(|| Ok(umount2(point, MntFlags::UMOUNT_NOFOLLOW)?))?;
    }
    Ok(())
}

fn is_mounted(point: &Path) -> io::Result<bool> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let point = point.to_string_lossy();
    Ok(mounts.lines().any(|line| line.split(' ').nth(4) == Some(&*point)))
}
