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
        "Verdicts given: one per connect(2) and per datagram of an unconnected socket, for each direction that was judged.";
    DROPS "enforcer_drop_total" Counter ["reason", "protocol", "direction"]
        "Verdicts that denied.";
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
    HOOK_ATTACHED "enforcer_hook_attached" Gauge ["hook"]
        "1 if the hook is attached with this agent's program.";
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
