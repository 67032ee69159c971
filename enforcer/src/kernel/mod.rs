//! The kernel: loads the programs, keeps maps and links pinned, and is the only room that names aya or uses `unsafe`.
//!
//! Pins are the truth, memory is a cache: what is attached and what is loaded is read from the pins, so a daemon that
//! was killed at any point is followed by one that finds the last state and goes on from there. Nothing is ever
//! detached to be attached again; programs are replaced in place (`BPF_LINK_UPDATE`).

pub mod canary;
mod cgroups;
pub mod confine;
mod counters;
mod diag;
mod error;
mod events;
mod foreign;
mod judge;
mod links;
pub mod lsm;
mod maps;
mod namespaces;
mod own;
pub mod preflight;
pub mod probe;
mod query;
mod repair;
mod revoke;
mod runs;
mod seed;
mod sys;
mod uncharged;
mod uninstall;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use aya::maps::{Array, MapData};
use aya::{Ebpf, EbpfLoader};
use enforcer_common::abi;
use enforcer_common::abi::config::{EventLimits, Mode, Setting, SocketKind, Stat};
use enforcer_common::abi::flow::{FlowKey, Latency, Traffic, TrafficKey};
use enforcer_common::abi::policy::{H_GENERATION, Row};
use enforcer_common::hook::Hook;
use enforcer_common::id::{CgroupId, Generation, IdentityId};
use enforcer_common::verdict::{Query, Verdict};
use ipnet::IpNet;

use crate::domain::delta::{Bound, Operation, Tables};
use crate::domain::table::PolicyTable;

pub use counters::Counters;
pub use error::Error;
pub use events::{Events, decode};
pub use revoke::{Pass, Revoker};
pub use seed::Seeded;
pub use uninstall::uninstall;
pub use watch::{Repair, Seen};

/// The kernel programs, built from source and embedded.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("ENFORCER_EBPF_OBJECT"));

/// Where to enforce, and where to keep what outlives the daemon.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Mount point of the cgroup v2 tree.
    pub cgroup_root: PathBuf,
    /// Directory to attach to: the mount point itself, or one below it.
    pub attach: PathBuf,
    /// Directory for pins, on a BPF file system.
    pub pins: PathBuf,
}

/// What an earlier daemon left in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Adopted {
    /// The enforced generation, if any was published.
    pub generation: Option<Generation>,
    /// Bindings in force.
    pub bindings: BTreeMap<CgroupId, Bound>,
    /// Addresses in force.
    pub addresses: BTreeMap<IpNet, IdentityId>,
    /// Own addresses of the host.
    pub own: BTreeSet<IpAddr>,
    /// Whether the programs are attached.
    pub attached: bool,
}

/// A table of a chain.
#[derive(Clone, Copy, Debug)]
pub struct Scheduled<'a> {
    /// The table.
    pub table: &'a PolicyTable,
    /// When the next one of the chain takes over, in nanoseconds since boot; `None` for the last.
    pub until: Option<u64>,
}

impl<'a> Scheduled<'a> {
    /// A table without a successor.
    pub fn always(table: &'a PolicyTable) -> Self {
        Self { table, until: None }
    }
}

/// The loaded programs and their maps.
#[derive(Debug)]
pub struct Kernel {
    settings: Settings,
    ebpf: Ebpf,
    /// A handle on each link: while the daemon lives, removing a pin detaches nothing.
    links: BTreeMap<Hook, OwnedFd>,
    watch: watch::Watch,
    /// Hooks that this kernel does without, and why.
    absent: BTreeMap<Hook, String>,
    /// Why socket storage counts against a daemon's memory limit, if it does.
    charged: Option<String>,
    ends: Ends,
    /// While it is held, the kernel counts the runs of programs.
    statistics: Option<OwnedFd>,
}

