//! Every metric, once: the exposition, `enforcer metrics list` and the documentation all come from here.

/// What kind of number it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rises, except when the host or, where it says so, the agent restarts.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts by size: `_bucket`, `_sum` and `_count`.
    Histogram,
}

impl Kind {
    /// The word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// What bounds the number of series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// There is one.
    One,
    /// As many as there are of these, which the product itself fixes.
    Fixed(&'static str),
    /// A share of the series budget (`metrics-series`), by the value of `budget` in `enforcer_metrics_series`. What is
    /// beyond is summed in a series that says `_overflow`, and what belongs to workloads that are gone expires.
    Budget(&'static str),
}

impl Bound {
    /// In words.
    pub fn text(self) -> String {
        match self {
            Self::One => "1".to_owned(),
            Self::Fixed(what) => what.to_owned(),
            Self::Budget(share) => format!("budget `{share}`"),
        }
    }
}

/// A metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Its name.
    pub name: &'static str,
    /// Kind of number.
    pub kind: Kind,
    /// What is counted.
    pub unit: &'static str,
    /// Names of its labels, in the order of values.
    pub labels: &'static [&'static str],
    /// What bounds the number of its series.
    pub bound: Bound,
    /// One sentence.
    pub help: &'static str,
}

const VERDICT: &[&str] = &[
    "action",
    "match",
    "direction",
    "source",
    "source_namespace",
    "destination",
    "destination_namespace",
    "protocol",
    "port",
    "policy",
    "rule",
];
const FLOW: &[&str] =
    &["source", "source_namespace", "destination", "destination_namespace", "protocol", "port", "role"];
const VERDICTS_BUDGET: Bound = Bound::Budget("verdicts");
const TRAFFIC_BUDGET: Bound = Bound::Budget("traffic");
const RULES_BUDGET: Bound = Bound::Budget("rules");
const LATENCY_BUDGET: Bound = Bound::Budget("latency");
const SERVER: &[&str] = &["destination", "destination_namespace", "role"];

macro_rules! metrics {
    ($($constant:ident $name:literal $kind:ident $unit:literal $labels:expr, $bound:expr, $help:literal;)*) => {
        $(pub(super) const $constant: &Definition = &Definition {
            name: $name,
            kind: Kind::$kind,
            unit: $unit,
            labels: $labels,
            bound: $bound,
            help: $help,
        };)*

        /// Every metric, in the order of the documentation.
        pub const METRICS: &[&Definition] = &[$($constant,)*];
    };
}

