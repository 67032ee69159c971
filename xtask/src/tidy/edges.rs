//! Which room may name which: the arrows of ARCHITECTURE.md, read from the code.

use super::Finding;
use super::lex::Source;
use super::paths::{self, Reference};

/// Permission for everything below `from` to name everything below `to`.
struct Edge {
    from: &'static str,
    to: &'static str,
    /// Why the arrow is there; one that needs a long reason is one that should not be there.
    why: &'static str,
}

const fn edge(from: &'static str, to: &'static str, why: &'static str) -> Edge {
    Edge { from, to, why }
}

const SHARED: &str = "the words of the design and the numbers of the kernel's tables";
const WIRING: &str = "the agent is where the adapters meet";

/// Rooms of `enforcer` by their names, other crates by their package names.
const ALLOWED: &[Edge] = &[
    edge("domain", "enforcer_common", "the verdict and its tables are values that the kernel shares"),
    edge("config", "domain", "a setting is checked by the type it becomes"),
    edge("engine", "domain", "the state is made of domain values"),
    edge("kernel", "domain", SHARED),
    edge("kernel", "enforcer_common", SHARED),
    edge("kernel", "aya", "the only room that talks to the kernel's BPF"),
    edge("kernel", "aya_log", "faults of the kernel programs arrive through it"),
    edge("sources", "domain", SHARED),
    edge("sources", "enforcer_common", SHARED),
    edge("store", "domain", SHARED),
    edge("store", "enforcer_common", SHARED),
    edge("telemetry", "domain", SHARED),
    edge("telemetry", "enforcer_common", SHARED),
    edge("api", "domain", SHARED),
    edge("api", "enforcer_common", SHARED),
    edge("cluster", "domain", SHARED),
    edge("cluster", "kube", "speaks to the API server of a cluster"),
    edge("cluster", "k8s_openapi", "leases, nodes and events are the API's own kinds"),
    edge("sources/kubernetes", "kube", "watches the objects of a cluster"),
    edge("agent", "cluster", WIRING),
    edge("agent", "engine", WIRING),
    edge("agent", "config", WIRING),
    edge("agent", "kernel", WIRING),
    edge("agent", "sources", WIRING),
    edge("agent", "store", WIRING),
    edge("agent", "telemetry", WIRING),
    edge("agent", "api", WIRING),
    edge("agent", "domain", "events and effects carry domain values"),
    edge("agent", "enforcer_common", "events and effects carry the kernel's numbers"),
    edge("cli", "api::client", "every verb but a few asks the running daemon"),
    edge("cli", "domain", "validation and rendering work without a daemon"),
    edge("cli", "config", "flags override the file"),
    edge("cli", "enforcer_common", "names of reasons and limits are printed from their one table"),
    edge("cli/agent", "agent", "`enforcer run` is the agent"),
    edge("cli/agent", "api", "a stopped agent is recognised by its socket before anything is removed"),
    edge("cli", "cluster::policies", "verbs with --cluster ask the API server with the user's own rights"),
    edge(
        "cli",
        "cluster::agents",
        "questions to other nodes go through the API server with the user's own rights",
    ),
    edge("cli", "cluster::client", "a kubeconfig becomes a client in one place"),
    edge("cli/observe", "api::LostEvents", "flows of other nodes come with what was lost of them"),
    edge("cli", "api::Error", "the client's errors become exit codes"),
    edge("cli/render/flow", "api::LostEvents", "a stream of flows says what it lost"),
    edge("cli/render/metrics", "telemetry::metrics", "prints the table of metrics"),
    edge("cli/probe", "kernel::probe", "`enforcer probe` must work without a daemon"),
    edge("cli/render/probe", "kernel::probe", "prints the report"),
    edge("cli/preflight", "kernel::preflight", "`enforcer preflight` must work before there is a daemon"),
    edge("cli/preflight", "kernel::probe", "what the kernel can do is part of the judgement"),
    edge("cli/render/preflight", "kernel::preflight", "prints the judgement"),
    edge(
        "cli/canary",
        "kernel::canary",
        "`enforcer canary` is the process that the agent starts as its canary",
    ),
    edge("cli/audit", "telemetry::audit::read", "a log must be verified where no agent runs"),
    edge("cli/flows", "telemetry::history::query", "the history of a host must be read where no agent runs"),
    edge("main", "cli", "the binary is its command line"),
    edge("enforcer-ebpf", "enforcer_common", "one verdict on both sides of the boundary"),
    edge("enforcer-common", "aya::Pod", "marks shared structs as plain data, behind the feature `user`"),
    edge("xtask", "enforcer_common", "limits and tables for generated documents"),
];

