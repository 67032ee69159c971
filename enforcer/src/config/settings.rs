//! The one table of settings.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::value::{AuditFsync, AuditMode, Interval, LogFormat, LogLevel, SettingValue, Size, Switch, Value};
use crate::domain::account::TrustDomain;
use crate::domain::{EventLimits, Mode, SeriesLabel, SocketKind};

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
    /// Whether it holds a number or a truth value, which the file has without quotes.
    pub number: bool,
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
            number: <$ty as SettingValue>::NUMBER,
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

    /// Socket of containerd, whose containers and pods become workloads
    /// None means that it is not asked. That nobody listens there is no fault.
    "containerd-socket" containerd_socket: Option<PathBuf> = Some(PathBuf::from("/run/containerd/containerd.sock")), "PATH";

    /// Sockets with the Docker API (Docker, Podman), whose containers become workloads
    /// Their namespace is what the socket is called: docker for docker.sock. That nobody listens there is no fault.
    "docker-sockets" docker_sockets: Vec<PathBuf> =
        ["/run/docker.sock", "/run/podman/podman.sock"].map(PathBuf::from).to_vec(), "PATH";

    /// Units of systemd that become workloads: names, in which * stands for any text
    /// For example nginx.service, app-*.service or batch.slice. Everything else stays part of the host.
    "systemd" systemd: Vec<String> = Vec::new(), "UNIT";

    /// Whether pods, services and policies come from the API server of a Kubernetes cluster: on or off
    /// Policies of its API hold beside those of files and those that are pushed. Takes effect at the start.
    "kubernetes" kubernetes: Switch = Switch::Off, "SWITCH";

    /// How the API server is reached
    /// None means by the service account of the pod that the agent runs in, else by KUBECONFIG or ~/.kube/config.
    "kubeconfig" kubeconfig: Option<PathBuf> = None, "FILE";

    /// What this machine is called in the cluster, as `kubectl get nodes` says
    /// None means the name of the host.
    "node-name" node_name: Option<String> = None, "NAME";

    /// The namespace in which the nodes of the cluster say that they are there and what they enforce
    /// Each node has a Lease there; one of them writes the status of policies for all. None means that this node tells the
    /// cluster nothing.
    "report-namespace" report_namespace: Option<String> = Some("enforcer-system".to_owned()), "NAMESPACE";

    /// Labels of pods and containers that count for identities although no policy names them
    /// Each identity has its own counters, and is shown with its labels. What policies and `metrics-name-labels` name counts
    /// anyway; labels of the file of workloads all do. Takes effect at the start.
    "export-labels" export_labels: Vec<String> = Vec::new(), "LABEL";
    /// Trust domain of the workloads' SPIFFE IDs, which policies may name
    "trust-domain" trust_domain: TrustDomain = TrustDomain::default(), "DOMAIN";

    /// What is done with a denial: enforce, audit (count it and let it through) or off
    "mode" mode: Mode = Mode::Enforce, "MODE";

    /// How often the canary tries whether it is refused, like 10s or 500ms, when nothing is published
    /// A process of the agent's, in a cgroup of its own, makes calls that the table denies it; that they are refused is what
    /// the status of a policy calls enforcing. After a publication it tries at once, but once a second at most. None
    /// means never: then nothing is proven. Takes effect at the start.
    "canary-interval" canary_interval: Option<Interval> = Some(Interval(Duration::from_secs(10))), "DURATION";

    /// Kinds of internet sockets that workloads may create: tcp, udp, mptcp, ping, raw, sctp, udplite, other
    /// Everything else is refused when the socket is created, unless `sockets` of a policy says otherwise. The wall judges what it can read of the further kinds,
    /// and `enforcer status --unguarded` tells what they open. The host may create all. Takes effect at the start.
    "allowed-sockets" allowed_sockets: Vec<SocketKind> = vec![SocketKind::Tcp, SocketKind::Udp, SocketKind::Mptcp], "KIND";

    /// One of so many allowed flows becomes an event, which `observe` shows; 1 means each
    /// Chosen at random. Denials are never sampled, and counters, metrics and the audit log count everything.
    "event-sample" event_sample: u64 = 1, "N";

    /// Events of allowed flows for each identity that opens them, in about a second (2^30 ns); 0 means no limit
    /// What is left out is counted as `events_sampled_out`. Takes effect at the start.
    "event-limit-allowed" event_limit_allowed: u64 = 1_000, "N";

    /// Events of denied and audited flows for each identity that opens them, in about a second; 0 means no limit
    /// So many are always told of each, as long as the ring has room, however many the others have.
    "event-limit-denied" event_limit_denied: u64 = 1_000, "N";

    /// Where /metrics, /healthz and /readyz are served over HTTP
    /// None means nowhere. There is no access control: keep it on loopback or behind a firewall.
    "metrics-listen" metrics_listen: Option<SocketAddr> = Some((Ipv4Addr::LOCALHOST, 9962).into()), "ADDRESS:PORT";

    /// Series of workloads and rules that /metrics tells apart, all metrics together
    /// What is beyond is summed in series that say _overflow, and series of workloads that are gone expire after a minute.
    "metrics-series" metrics_series: u64 = 10_000, "NUMBER";

    /// What series of workloads are told apart by: namespace, workload, port, policy
    /// Labels of what is not named are empty, and the counts of series that are the same then are summed.
    "metrics-labels" metrics_labels: Vec<SeriesLabel> = SeriesLabel::ALL.to_vec(), "PART";

    /// Labels of workloads by which metrics call them, the best first
    /// A workload that has none of them is called by its own name, or by all of its labels where it is one of several.
    "metrics-name-labels" metrics_name_labels: Vec<String> =
        ["app.kubernetes.io/name", "app", "k8s-app"].map(str::to_owned).to_vec(), "LABEL";

    /// Whether the kernel is told to count the runs of all BPF programs of the host and their time: true or false
    /// That costs each run of each program some nanoseconds. Where the administrator of the host has them counted, they are anyway.
    "program-statistics" program_statistics: bool = false, "BOOL";

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

    /// Whether the kernel refuses the agent all system calls that it does not need: on or off
    /// What is refused is in the kernel's log. Takes effect at the start; `enforcer status` tells.
    "seccomp" seccomp: Switch = Switch::On, "SWITCH";

    /// How much the agent says on stderr: error, warn, info, debug or trace
    "log-level" log_level: LogLevel = LogLevel::Info, "LEVEL";

    /// How a log line looks: text or json
    "log-format" log_format: LogFormat = LogFormat::Text, "FORMAT";
}

