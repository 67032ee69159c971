//! From the configuration to everything that is needed to run, or to the first thing that is missing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener as StdTcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use enforcer_common::id::{IdentityId, RuleId};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use tokio::net::{TcpListener, UnixListener};

use super::pins::PinsLock;
use super::{Error, clock};
use crate::api::{self, Access};
use crate::config::{self, Config, LogFormat, LogLevel};
use crate::domain::cluster_policy::KUBERNETES;
use crate::domain::command::Confinement;
use crate::engine::{self, Facts, State};
use crate::kernel::{self, Kernel};
use crate::sources::{CONTAINERD, STATIC, SYSTEMD, docker_name};
use crate::store::{Saved, Store};
use crate::telemetry::log::Format;

/// Version of the agent.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Everything that was made at the start.
pub(super) struct Started {
    pub(super) facts: Facts,
    pub(super) cgroup_root: PathBuf,
    pub(super) state: State,
    pub(super) store: Store,
    pub(super) kernel: Kernel,
    pub(super) pins: PinsLock,
    pub(super) adopted: engine::Adopted,
    pub(super) access: Access,
    pub(super) socket: UnixListener,
    pub(super) socket_file: SocketFile,
    pub(super) monitoring: Option<TcpListener>,
    pub(super) host: String,
}

/// The name of the socket, which goes when the agent does: nobody should find the socket of an agent that ended.
pub(super) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // A dead socket does no harm: the next agent replaces it.
        std::fs::remove_file(&self.0).ok();
    }
}

/// Starts the log.
pub(super) fn log(config: &Config) -> Result<(), Error> {
    use tracing::level_filters::LevelFilter;
    let level = match config.log_level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let format = match config.log_format {
        LogFormat::Text => Format::Text,
        LogFormat::Json => Format::Json,
    };
    crate::telemetry::log::start(format, level).map_err(|error| Error::Log(error.to_string()))
}

/// Makes everything, cheap checks first: nothing in the kernel is touched before the lock and the socket are ours.
pub(super) fn start(config: &Config, confinement: Confinement) -> Result<Started, Error> {
    require_root()?;
    let cgroup_root = config::cgroup_root(config.cgroup_root.as_deref())?;
    require_cgroup2(&cgroup_root)?;
    let attach = attach(config, &cgroup_root)?;
    let (store, saved) = Store::open(&config.state_dir)?;
    fail_point!("state-opened");
    let facts = Facts { confinement, ..facts(config, &cgroup_root) };
    let state = {
        let Saved { registry, documents, quarantines, confirmation } = saved;
        State::new(facts.clone(), engine::Remembered { registry, documents, quarantines, confirmation })?
    };
    let access = Access::of_this_process(config.socket_group.as_deref())?;
    let socket = api::bind(&config.socket, &access)?;
    let socket_file = SocketFile(config.socket.clone());
    let monitoring = config.metrics_listen.map(listen).transpose()?;
    let settings = kernel::Settings { cgroup_root: cgroup_root.clone(), attach, pins: config.pins.clone() };
    // Pins of an earlier agent are locked before they are touched; new ones as soon as they are there.
    let mut pins = PinsLock::take(&config.pins)?;
    let is_new = !config.pins.exists();
    let (mut kernel, kernel::Adopted { generation, bindings, addresses, own, attached: _ }) =
        Kernel::start(&settings)?;
    if is_new {
        pins = PinsLock::take(&config.pins)?;
    }
    if config.program_statistics
        && let Err(error) = kernel.count_runs()
    {
        tracing::warn!("the runs of programs are not counted, as program-statistics asks: {error}");
    }
    let (counted, counted_rules) = counted(&kernel)?;
    fail_point!("adopted");
    let adopted = engine::Adopted { generation, bindings, addresses, own, counted, counted_rules };
    let host = fact("/proc/sys/kernel/hostname");
    Ok(Started {
        facts,
        cgroup_root,
        state,
        store,
        kernel,
        pins,
        adopted,
        access,
        socket,
        socket_file,
        monitoring,
        host,
    })
}

