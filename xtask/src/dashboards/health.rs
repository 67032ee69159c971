//! Whether agents do what they should, and what that costs.

use super::layout::Dashboard;
use super::panel::Panel;

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        name: "agent-health",
        uid: "enforcer-agent-health",
        title: "Enforcer / Agent health",
        about: "Is it enforced, with what programs, and at what price?",
        variables: Vec::new(),
        rows: vec![
            ("State", state()),
            ("Programs", programs()),
            ("Policies", policies()),
            ("Watch", watch()),
            ("Revocation", revocation()),
        ],
    }
}

fn state() -> Vec<Panel> {
    vec![
        Panel::series("Ready", "short", "1 while the agent enforces what it was told.")
            .ask("enforcer_ready{@agent}", "{{instance}}")
            .wide(8),
        Panel::series("Problems", "short", "Problems by kind; `enforcer status` has a sentence for each.")
            .ask("sum by (instance, reason) (enforcer_degraded{@agent})", "{{instance}} {{reason}}")
            .bad_from(1.0)
            .wide(8),
        Panel::series("Counters readable", "short", "0 where the last scrape could not read the kernel.")
            .ask("enforcer_kernel_readable{@agent}", "{{instance}}")
            .wide(8),
        Panel::series("Workloads", "short", "By state; waiting-for-cgroup: its directory is not there yet.")
            .ask("sum by (state) (enforcer_endpoint_state{@agent})", "{{state}}")
            .wide(8),
        Panel::series(
            "Identities",
            "short",
            "gone: nobody has it any more, and something was counted of it.",
        )
        .ask("sum by (type) (enforcer_identity{@agent})", "{{type}}")
        .wide(8),
        Panel::series("Uptime", "s", "Since the agent's start. What is attached goes on without it.")
            .ask("time() - process_start_time_seconds{job=\"enforcer\",@agent}", "{{instance}}")
            .wide(8),
        Panel::table("Versions", "short", "Agents by version.")
            .ask("count by (version, instance) (enforcer_build_info{@agent})", ""),
    ]
}

fn programs() -> Vec<Panel> {
    vec![
        Panel::series("Hooks", "short", "0: the hook is not attached with this agent's program. socket_create needs the BPF LSM.")
            .ask("min by (hook) (enforcer_hook_attached{@agent})", "{{hook}}"),
        Panel::series("Share of a CPU", "percentunit", "Time inside the programs, where the kernel counts it (kernel.bpf_stats_enabled, program-statistics).")
            .ask("sum by (program) (rate(enforcer_overhead_program_seconds_total{@agent}[$__rate_interval]))", "{{program}}")
            .stacked(),
        Panel::series("Time of a run", "s", "Mean time of one run of each program.")
            .ask("sum by (program) (rate(enforcer_overhead_program_seconds_total{@agent}[$__rate_interval])) / sum by (program) (rate(enforcer_overhead_program_runs_total{@agent}[$__rate_interval]) > 0)", "{{program}}"),
        Panel::series("Runs are counted", "short", "1 where the two panels before have something to show.").ask("enforcer_overhead_statistics_enabled{@agent}", "{{instance}}"),
        Panel::series("Faults in programs", "cps", "What the kernel programs did besides verdicts; docs/reference.md says what each is.")
            .ask("sum by (stat) (rate(enforcer_kernel_stats_total{stat!~\"events_.*\",@agent}[$__rate_interval]))", "{{stat}}")
            .wide(24),
    ]
}

fn policies() -> Vec<Panel> {
    vec![
        Panel::series("Changes", "cps", "Tables that were put in force, and those that the kernel refused.")
            .ask("sum by (instance, outcome) (rate(enforcer_policy_change_total{@agent}[$__rate_interval]))", "{{instance}} {{outcome}}"),
        Panel::series("Time of a publication", "s", "How long it took to write a table and switch to it: median and 99 of 100.")
            .ask("histogram_quantile(0.5, sum by (le) (rate(enforcer_policy_publish_seconds_bucket{@agent}[$__range])))", "median")
            .ask("histogram_quantile(0.99, sum by (le) (rate(enforcer_policy_publish_seconds_bucket{@agent}[$__range])))", "99 %"),
    ]
}

fn watch() -> Vec<Panel> {
    vec![
        Panel::series(
            "Repairs",
            "short",
            "What somebody took away or changed in the kernel, and the agent put back.",
        )
        .ask(
            "sum by (instance, kind) (increase(enforcer_repairs_total{@agent}[$__rate_interval]))",
            "{{instance}} {{kind}}",
        )
        .wide(8),
        Panel::series(
            "Programs of others",
            "short",
            "They may change what an application is told, not what the packet hooks refuse.",
        )
        .ask("sum by (instance, hook) (enforcer_foreign_programs{@agent})", "{{instance}} {{hook}}")
        .wide(8),
        Panel::series(
            "Open ways past",
            "short",
            "1 where it is open; `enforcer status --unguarded` says why.",
        )
        .ask("max by (vector) (enforcer_unguarded_vectors{@agent})", "{{vector}}")
        .wide(8),
    ]
}

fn revocation() -> Vec<Panel> {
    vec![
        Panel::series("Destroyed sockets", "short", "Open sockets whose flow a change forbade.")
            .ask("sum by (protocol, reason) (enforcer_sockets_destroyed_total{@agent})", "{{protocol}} {{reason}}"),
        Panel::series("Time of a pass", "s", "Mean time in which all open sockets are judged.")
            .ask("sum by (instance) (rate(enforcer_revocation_seconds_total{@agent}[$__range])) / sum by (instance) (rate(enforcer_revocations_total{@agent}[$__range]) > 0)", "{{instance}}"),
        Panel::series("Failures", "cps", "What could not be done meanwhile; the packets are judged nevertheless.")
            .ask("sum by (instance, kind) (rate(enforcer_revocation_failures_total{@agent}[$__rate_interval]))", "{{instance}} {{kind}}"),
        Panel::series("Left alone", "short", "Sockets whose ends, and processes whose network namespaces, could not be told in the last pass.")
            .ask("sum by (instance) (enforcer_revocation_undecided_sockets{@agent})", "{{instance}} sockets")
            .ask("sum by (instance) (enforcer_revocation_hidden_processes{@agent})", "{{instance}} processes"),
    ]
}
