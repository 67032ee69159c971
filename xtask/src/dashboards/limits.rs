//! How near the agent is to its own bounds.

use super::layout::Dashboard;
use super::panel::Panel;

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        name: "limits",
        uid: "enforcer-limits",
        title: "Enforcer / Limits",
        about: "Bounds of the agent and of its kernel maps. What reaches one is told and counted, and never allowed by accident.",
        variables: Vec::new(),
        rows: vec![("Kernel maps", maps()), ("Series", series()), ("Events", events())],
    }
}

fn maps() -> Vec<Panel> {
    vec![
        Panel::series("Map pressure", "percentunit", "How full each map is; EnforcerMapPressureHigh fires at 90 %.")
            .ask("max by (instance, map_name) (enforcer_bpf_map_pressure{@agent})", "{{instance}} {{map_name}}")
            .bad_from(0.9)
            .wide(24),
        Panel::series("Entries", "short", "Entries of each map.")
            .ask("sum by (instance, map_name) (enforcer_map_entries{@agent})", "{{instance}} {{map_name}}"),
        Panel::series("Room", "short", "Entries that are left.")
            .ask("sum by (instance, map_name) (enforcer_map_capacity{@agent} - enforcer_map_entries{@agent})", "{{instance}} {{map_name}}"),
        Panel::series("Counts without a row", "cps", "Verdicts and traffic that found no free row in a full map; each is counted here instead.")
            .ask("sum by (instance, stat) (rate(enforcer_kernel_stats_total{stat=~\"counters_full|traffic_full|latency_full\",@agent}[$__rate_interval]))", "{{instance}} {{stat}}"),
        Panel::series("Policy table", "short", "Entries of the table in force.")
            .ask("enforcer_policy_entries{@agent}", "{{instance}}"),
    ]
}

fn series() -> Vec<Panel> {
    vec![
        Panel::series(
            "Series budget",
            "percentunit",
            "Share of the budget that is in use. Beyond it series are summed in `_overflow`.",
        )
        .ask(
            "enforcer_metrics_series{@agent} / enforcer_metrics_series_limit{@agent}",
            "{{instance}} {{budget}}",
        )
        .bad_from(0.9),
        Panel::series("Beyond the budget", "short", "Sets of labels that only `_overflow` tells.")
            .ask("enforcer_metrics_series_folded{@agent}", "{{instance}} {{budget}}")
            .bad_from(1.0),
        Panel::series("Series of a scrape", "short", "All samples that the agent gave to the last scrape.")
            .ask("scrape_samples_scraped{job=\"enforcer\",@agent}", "{{instance}}"),
        Panel::series(
            "Expired",
            "short",
            "What series of workloads that are gone had told, by metric; it is no part of any rate.",
        )
        .ask("sum by (metric) (enforcer_metrics_expired_total{@agent})", "{{metric}}"),
    ]
}

fn events() -> Vec<Panel> {
    vec![
        Panel::series("Events", "cps", "Verdicts that are worth an event, those that sampling or a limit left out, those written to the ring, those that the agent read.")
            .ask("sum by (instance) (rate(enforcer_kernel_stats_total{stat=\"events_seen\",@agent}[$__rate_interval]))", "{{instance}} seen")
            .ask("sum by (instance) (rate(enforcer_kernel_stats_total{stat=\"events_sampled_out\",@agent}[$__rate_interval]))", "{{instance}} sampled out")
            .ask("sum by (instance) (rate(enforcer_kernel_stats_total{stat=\"events_delivered\",@agent}[$__rate_interval]))", "{{instance}} written")
            .ask("sum by (instance) (rate(enforcer_events_read_total{@agent}[$__rate_interval]))", "{{instance}} read"),
        Panel::series("Lost events", "cps", "ring: it was full. Counters of verdicts are exact nevertheless.")
            .ask("sum by (instance, source) (rate(enforcer_lost_events_total{@agent}[$__rate_interval]))", "{{instance}} {{source}}")
            .bad_from(0.001),
    ]
}