const ROOMS: [&str; 11] = [
    "domain",
    "config",
    "engine",
    "kernel",
    "sources",
    "store",
    "telemetry",
    "api",
    "cluster",
    "agent",
    "cli",
];

/// Crates whose use is an arrow of the design; any other crate is the manifests' business.
const CRATES: [&str; 7] = ["enforcer", "enforcer_common", "aya", "aya_obj", "aya_log", "kube", "k8s_openapi"];

pub(super) fn check(source: &Source, findings: &mut Vec<Finding>) {
    let Some((package, module)) = source.module() else { return };
    // The library's root only declares the rooms, the suite may use all of the product.
    if (package == "enforcer" && module == "lib") || package == "tests" {
        return;
    }
    let from = if package == "enforcer" { module } else { package.to_owned() };
    let own_room = from.split('/').next().unwrap_or_default();
    for reference in paths::of(source) {
        let Some(target) = target_of(package, &reference) else { continue };
        if target.split("::").next() != Some(own_room) && !is_allowed(&from, &target) {
            findings.push(Finding::new(&source.path, reference.line, message(&from, &target)));
        }
    }
}

/// What an arrow would point to: a room of `enforcer` with what is named in it, or another crate.
fn target_of(package: &str, reference: &Reference) -> Option<String> {
    let text = reference.text();
    let (first, rest) = text.split_once("::").unwrap_or((&text, ""));
    // The binary names its library by the crate's name.
    if package == "enforcer" && ["crate", "enforcer"].contains(&first) {
        let room = rest.split("::").next().unwrap_or_default();
        return ROOMS.contains(&room).then(|| rest.to_owned());
    }
    CRATES.contains(&first).then_some(text)
}

fn is_allowed(from: &str, target: &str) -> bool {
    ALLOWED.iter().any(|edge| is_below(from, edge.from, "/") && is_below(target, edge.to, "::"))
}

fn is_below(path: &str, prefix: &str, separator: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with(separator))
}

fn message(from: &str, target: &str) -> String {
    let allowed: Vec<_> = ALLOWED
        .iter()
        .filter(|edge| is_below(from, edge.from, "/"))
        .map(|edge| format!("{} ({})", edge.to, edge.why))
        .collect();
    let allowed = if allowed.is_empty() { "nothing".to_owned() } else { allowed.join("; ") };
    format!("`{from}` may not name `{target}`; it may name: {allowed}")
}

#[cfg(test)]
mod tests {
    use super::super::findings_of;
    use super::*;

    fn count(path: &str, text: &str) -> usize {
        findings_of(check, path, text).len()
    }

    #[test]
    fn arrows_of_the_design_pass() {
        assert_eq!(count("enforcer/src/engine/mod.rs", "use crate::domain::Policy;"), 0);
        assert_eq!(count("enforcer/src/cli/probe.rs", "use crate::kernel::probe;"), 0);
        assert_eq!(count("enforcer/src/main.rs", "fn main() { enforcer::cli::run() }"), 0);
        assert_eq!(count("enforcer/src/domain/a.rs", "use super::b::C; use crate::domain::d;"), 0);
        assert_eq!(count("enforcer-common/src/wire.rs", "unsafe impl aya::Pod for X {}"), 0);
    }

    #[test]
    fn every_other_arrow_is_found() {
        assert_eq!(count("enforcer/src/domain/a.rs", "use super::super::engine::step;"), 1);
        assert_eq!(count("enforcer/src/engine/mod.rs", "use crate::{domain::A, kernel::B};"), 1);
        assert_eq!(count("enforcer/src/api/http.rs", "use crate::store::Revisions;"), 1);
        assert_eq!(count("enforcer/src/cli/status.rs", "use crate::kernel::probe;"), 1);
        assert_eq!(count("enforcer/src/cli/status.rs", "use crate::api::server;"), 1);
        assert_eq!(count("enforcer/src/agent/mod.rs", "fn f() { aya::Ebpf::load(b) }"), 1);
        assert_eq!(count("enforcer/src/main.rs", "use enforcer::agent;"), 1);
        assert_eq!(count("enforcer-common/src/lib.rs", "use aya::maps::Map;"), 1);
        assert_eq!(count("xtask/src/main.rs", "use enforcer::domain::A;"), 1);
    }

    #[test]
    fn tests_may_look_around() {
        let text = "#[cfg(test)]\nmod tests { use crate::kernel::Fake; }";
        assert_eq!(count("enforcer/src/engine/mod.rs", text), 0);
    }

    #[test]
    fn every_edge_has_its_reason() {
        assert!(ALLOWED.iter().all(|edge| edge.why.len() > 15));
    }
}