impl Kernel {
    /// Loads the programs and adopts pinned maps, or makes and pins new ones. Attaches nothing.
    ///
    /// # Errors
    /// Names the missing piece and the next command: no BPF file system, programs refused by the kernel, pins of
    /// another version.
    pub fn start(settings: &Settings) -> Result<(Self, Adopted), Error> {
        sys::ignore_memlock_limit();
        let parent = settings.pins.parent().unwrap_or(Path::new("/"));
        sys::require_bpffs(parent)?;
        std::fs::create_dir_all(&settings.pins).map_err(|source| Error::Io {
            operation: "create",
            path: settings.pins.clone(),
            source,
        })?;
        refuse_other_versions(&settings.pins)?;
        // Now and not when attaching: the maps below would by then steer the hooks over there.
        Hook::ALL.iter().try_for_each(|hook| links::refuse_other_cgroup(*hook, settings))?;
        let storage = settings.pins.join("SOCKETS");
        let made = uncharged::make(&settings.cgroup_root, &storage);
        let mut ebpf = load_object(Some(&settings.pins))?;
        fail_point!("maps-made");
        let absent = links::load_programs(&mut ebpf)?;
        fail_point!("programs-loaded");
        let watch = watch::Watch::new(settings)?;
        // Told again and again by what is there: an earlier daemon may have made it.
        let is_free = watch.maps.get("SOCKETS").map(|map| uncharged::is_ours(map.as_fd()));
        let charged = match (is_free, made) {
            (Some(Ok(true)), _) => None,
            (_, Err(error)) | (Some(Err(error)), Ok(())) => Some(error.to_string()),
            (_, Ok(())) => Some("an earlier daemon has made the map".to_owned()),
        };
        let mut kernel = Self {
            settings: settings.clone(),
            ebpf,
            links: BTreeMap::new(),
            absent,
            charged,
            watch,
            ends: Ends::default(),
            statistics: None,
        };
        kernel.write_version()?;
        kernel.write_secret()?;
        let adopted = kernel.adopted()?;
        Ok((kernel, adopted))
    }

    /// A sentence if what sockets remember counts against the memory limit of a daemon.
    pub fn storage_is_charged(&self) -> Option<String> {
        let reason = self.charged.as_ref()?;
        Some(format!(
            "what sockets remember counts against the memory limit of the daemon that made the map ({reason}): workloads \
             can use that up, and then no socket can be created; let the daemon join the root of the memory controller \
             or take its limit away, and begin anew with `enforcer uninstall`"
        ))
    }

    /// Attaches every hook, or replaces the program of a link that is attached already. Links are pinned.
    ///
    /// On a first attachment the sockets that are open already are recorded between the hook that records new ones and
    /// the hooks that judge, so that no peer is unknown only because it was there first.
    pub fn attach(&mut self) -> Result<Seeded, Error> {
        let first = !self.hooks().all(|hook| links::is_pinned(hook, &self.settings));
        let mut seeded = Seeded::default();
        for hook in &self.hooks().collect::<Vec<_>>() {
            if let Some(link) = self.links.get(hook) {
                links::pin_again(link, *hook, &self.settings)?;
            }
            let link = links::attach(&mut self.ebpf, *hook, &self.settings)?;
            self.links.insert(*hook, link);
            if first && *hook == Hook::SockCreate {
                seeded = seed::seed(&mut self.ebpf, &self.settings.cgroup_root)?;
                fail_point!("sockets-seeded");
            }
        }
        Ok(seeded)
    }

    /// Makes the first table of a chain the one that is enforced, with one write. The others follow by the kernel's
    /// clock and are in place before that. Old ones are freed when their last reader is done.
    pub fn publish(&mut self, chain: &[Scheduled<'_>]) -> Result<(), Error> {
        let bank = maps::free_bank(&mut self.ebpf)?;
        let slot = |at: usize| if at == 0 { 0 } else { bank + u32::try_from(at).unwrap_or(u32::MAX) - 1 };
        let mut made = Vec::with_capacity(chain.len());
        // The last first: what is named is there already.
        for (at, scheduled) in chain.iter().enumerate().rev() {
            let next = scheduled.until.map(|until| (until, slot(at + 1)));
            let inner = maps::table(scheduled.table, next)?;
            fail_point!("table-filled");
            maps::tables(&mut self.ebpf)?
                .set(slot(at), &inner, 0)
                .map_err(Error::map("switch to the new table in", "TABLES"))?;
            fail_point!("table-switched");
            made.push(inner);
            if at == 0 {
                let generation = scheduled.table.generation();
                made.reverse();
                let tables = std::mem::take(&mut made);
                self.watch.published = Some(watch::Published { generation, tables });
                self.ends.table = scheduled.until;
            }
        }
        self.new_epoch()
    }

    /// Has the published tables, those that follow by the kernel's clock included, know identities that are new: writes
    /// the rows with their classes in place. Nothing may name the identities before it returns; why nobody can see it
    /// half done is told in `domain/table/spare.rs`.
    ///
    /// No epoch begins: nothing is remembered of somebody whom nothing names.
    ///
    /// # Errors
    /// If these are not the tables that were published last, or the kernel refuses a row. Some may know them then.
    pub fn learn<'a>(
        &mut self,
        chain: impl Iterator<Item = &'a PolicyTable>,
        identities: &[IdentityId],
    ) -> Result<(), Error> {
        let published = self.watch.published.as_mut().ok_or(Error::NotPublished)?;
        let chain: Vec<&PolicyTable> = chain.collect();
        let is_same = chain.iter().all(|table| table.generation() == published.generation);
        if !is_same || chain.len() != published.tables.len() {
            return Err(Error::NotPublished);
        }
        for (table, map) in chain.iter().zip(&mut published.tables) {
            let rows: BTreeMap<u32, &Row> =
                identities.iter().filter_map(|identity| table.identity_row(*identity)).collect();
            for (index, row) in rows {
                map.set(index, *row, 0).map_err(Error::map("write a class into a table of", "TABLES"))?;
            }
        }
        Ok(())
    }