/// Series that a scrape can carry within seconds.
const SERIES_MAX: u64 = 1_000_000;
/// Bytes that fit into the address of a Unix socket, without the closing NUL.
const SOCKET_PATH_MAX: usize = 107;

impl Config {
    /// Bits of the kinds of sockets that workloads may create.
    pub fn socket_kinds(&self) -> u64 {
        self.allowed_sockets.iter().fold(0, |bits, kind| bits | kind.bit())
    }

    /// Which events are told.
    pub fn event_limits(&self) -> EventLimits {
        EventLimits {
            sample: self.event_sample,
            allowed: self.event_limit_allowed,
            denied: self.event_limit_denied,
        }
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
        self.runtimes(&mut problems);
        if self.metrics_series > SERIES_MAX {
            problems.push((
                "metrics-series",
                format!(
                    "{} are more than one scrape should carry; at most {SERIES_MAX}",
                    self.metrics_series
                ),
            ));
        }
        if self.event_sample == 0 {
            let message = "one of 0 flows can't be chosen; write 1 for each flow".to_owned();
            problems.push(("event-sample", message));
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

    fn runtimes(&self, problems: &mut Vec<(&'static str, String)>) {
        let sockets = self.containerd_socket.iter().map(|path| ("containerd-socket", path));
        for (key, path) in sockets.chain(self.docker_sockets.iter().map(|path| ("docker-sockets", path))) {
            if !path.is_absolute() {
                let path = path.display();
                problems.push((key, format!("`{path}` is relative; begin it with `/`")));
            }
        }
        let mut stems = std::collections::BTreeSet::new();
        for path in &self.docker_sockets {
            if !stems.insert(path.file_stem()) {
                let path = path.display();
                problems.push((
                    "docker-sockets",
                    format!("`{path}` is called like another one, and containers are told apart by that; make a link with another name"),
                ));
            }
        }
        let kinds = [".service", ".scope", ".slice", "*"];
        for pattern in self.systemd.iter().filter(|it| !kinds.iter().any(|kind| it.ends_with(kind))) {
            let help = "a unit with processes is a .service, .scope or .slice";
            problems.push(("systemd", format!("`{pattern}` means no unit: {help}")));
        }
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