metrics! {
    VERDICTS "enforcer_policy_verdicts_total" Counter "verdicts" VERDICT, VERDICTS_BUDGET,
        "Verdicts given: one for each flow that is opened and each end that judged it, and one for each refusal. Goes on counting without the agent.";
    RULE_HITS "enforcer_rule_hits_total" Counter "verdicts" &["policy", "rule", "action"], RULES_BUDGET,
        "Verdicts by the rule that gave them; what a default decided has no rule.";
    FLOWS "enforcer_flows_total" Counter "verdicts" &["verdict", "protocol", "direction"], Bound::Fixed("verdicts x protocols x 2"),
        "All verdicts, whoever they were about.";
    DROPS "enforcer_drop_total" Counter "verdicts" &["reason", "protocol", "direction"], Bound::Fixed("reasons x protocols x 2"),
        "Verdicts that denied.";
    OPENED "enforcer_connections_opened_total" Counter "connections" FLOW, TRAFFIC_BUDGET,
        "Connections that were established, told by each end that enforcer sees: role = client is the source, server the destination.";
    CLOSED "enforcer_connections_closed_total" Counter "connections" FLOW, TRAFFIC_BUDGET,
        "Established connections that ended; what they carried is added now.";
    ACTIVE "enforcer_connections_active" Gauge "connections" FLOW, TRAFFIC_BUDGET,
        "Connections that are open: opened less closed.";
    SENT_PACKETS "enforcer_sent_packets_total" Counter "packets" FLOW, TRAFFIC_BUDGET,
        "Packets sent by the end that the role names: datagrams at once, TCP segments at the end of their connection.";
    RECEIVED_PACKETS "enforcer_received_packets_total" Counter "packets" FLOW, TRAFFIC_BUDGET,
        "Packets received by the end that the role names, counted as those sent.";
    SENT_BYTES "enforcer_sent_bytes_total" Counter "bytes" FLOW, TRAFFIC_BUDGET,
        "Bytes sent by the end that the role names: of TCP payload that was acknowledged, at the end of the connection; of datagrams with the IP header, at once.";
    RECEIVED_BYTES "enforcer_received_bytes_total" Counter "bytes" FLOW, TRAFFIC_BUDGET,
        "Bytes received by the end that the role names, counted as those sent.";
    RETRANSMITS "enforcer_retransmitted_packets_total" Counter "packets" FLOW, TRAFFIC_BUDGET,
        "TCP segments that the end that the role names sent again, added at the end of their connection.";
    ROUND_TRIPS "enforcer_round_trip_seconds_total" Counter "seconds" FLOW, TRAFFIC_BUDGET,
        "Sum of the smoothed round-trip times of closed connections, as the end that the role names measured them at the end; divided by the closed connections it is their mean.";
    HANDSHAKE "enforcer_handshake_seconds" Histogram "seconds" SERVER, LATENCY_BUDGET,
        "How long it took from the first SYN to the server's answer, repeated SYNs included, as clients saw it.";
    ROUND_TRIP "enforcer_round_trip_seconds" Histogram "seconds" SERVER, LATENCY_BUDGET,
        "Smoothed round-trip times of connections with the server, at their end, as the end that the role names measured them.";
    EVENTS_READ "enforcer_events_read_total" Counter "events" &[], Bound::One,
        "Events that this process read from the event ring.";
    LOST_EVENTS "enforcer_lost_events_total" Counter "events" &["source"], Bound::Fixed("3"),
        "Events that were lost: ring = it was full, malformed = not of this version, reader = who followed flows was too slow for them (once for each of those). Counters of verdicts are exact nevertheless.";
    KERNEL_STATS "enforcer_kernel_stats_total" Counter "as it says" &["stat"], Bound::Fixed("stats"),
        "What the kernel programs did besides verdicts, and what failed inside them.";
    OVERHEAD_ON "enforcer_overhead_statistics_enabled" Gauge "1 or 0" &[], Bound::One,
        "1 if the kernel counts the runs of programs (kernel.bpf_stats_enabled, or the setting program-statistics); the two counters of overhead are there only then.";
    OVERHEAD_SECONDS "enforcer_overhead_program_seconds_total" Counter "seconds" &["program"], Bound::Fixed("hooks"),
        "Time that the kernel spent in the program, as the kernel counts it; begins anew when the agent restarts.";
    OVERHEAD_RUNS "enforcer_overhead_program_runs_total" Counter "runs" &["program"], Bound::Fixed("hooks"),
        "Runs of the program, as the kernel counts them; begins anew when the agent restarts.";
    GENERATION "enforcer_policy_generation" Gauge "number" &["state"], Bound::Fixed("1"),
        "Number of the policy tables; rises with each publication.";
    MAX_REVISION "enforcer_policy_max_revision" Gauge "number" &[], Bound::One,
        "Highest number of policy tables in force, under the name that other enforcers give it.";
    CHANGES "enforcer_policy_change_total" Counter "changes" &["outcome"], Bound::Fixed("2"),
        "Policy tables that were put in force (success), or that the kernel refused (fail), since the agent's start.";
    PUBLISH "enforcer_policy_publish_seconds" Histogram "seconds" &[], Bound::One,
        "Time that it took to write a policy table and make it the one in force, since the agent's start.";
    POLICIES "enforcer_policy" Gauge "policies" &[], Bound::One,
        "Loaded policies.";
    POLICY_ENTRIES "enforcer_policy_entries" Gauge "entries" &[], Bound::One,
        "Entries of the enforced policy table.";
    IDENTITIES "enforcer_identity" Gauge "identities" &["type"], Bound::Fixed("4"),
        "Identities: workload = of workloads that are there, gone = of workloads that are not, kept for what was counted of them, service, and reserved.";
    ENDPOINTS "enforcer_endpoint_state" Gauge "workloads" &["state"], Bound::Fixed("states"),
        "Workloads by state.";
    QUARANTINED "enforcer_quarantined_workloads" Gauge "workloads" &[], Bound::One,
        "Workloads in quarantine, those included that are not there now.";
    HOOK_ATTACHED "enforcer_hook_attached" Gauge "1 or 0" &["hook"], Bound::Fixed("hooks"),
        "1 if the hook is attached with this agent's program.";
    UNGUARDED "enforcer_unguarded_vectors" Gauge "1 or 0" &["vector"], Bound::Fixed("ways past enforcer"),
        "1 if this way past enforcer is open on this host; `enforcer status --unguarded` says why.";
    FOREIGN_PROGRAMS "enforcer_foreign_programs" Gauge "programs" &["hook"], Bound::Fixed("hooks"),
        "Programs of other owners that run at the hook, above or below the directory that enforcer is attached to.";
    REPAIRS "enforcer_repairs_total" Counter "repairs" &["kind"], Bound::Fixed("kinds"),
        "What somebody took away or changed in the kernel, and this agent put back.";
    SOCKETS_DESTROYED "enforcer_sockets_destroyed_total" Counter "sockets" &["protocol", "reason"], Bound::Fixed("protocols x reasons"),
        "Open sockets that were destroyed because their flow is no longer allowed.";
    REVOCATIONS "enforcer_revocations_total" Counter "passes" &[], Bound::One,
        "Times that all open sockets were judged anew, which follows every change that took effect.";
    REVOCATION_SECONDS "enforcer_revocation_seconds_total" Counter "seconds" &[], Bound::One,
        "Time that judging all open sockets took.";
    REVOCATION_FAILURES "enforcer_revocation_failures_total" Counter "failures" &["kind"], Bound::Fixed("3"),
        "What could not be done while all open sockets were judged: pass = any of it, namespace = visit a network namespace or list all of its sockets, socket = destroy a socket. The packets are judged nevertheless.";
    REVOCATION_HIDDEN "enforcer_revocation_hidden_processes" Gauge "processes" &[], Bound::One,
        "Processes whose network namespaces could not be told when all open sockets were judged last.";
    REVOCATION_UNDECIDED "enforcer_revocation_undecided_sockets" Gauge "sockets" &[], Bound::One,
        "Connected sockets whose two ends could not be told when all were judged last. They stay, and their packets are judged.";
    POLICY_STATUS "enforcer_policy_status" Gauge "policies" &["status"], Bound::Fixed("words"),
        "Policies by the word that `enforcer policy list` has for where they stand; all but Enforcing and Unconfirmed wait for something.";
    CANARY_ATTEMPTS "enforcer_canary_attempts_total" Counter "attempts" &["result"], Bound::Fixed("3"),
        "Attempts of the canary: refused = as it should be, failed = let through or refused by somebody else, unproven = it could not try.";
    CANARY_SUCCESS "enforcer_canary_last_success_timestamp_seconds" Gauge "seconds" &[], Bound::One,
        "When the canary was refused last, in seconds since 1970; 0 for never.";
    CLUSTER_REPORTS "enforcer_cluster_reports_total" Counter "reports" &["what", "outcome"], Bound::Fixed("12, with a cluster"),
        "What this node told the cluster (lease, election, status, event): done, failed (it is tried again) or dropped (too many). Nothing enforced depends on it.";
    CANARY_VERDICTS "enforcer_canary_verdicts_total" Counter "verdicts" &[], Bound::One,
        "Verdicts about the canary, which no other metric and no flow shows. With those of enforcer_policy_verdicts_total they are all that the kernel has counted.";
    STORAGE_CHARGED "enforcer_socket_storage_charged" Gauge "1 or 0" &[], Bound::One,
        "1 if what sockets remember counts against the memory limit of the daemon that made the map, so that workloads can use it up; `enforcer status` says why.";
    MAP_PRESSURE "enforcer_bpf_map_pressure" Gauge "0 to 1" &["map_name"], Bound::Fixed("maps"),
        "How full a kernel map is: entries by capacity.";
    MAP_ENTRIES "enforcer_map_entries" Gauge "entries" &["map_name"], Bound::Fixed("maps"),
        "Entries of the kernel maps.";
    MAP_CAPACITY "enforcer_map_capacity" Gauge "entries" &["map_name"], Bound::Fixed("maps"),
        "Entries that the kernel maps have room for.";
    SERIES "enforcer_metrics_series" Gauge "series" &["budget"], Bound::Fixed("4"),
        "Series of workloads and rules that are told apart, by share of the budget.";
    SERIES_LIMIT "enforcer_metrics_series_limit" Gauge "series" &["budget"], Bound::Fixed("4"),
        "Series that can be told apart; the sum is the setting metrics-series, less what does not divide.";
    SERIES_FOLDED "enforcer_metrics_series_folded" Gauge "sets of labels" &["budget"], Bound::Fixed("4"),
        "Sets of labels beyond the budget, which are counted in the series `_overflow`.";
    EXPIRED "enforcer_metrics_expired_total" Counter "as its metric" &["metric"], Bound::Fixed("metrics with a budget"),
        "What series of workloads that are gone had told when they expired, since the agent's start. The sum of the metric (of a histogram its count) and of this never falls.";
    AUDIT_WRITABLE "enforcer_audit_writable" Gauge "1 or 0" &[], Bound::One,
        "1 if the audit log can be written; absent if there is none.";
    AUDIT_RECORDS "enforcer_audit_records_total" Counter "records" &["kind"], Bound::Fixed("kinds"),
        "Records written to the audit log since the agent's start.";
    AUDIT_LOST "enforcer_audit_lost_total" Counter "records" &["kind"], Bound::Fixed("kinds"),
        "Records that did not get into the audit log since the agent's start. Counts of verdicts are never among them.";
    HISTORY_WRITABLE "enforcer_history_writable" Gauge "1 or 0" &[], Bound::One,
        "1 if the flow history can be written and was not damaged; absent if there is none.";
    HISTORY_SAMPLES "enforcer_history_samples_total" Counter "looks" &["outcome"], Bound::Fixed("3"),
        "Looks at the kernel's counters for the flow history: written, merged = the disk was slower and the next look has it all, failed = waits in the kernel.";
    HISTORY_SET_ASIDE "enforcer_history_set_aside_total" Counter "databases" &[], Bound::One,
        "Databases of flows that were damaged and set aside since the agent's start.";
    HISTORY_BYTES "enforcer_history_bytes" Gauge "bytes" &[], Bound::One,
        "Size of the database of flows.";
    STATE_HASH "enforcer_state_hash" Gauge "hash" &["state"], Bound::Fixed("2"),
        "Hash of what sources and people want (desired), and of what is in force (loaded): policies, bindings and addresses. Equal as soon as the node has converged.";
    SOURCE_UP "enforcer_source_up" Gauge "1 or 0" &["source", "kind"], Bound::Fixed("kinds of objects"),
        "1 if what is used of this kind is as the source has it now, 0 while the source is away or was not heard yet.";
    SOURCE_OBJECTS "enforcer_source_objects" Gauge "objects" &["source", "kind"], Bound::Fixed("kinds of objects"),
        "Objects of this kind that the source has told.";
    READY "enforcer_ready" Gauge "1 or 0" &[], Bound::One,
        "1 if the agent enforces what it was told.";
    DEGRADED "enforcer_degraded" Gauge "problems" &["reason"], Bound::Fixed("areas"),
        "Problems by kind; the last good state is enforced as long as there are any.";
    SCRAPE_KERNEL "enforcer_kernel_readable" Gauge "1 or 0" &[], Bound::One,
        "1 if the kernel's counters could be read for this scrape.";
    BUILD_INFO "enforcer_build_info" Gauge "1" &["version"], Bound::One,
        "Always 1; the version is the label.";
    START_TIME "process_start_time_seconds" Gauge "seconds" &[], Bound::One,
        "Wall-clock time of the agent's start, in seconds since 1970.";
}