    /// Performs one map operation.
    pub fn apply(&mut self, operation: &Operation) -> Result<(), Error> {
        maps::apply(&mut self.ebpf, operation)?;
        fail_point!("operation-applied");
        match operation {
            Operation::Bind(cgroup, Bound { until: Some(until), .. }) => {
                self.ends.bindings.insert(*cgroup, until.0);
            }
            Operation::Bind(cgroup, _) | Operation::Unbind(cgroup) => _ = self.ends.bindings.remove(cgroup),
            _ => {}
        }
        self.new_epoch()
    }

    /// From now on nothing counts that sockets remember of verdicts.
    fn new_epoch(&mut self) -> Result<(), Error> {
        let until = self.ends.first();
        let before = maps::setting(&mut self.ebpf, Setting::FreshUntil)?;
        // The earlier of both first: whatever happens in between, nothing counts for longer than it should.
        if until < before {
            self.set(Setting::FreshUntil, until)?;
        }
        let epoch = maps::setting(&mut self.ebpf, Setting::Epoch)?;
        self.set(Setting::Epoch, epoch + 1)?;
        fail_point!("epoch-raised");
        self.set(Setting::FreshUntil, until)
    }

    /// Writes a setting, which the watch keeps as it is from now on.
    fn set(&mut self, setting: Setting, value: u64) -> Result<(), Error> {
        self.watch.keep(setting, value);
        maps::set(&mut self.ebpf, setting, value)
    }

    /// Sets the kinds of sockets that workloads may create.
    pub fn set_socket_kinds(&mut self, kinds: u64) -> Result<(), Error> {
        self.set(Setting::SocketKinds, kinds)
    }

    /// Sets which events are told.
    pub fn set_event_limits(&mut self, limits: EventLimits) -> Result<(), Error> {
        self.set(Setting::EventSample, limits.sample)?;
        self.set(Setting::AllowedEvents, limits.allowed)?;
        self.set(Setting::DeniedEvents, limits.denied)
    }

    /// Changes what is done with verdicts.
    pub fn set_mode(&mut self, mode: Mode) -> Result<(), Error> {
        self.set(Setting::Mode, mode as u64)?;
        self.new_epoch()
    }

    /// Has the kernel judge one flow in one direction by the published table, as its hooks would.
    ///
    /// # Errors
    /// If the kernel does not run the program, or no table was published.
    pub fn judge(&mut self, query: &Query) -> Result<Verdict, Error> {
        judge::judge(&mut self.ebpf, query)
    }

    /// A descriptor of one of the programs, for tests and measurements: to run it, or to read what the kernel counts of
    /// it. Loads the program if no hook needed it so far.
    ///
    /// # Errors
    /// If the object has no such program, or the kernel refuses it.
    pub fn program(&mut self, name: &'static str) -> Result<OwnedFd, Error> {
        links::descriptor(&mut self.ebpf, name)
    }

    /// All flow counters, summed over the CPUs.
    pub fn counters(&self) -> Result<Vec<(FlowKey, u64)>, Error> {
        maps::counters(&self.ebpf)
    }

    /// What all flows carried, summed over the CPUs.
    pub fn traffic(&self) -> Result<Vec<(TrafficKey, Traffic)>, Error> {
        maps::traffic(&self.ebpf)
    }

    /// How long things took on all flows, summed over the CPUs.
    pub fn latency(&self) -> Result<Vec<(TrafficKey, Latency)>, Error> {
        maps::latency(&self.ebpf)
    }

    /// What the programs did besides verdicts, and what failed inside them; summed over the CPUs.
    pub fn stats(&self) -> Result<[u64; Stat::COUNT], Error> {
        maps::stats(&self.ebpf)
    }

    /// The reader of the event ring. There is one; the second call fails.
    pub fn take_events(&mut self) -> Result<Events, Error> {
        Events::new(&mut self.ebpf)
    }

