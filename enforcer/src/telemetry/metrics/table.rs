//! Every metric, once: the exposition and the documentation both come from here.

/// What kind of number it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rises, except when the host restarts.
    Counter,
    /// Rises and falls.
    Gauge,
}

/// A metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Its name.
    pub name: &'static str,
    /// Kind of number.
    pub kind: Kind,
    /// Names of its labels, in the order of values.
    pub labels: &'static [&'static str],
    /// One sentence.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($constant:ident $name:literal $kind:ident [$($label:literal),*] $help:literal;)*) => {
        $(pub(super) const $constant: &Definition =
            &Definition { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };)*

        /// Every metric, in the order of the documentation.
        pub const METRICS: &[&Definition] = &[$($constant,)*];
    };
}

metrics! {
    VERDICTS "enforcer_policy_verdicts_total" Counter
        ["action", "match", "direction", "source", "source_namespace", "destination", "destination_namespace",
         "protocol", "port", "policy", "rule"]
        "Verdicts given: one for each flow that is opened and each end that judged it, and one for each refusal. Goes on counting without the agent.";
    DROPS "enforcer_drop_total" Counter ["reason", "protocol", "direction"]
        "Verdicts that denied.";
    OPENED "enforcer_connections_opened_total" Counter
        ["source", "source_namespace", "destination", "destination_namespace", "protocol", "port", "role"]
        "Connections that were established, told by each end that enforcer sees: role = client is the source, server the destination.";
    CLOSED "enforcer_connections_closed_total" Counter
        ["source", "source_namespace", "destination", "destination_namespace", "protocol", "port", "role"]
        "Established connections that ended; what they carried is added now.";
    SENT_PACKETS "enforcer_sent_packets_total" Counter
        ["source", "source_namespace", "destination", "destination_namespace", "protocol", "port", "role"]
        "Packets sent by the end that the role names: datagrams at once, TCP segments at the end of their connection.";
    RECEIVED_PACKETS "enforcer_received_packets_total" Counter
        ["source", "source_namespace", "destination", "destination_namespace", "protocol", "port", "role"]
        "Packets received by the end that the role names, counted as those sent.";
    SENT_BYTES "enforcer_sent_bytes_total" Counter
        ["source", "source_namespace", "destination", "destination_namespace", "protocol", "port", "role"]
        "Bytes sent by the end that the role names: of TCP payload that was acknowledged, at the end of the connection; of datagrams with the IP header, at once.";
    RECEIVED_BYTES "enforcer_received_bytes_total" Counter
        ["source", "source_namespace", "destination", "destination_namespace", "protocol", "port", "role"]
        "Bytes received by the end that the role names, counted as those sent.";
    RETRANSMITS "enforcer_retransmitted_packets_total" Counter
        ["source", "source_namespace", "destination", "destination_namespace", "protocol", "port", "role"]
        "TCP segments that the end that the role names sent again, added at the end of their connection.";
    ROUND_TRIPS "enforcer_round_trip_seconds_total" Counter
        ["source", "source_namespace", "destination", "destination_namespace", "protocol", "port", "role"]
        "Sum of the smoothed round-trip times of closed connections, as the end that the role names measured them at the end; divided by the closed connections it is their mean.";
    EVENTS_READ "enforcer_events_read_total" Counter []
        "Events that this process read from the event ring.";
    LOST_EVENTS "enforcer_lost_events_total" Counter ["source"]
        "Events that were lost: ring = it was full, malformed = not of this version. Counters of verdicts are exact nevertheless.";
    KERNEL_STATS "enforcer_kernel_stats_total" Counter ["stat"]
        "What the kernel programs did besides verdicts, and what failed inside them.";
    GENERATION "enforcer_policy_generation" Gauge ["state"]
        "Number of the policy tables; rises with each publication.";
    POLICIES "enforcer_policies" Gauge []
        "Loaded policies.";
    POLICY_ENTRIES "enforcer_policy_entries" Gauge []
        "Entries of the enforced policy table.";
    IDENTITIES "enforcer_identities" Gauge []
        "Identities with a number, those without a workload included.";
    ENDPOINTS "enforcer_endpoints" Gauge ["state"]
        "Workloads by state.";
    QUARANTINED "enforcer_quarantined_workloads" Gauge []
        "Workloads in quarantine, those included that are not there now.";
    HOOK_ATTACHED "enforcer_hook_attached" Gauge ["hook"]
        "1 if the hook is attached with this agent's program.";
    UNGUARDED "enforcer_unguarded_vectors" Gauge ["vector"]
        "1 if this way past enforcer is open on this host; `enforcer status --unguarded` says why.";
    FOREIGN_PROGRAMS "enforcer_foreign_programs" Gauge ["hook"]
        "Programs of other owners that run at the hook, above or below the directory that enforcer is attached to.";
    REPAIRS "enforcer_repairs_total" Counter ["kind"]
        "What somebody took away or changed in the kernel, and this agent put back.";
    SOCKETS_DESTROYED "enforcer_sockets_destroyed_total" Counter ["protocol", "reason"]
        "Open sockets that were destroyed because their flow is no longer allowed.";
    REVOCATIONS "enforcer_revocations_total" Counter []
        "Times that all open sockets were judged anew, which follows every change that took effect.";
    REVOCATION_SECONDS "enforcer_revocation_seconds_total" Counter []
        "Time that judging all open sockets took.";
    REVOCATION_FAILURES "enforcer_revocation_failures_total" Counter ["kind"]
        "What could not be done while all open sockets were judged: pass = any of it, namespace = visit a network namespace or list all of its sockets, socket = destroy a socket. The packets are judged nevertheless.";
    REVOCATION_HIDDEN "enforcer_revocation_hidden_processes" Gauge []
        "Processes whose network namespaces could not be told when all open sockets were judged last.";
    REVOCATION_UNDECIDED "enforcer_revocation_undecided_sockets" Gauge []
        "Connected sockets whose two ends could not be told when all were judged last. They stay, and their packets are judged.";
    MAP_ENTRIES "enforcer_map_entries" Gauge ["map_name"]
        "Entries of the kernel maps.";
    MAP_CAPACITY "enforcer_map_capacity" Gauge ["map_name"]
        "Entries that the kernel maps have room for.";
    AUDIT_WRITABLE "enforcer_audit_writable" Gauge []
        "1 if the audit log can be written; absent if there is none.";
    AUDIT_RECORDS "enforcer_audit_records_total" Counter ["kind"]
        "Records written to the audit log since the agent's start.";
    AUDIT_LOST "enforcer_audit_lost_total" Counter ["kind"]
        "Records that did not get into the audit log since the agent's start. Counts of verdicts are never among them.";
    HISTORY_WRITABLE "enforcer_history_writable" Gauge []
        "1 if the flow history can be written and was not damaged; absent if there is none.";
    HISTORY_SAMPLES "enforcer_history_samples_total" Counter ["outcome"]
        "Looks at the kernel's counters for the flow history: written, merged = the disk was slower and the next look has it all, failed = waits in the kernel.";
    HISTORY_SET_ASIDE "enforcer_history_set_aside_total" Counter []
        "Databases of flows that were damaged and set aside since the agent's start.";
    HISTORY_BYTES "enforcer_history_bytes" Gauge []
        "Size of the database of flows.";
    READY "enforcer_ready" Gauge []
        "1 if the agent enforces what it was told.";
    DEGRADED "enforcer_degraded" Gauge ["reason"]
        "Problems by kind; the last good state is enforced as long as there are any.";
    SCRAPE_KERNEL "enforcer_kernel_readable" Gauge []
        "1 if the kernel's counters could be read for this scrape.";
    BUILD_INFO "enforcer_build_info" Gauge ["version"]
        "Always 1; the version is the label.";
    START_TIME "process_start_time_seconds" Gauge []
        "Wall-clock time of the agent's start, in seconds since 1970.";
}