/// Every label and what its values are.
pub const LABELS: &[(&str, &str)] = &[
    ("action", "what became of the flow: `forwarded`, `dropped`, `audit`"),
    ("budget", "a share of the series budget: `verdicts`, `traffic`, `rules`, `latency`"),
    (
        "destination",
        "name of the server's workload or service, `reserved:host`, `reserved:world` and the like; empty where the setting `metrics-labels` has no `workload`",
    ),
    (
        "destination_namespace",
        "its namespace; empty for what is reserved, and without `namespace` in `metrics-labels`",
    ),
    ("direction", "whose policy judged: `egress` the source's, `ingress` the destination's"),
    ("hook", "a program in the kernel"),
    ("kind", "what it was about; the metric's help says which there are"),
    ("map_name", "a kernel map: `bindings`, `addresses`, `policy_rows`, `counters`, `traffic`, `latency`"),
    ("match", "`all` if a rule spoke of the flow, `none` if isolation or a default decided"),
    ("metric", "name of a metric with a budget"),
    (
        "outcome",
        "of a publication: `success`, `fail`; of a look for the history: `written`, `merged`, `failed`",
    ),
    ("policy", "`namespace/name`; empty where a default decided, `_overflow` beyond the budget"),
    ("port", "of the server; empty without `port` in `metrics-labels`"),
    ("program", "a program in the kernel"),
    ("protocol", "name of the IP protocol, or its number"),
    ("reason", "of a denial, or of a problem"),
    ("result", "of an attempt of the canary: `refused`, `failed`, `unproven`"),
    ("role", "the end that counted: `client` is the source, `server` the destination"),
    ("rule", "`direction[index]` within the policy, or `direction (isolated)`"),
    ("source", "as destination, for who opened the flow; `_overflow` beyond the budget"),
    ("source_namespace", "as destination_namespace"),
    ("stat", "see above"),
    ("state", "of tables: `enforced`; of workloads: `bound`, `waiting-for-cgroup`, `remote`, `no-room`"),
    ("status", "where a policy stands, as `enforcer policy list` says it"),
    ("type", "`workload`, `gone`, `service`, `reserved`"),
    ("vector", "a way past enforcer"),
    ("verdict", "as Hubble writes it: `FORWARDED`, `DROPPED`, `AUDIT`"),
    ("version", "of the agent"),
    ("what", "is told the cluster: `lease`, `election`, `status`, `event`"),
];