    /// Hooks that are attached with our program.
    pub fn attached_hooks(&self) -> Vec<Hook> {
        let ours = |hook: &Hook| match self.links.get(hook) {
            Some(link) => self.runs_ours(*hook, link.as_fd()),
            None => links::problem(&self.ebpf, *hook, &self.settings).is_none(),
        };
        self.hooks().filter(ours).collect()
    }

    /// The hooks that this kernel has.
    fn hooks(&self) -> impl Iterator<Item = Hook> {
        Hook::ALL.iter().copied().filter(|hook| !self.absent.contains_key(hook))
    }

    /// Hooks that this kernel does without, and why.
    pub fn absent_hooks(&self) -> &BTreeMap<Hook, String> {
        &self.absent
    }

    fn write_version(&mut self) -> Result<(), Error> {
        if maps::setting(&mut self.ebpf, Setting::Abi)? == u64::from(abi::VERSION) {
            return Ok(());
        }
        maps::set(&mut self.ebpf, Setting::Abi, abi::VERSION.into())?;
        fail_point!("version-written");
        Ok(())
    }

    /// Chooses the secret of fingerprints once, when the maps are made.
    fn write_secret(&mut self) -> Result<(), Error> {
        if maps::setting(&mut self.ebpf, Setting::Secret)? != 0 {
            return Ok(());
        }
        let secret = sys::random().map_err(|source| Error::Io {
            operation: "read random bytes from",
            path: "getrandom".into(),
            source,
        })?;
        // Before the secret, which tells that all of this was done: a start that is killed in between is made up for.
        maps::set(&mut self.ebpf, Setting::SocketKinds, SocketKind::DEFAULT)?;
        fail_point!("kinds-written");
        maps::set(&mut self.ebpf, Setting::Secret, secret | 1)
    }

    fn adopted(&mut self) -> Result<Adopted, Error> {
        let Tables { bindings, addresses, own } = maps::identities(&mut self.ebpf)?;
        self.ends.table = maps::table_ends(&mut self.ebpf)?;
        let ends = bindings.iter().filter_map(|(cgroup, bound)| Some((*cgroup, bound.until?.0)));
        self.ends.bindings = ends.collect();
        Ok(Adopted {
            generation: maps::published_generation(&mut self.ebpf)?,
            bindings: bindings.iter().map(|(cgroup, bound)| (*cgroup, *bound)).collect(),
            addresses: addresses.iter().map(|(net, identity)| (*net, *identity)).collect(),
            own,
            attached: self.hooks().all(|hook| links::is_pinned(hook, &self.settings)),
        })
    }
}

/// What ends by the kernel's clock, in nanoseconds since boot.
#[derive(Debug, Default)]
struct Ends {
    /// The table in force.
    table: Option<u64>,
    /// Bindings.
    bindings: BTreeMap<CgroupId, u64>,
}

impl Ends {
    /// The first of them; what is over already counts, until it is replaced.
    fn first(&self) -> u64 {
        self.bindings.values().copied().chain(self.table).min().unwrap_or(u64::MAX)
    }
}

/// Parses the embedded object and makes its maps: pinned ones when a directory is given.
fn load_object(pins: Option<&Path>) -> Result<Ebpf, Error> {
    let mut loader = EbpfLoader::new();
    // A kernel without MPTCP refuses programs that name its helper; with this the verifier never sees that call.
    let mptcp = u8::from(Path::new("/proc/sys/net/mptcp").exists());
    loader.override_global("MPTCP", &mptcp, true);
    if let Some(pins) = pins {
        for name in maps::NAMES {
            loader.map_pin_path(name, pins.join(name));
        }
    }
    loader.load(OBJECT).map_err(|source| Error::Object(Box::new(source)))
}

/// Maps of another version are refused, never guessed.
fn refuse_other_versions(pins: &Path) -> Result<(), Error> {
    let path = pins.join("CONFIG");
    if !path.exists() {
        return Ok(());
    }
    let data = MapData::from_pin(&path).map_err(Error::map("read the version in", "CONFIG"))?;
    // Version 1 kept two 32-bit words, the first of which was the version.
    let found = Array::<_, u64>::try_from(aya::maps::Map::Array(data))
        .and_then(|config| config.get(&(Setting::Abi as u32), 0))
        .map_err(Error::map("read the version in", "CONFIG"))?;
    let found = u32::try_from(found & u64::from(u32::MAX)).unwrap_or(u32::MAX);
    // 0: an earlier start was killed between making the map and writing the version.
    if found == abi::VERSION || found == 0 {
        return Ok(());
    }
    Err(Error::OtherVersion { pins: pins.to_path_buf(), found, ours: abi::VERSION })
}

/// The generation in the header row of a table.
fn generation_of(header: &Row) -> Generation {
    Generation(header.words[H_GENERATION])
}
