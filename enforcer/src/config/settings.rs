//! The one table of settings.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::value::{AuditFsync, AuditMode, LogFormat, LogLevel, SettingValue, Size, Switch, Value};
use crate::domain::{Mode, SocketKind};

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Key in the file; with `--` in front the flag; in upper snake case behind `ENFORCER_` the environment's name.
    pub key: &'static str,
    /// What stands for the value in help texts.
    pub value_name: &'static str,
    /// Documentation, line by line; the first line stands alone.
    pub doc: &'static [&'static str],
    /// Whether it holds a list.
    pub repeated: bool,
    pub(super) set: fn(&mut Config, Value) -> Result<(), String>,
    pub(super) get: fn(&Config) -> Value,
}

impl Setting {
    /// Name in the environment.
    pub fn environment(&self) -> String {
        format!("ENFORCER_{}", self.key.replace('-', "_").to_uppercase())
    }

    /// The value this configuration has for it.
    pub fn value(&self, config: &Config) -> Value {
        (self.get)(config)
    }

    /// Puts a value into a configuration, or says what is wrong with it.
    pub fn set(&self, config: &mut Config, value: Value) -> Result<(), String> {
        (self.set)(config, value)
    }
}

macro_rules! settings {
    ($($(#[doc = $doc:literal])+ $key:literal $field:ident: $ty:ty = $default:expr, $value_name:literal;)+) => {
        /// Everything that can be configured.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Config { $($(#[doc = $doc])+ pub $field: $ty,)+ }

        impl Default for Config {
            fn default() -> Self {
                Self { $($field: $default,)+ }
            }
        }

        /// Every setting, in the order of the documentation.
        pub const SETTINGS: &[Setting] = &[$(Setting {
            key: $key,
            value_name: $value_name,
            doc: &[$($doc),+],
            repeated: <$ty as SettingValue>::REPEATED,
            set: |config, value| {
                config.$field = <$ty as SettingValue>::read(value)?;
                Ok(())
            },
            get: |config| config.$field.write(),
        },)+];
    };
}

settings! {
    /// Mount point of the cgroup v2 tree
    /// Found in /proc/self/mountinfo when none is named.
    "cgroup-root" cgroup_root: Option<PathBuf> = None, "DIR";

    /// Directory of the cgroup tree to attach to, relative to its root
    /// Processes outside are neither judged nor counted. None means the whole tree.
    "attach" attach: Option<String> = None, "CGROUP";

    /// Directories of the cgroup tree in which every process has to belong to a known workload
    /// What runs there and is none is denied everything, so that a workload that starts before its identity is
    /// known does not slip through. Relative to the root of the tree, e.g. /kubepods.slice.
    "managed" managed: Vec<String> = Vec::new(), "CGROUP";

    /// Directory of the pinned programs, links and maps, on a bpf file system
    "pins" pins: PathBuf = PathBuf::from("/sys/fs/bpf/enforcer"), "DIR";

    /// Directory of what has to survive a restart of the host
    "state-dir" state_dir: PathBuf = PathBuf::from("/var/lib/enforcer"), "DIR";

    /// Unix socket of the API
    "socket" socket: PathBuf = PathBuf::from("/run/enforcer/enforcer.sock"), "PATH";

    /// Group whose members may read over the API (lists, status, flows) but change nothing
    /// None means nobody but root and the agent's own user.
    "socket-group" socket_group: Option<String> = None, "GROUP";

    /// Policy files, or directories of *.yaml and *.yml files
    /// Read at start and whenever they change; policies pushed over the API are kept apart from them.
    "policies" policies: Vec<PathBuf> = vec![PathBuf::from("/etc/enforcer/policies.d")], "PATH";

    /// File of workloads: names, labels, cgroup directories, addresses
    /// Read again when it changes. None means no static workloads.
    "workloads" workloads: Option<PathBuf> = Some(PathBuf::from("/etc/enforcer/workloads.yaml")), "FILE";

    /// What is done with a denial: enforce, audit (count it and let it through) or off
    "mode" mode: Mode = Mode::Enforce, "MODE";

    /// Kinds of internet sockets that workloads may create: tcp, udp, mptcp, ping, raw, sctp, udplite, other
    /// Everything else is refused when the socket is created. The wall judges what it can read of the further kinds,
    /// and `enforcer status --unguarded` tells what they open. The host may create all. Takes effect at the start.
    "allowed-sockets" allowed_sockets: Vec<SocketKind> = vec![SocketKind::Tcp, SocketKind::Udp, SocketKind::Mptcp], "KIND";

    /// Where /metrics, /healthz and /readyz are served over HTTP
    /// None means nowhere. There is no access control: keep it on loopback or behind a firewall.
    "metrics-listen" metrics_listen: Option<SocketAddr> = Some((Ipv4Addr::LOCALHOST, 9962).into()), "ADDRESS:PORT";

    /// Whether there is an audit log, and what happens when it can't be written: off, continue or fail-closed
    /// It is in the directory `audit` of the state directory. With `continue` everything goes on, and what is lost is
    /// counted; with `fail-closed` no policy or quarantine is changed that can't be recorded. Traffic is never touched.
    "audit" audit: AuditMode = AuditMode::Continue, "MODE";

    /// When an audit record has to be on disk: always (before the next), interval (within a second) or never
    "audit-fsync" audit_fsync: AuditFsync = AuditFsync::Interval, "POLICY";

    /// Time between looks at the kernel's counters, for audit log and flow history
    /// Denials of one edge within it are one audit record with their exact count.
    "audit-interval" audit_interval: Duration = Duration::from_secs(10), "DURATION";

    /// Size after which a new file of the audit log begins
    "audit-file-size" audit_file_size: Size = Size(16 << 20), "SIZE";

    /// Time after which a new file of the audit log begins
    "audit-file-age" audit_file_age: Duration = Duration::from_hours(24), "DURATION";

    /// Size of all files of the audit log together; beyond it the oldest is removed
    "audit-total-size" audit_total_size: Size = Size(512 << 20), "SIZE";

    /// Whether flows are kept for later: on or off
    /// The database is `flows.db` in the state directory.
    "history" history: Switch = Switch::On, "SWITCH";

    /// How long flows are kept
    "history-age" history_age: Duration = Duration::from_hours(14 * 24), "DURATION";

    /// How large the database of flows may become; beyond it the oldest are removed
    "history-size" history_size: Size = Size(256 << 20), "SIZE";

    /// How much the agent says on stderr: error, warn, info, debug or trace
    "log-level" log_level: LogLevel = LogLevel::Info, "LEVEL";

    /// How a log line looks: text or json
    "log-format" log_format: LogFormat = LogFormat::Text, "FORMAT";
}

/// Bytes that fit into the address of a Unix socket, without the closing NUL.
const SOCKET_PATH_MAX: usize = 107;

impl Config {
    /// Bits of the kinds of sockets that workloads may create.
    pub fn socket_kinds(&self) -> u64 {
        self.allowed_sockets.iter().fold(0, |bits, kind| bits | kind.bit())
    }

    /// Directory of the audit log.
    pub fn audit_directory(&self) -> PathBuf {
        self.state_dir.join("audit")
    }

    /// Database of flows.
    pub fn history_database(&self) -> PathBuf {
        self.state_dir.join("flows.db")
    }

    /// What is wrong with single values although they parse: the key and one sentence each.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        for (key, directory) in
            self.attach.iter().map(|it| ("attach", it)).chain(self.managed.iter().map(|it| ("managed", it)))
        {
            if directory.split('/').any(|part| part == "..") {
                problems.push((
                    key,
                    format!("`{directory}` leaves the cgroup tree; write the directory without `..`"),
                ));
            }
        }
        for (key, path) in [("pins", &self.pins), ("state-dir", &self.state_dir), ("socket", &self.socket)] {
            if !path.is_absolute() {
                let path = path.display();
                problems.push((key, format!("`{path}` is relative, and an agent has no folder of its own to start from; begin it with `/`")));
            }
        }
        self.sizes(&mut problems);
        let length = self.socket.as_os_str().len();
        if length > SOCKET_PATH_MAX {
            problems.push((
                "socket",
                format!("the path has {length} bytes and a Unix socket takes {SOCKET_PATH_MAX}; choose a shorter one"),
            ));
        }
        problems
    }

    fn sizes(&self, problems: &mut Vec<(&'static str, String)>) {
        const LEAST: Size = Size(64 << 10);
        if self.audit_file_size < LEAST {
            problems.push((
                "audit-file-size",
                "a file smaller than 64KiB is full at once; choose a larger one".to_owned(),
            ));
        }
        if self.audit_total_size.0 < self.audit_file_size.0.saturating_mul(2) {
            let message =
                "the log needs room for two files, `audit-file-size` each; choose a larger one".to_owned();
            problems.push(("audit-total-size", message));
        }
        if self.history_size < Size(1 << 20) {
            problems.push(("history-size", "a database needs 1MiB; choose a larger size".to_owned()));
        }
    }
}