/// What the counters in the kernel speak of.
fn counted(kernel: &Kernel) -> Result<(BTreeSet<IdentityId>, BTreeSet<RuleId>), kernel::Error> {
    let counters = kernel.counters()?;
    let traffic = kernel.traffic()?;
    let counted = counters.iter().map(|(key, _)| (key.subject, key.peer));
    let carried = traffic.iter().map(|(key, _)| (key.subject, key.peer));
    let identities =
        counted.chain(carried).flat_map(|(subject, peer)| [IdentityId(subject), IdentityId(peer)]).collect();
    Ok((identities, counters.iter().map(|(key, _)| RuleId(key.rule)).collect()))
}

pub(super) fn require_root() -> Result<(), Error> {
    let user = nix::unistd::geteuid();
    if user.is_root() { Ok(()) } else { Err(Error::NotRoot { user: user.as_raw() }) }
}

fn require_cgroup2(root: &Path) -> Result<(), Error> {
    match statfs(root) {
        Ok(found) if found.filesystem_type() == CGROUP2_SUPER_MAGIC => Ok(()),
        _ => Err(Error::NotCgroup2 { path: root.to_owned() }),
    }
}

pub(super) fn attach(config: &Config, cgroup_root: &Path) -> Result<PathBuf, Error> {
    let path = match &config.attach {
        Some(directory) => cgroup_root.join(directory.trim_matches('/')),
        None => cgroup_root.to_owned(),
    };
    if path.is_dir() { Ok(path) } else { Err(Error::NoAttach { path }) }
}

pub(super) fn listen(address: std::net::SocketAddr) -> Result<TcpListener, Error> {
    let listener = StdTcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    });
    listener.map_err(|source| Error::Listen { address, source })
}

fn facts(config: &Config, cgroup_root: &Path) -> Facts {
    let mut required = BTreeSet::new();
    if config.workloads.is_some() {
        required.insert(STATIC.to_owned());
    }
    // That nobody is there is said at once, and that somebody does not answer, soon.
    required.extend(config.containerd_socket.iter().map(|_| CONTAINERD.to_owned()));
    required.extend(config.docker_sockets.iter().map(|socket| docker_name(socket)));
    if !config.systemd.is_empty() {
        required.insert(SYSTEMD.to_owned());
    }
    if config.kubernetes == config::Switch::On {
        required.extend([KUBERNETES.to_owned(), engine::POLICY_OBJECTS.to_owned()]);
    }
    if !config.policies.is_empty() {
        required.insert(engine::POLICIES.to_owned());
    }
    if !config.managed.is_empty() {
        required.insert(engine::MANAGED.to_owned());
    }
    Facts {
        version: VERSION.to_owned(),
        kernel: fact("/proc/sys/kernel/osrelease"),
        cgroup_root: cgroup_root.display().to_string(),
        pins: config.pins.display().to_string(),
        mode: config.mode,
        confinement: Confinement::default(),
        trust_domain: config.trust_domain.clone(),
        socket_kinds: config.socket_kinds(),
        boot_id: fact("/proc/sys/kernel/random/boot_id"),
        now: clock::clocks(Duration::ZERO),
        limits: limits(),
        labels: config.export_labels.iter().chain(&config.metrics_name_labels).cloned().collect(),
        required,
    }
}

/// How much the kernel's maps hold.
fn limits() -> engine::Limits {
    let limits = engine::Limits::default();
    #[cfg(feature = "fail-points")]
    let limits = engine::Limits { bindings: crate::fail::bindings().unwrap_or(limits.bindings), ..limits };
    limits
}

/// A word from /proc, for people to read; `-` if it can't be read.
pub(super) fn fact(path: &str) -> String {
    std::fs::read_to_string(path).map_or_else(|_| "-".to_owned(), |text| text.trim().to_owned())
}

/// Numbers for the metrics before the engine's first report: all kinds of problems, none of them there.
pub(super) fn no_problems() -> BTreeMap<&'static str, u64> {
    engine::Area::ALL.iter().map(|area| (area.label(), 0)).collect()
}
