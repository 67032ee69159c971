//! `spec` of the project's own kinds, `TrafficPolicy` and `ClusterTrafficPolicy`.

use enforcer_common::reason::Errno;

use super::diagnostic::{Code, nearest, quote};
use super::key::PolicyKind;
use super::model::{Layer, Namespaces, Peer, Peers, Policy, PolicyKey, PolicyMode, Rule, Subject};
use super::peers::{self, Scope};
use super::rules::{self, Words};
use super::selector;
use crate::domain::container;
use crate::domain::syntax::ERRNOS;
use crate::domain::yaml::{Mapping, Node, Reader};

/// What people write who know other policy languages.
pub(super) const HINTS: &[(&str, &str)] = &[
    ("podSelector", "here it is `subject` for the policy and `workloads` for a peer"),
    ("endpointSelector", "here it is `subject`"),
    ("selector", "here it is `subject`"),
    ("ipBlock", "here it is `cidr`, with `except` beside it"),
    ("networks", "here it is `cidr`, one for each item"),
    ("policyTypes", "remove it: a direction is isolated when its section is present, even as `[]`"),
    ("protocols", "here it is `ports`, whose items have a `protocol`"),
    ("to", "an ingress rule has `from`, a listen rule no peers; `to` belongs to egress rules"),
    ("from", "an egress rule has `to`, a listen rule no peers; `from` belongs to ingress rules"),
    ("effect", "here it is `action`"),
    ("tier", "only a ClusterTrafficPolicy has a tier"),
    ("priority", "only a ClusterTrafficPolicy has a priority, beside its `tier`"),
];

/// Highest number of a `priority`, as for `ClusterNetworkPolicy`.
pub(super) const MAX_PRIORITY: u16 = 1_000;

/// Fields of `spec`; the last two of policies of the cluster only.
pub(super) const FIELDS: [&str; 10] =
    ["mode", "errno", "subject", "ingress", "egress", "listen", "sockets", "expiresAt", "tier", "priority"];

/// The policy, still without its name.
pub(super) fn read(reader: &mut Reader<'_>, node: &Node, kind: PolicyKind) -> Option<Policy> {
    const MODES: [(&str, PolicyMode); 2] = [("enforce", PolicyMode::Enforce), ("audit", PolicyMode::Audit)];
    let is_cluster = kind == PolicyKind::ClusterTrafficPolicy;
    let fields = if is_cluster { &FIELDS[..] } else { &FIELDS[..8] };
    let spec = reader.mapping(node, "`spec`", fields)?;
    let mode = match spec.get("mode") {
        Some(node) => reader.choice(node, "`mode`", &MODES),
        None => Some(PolicyMode::default()),
    };
    let errno = match spec.get("errno") {
        Some(node) => reader.choice(node, "`errno`", &ERRNOS),
        None => Some(Errno::default()),
    };
    let layer = if is_cluster { layer(reader, &spec) } else { Some(Layer::Namespaced) };
    let subject = subject(reader, &spec, is_cluster);
    let scope = if is_cluster { Scope::Cluster } else { Scope::Namespace };
    let ordered = is_cluster && spec.get("tier").is_some();
    let mut section = |field, words: &Words| {
        let words = Words { scope, ordered, ..*words };
        spec.get(field).map(|node| rules::direction(reader, node, &words))
    };
    let ingress = section("ingress", &rules::INGRESS);
    let egress = section("egress", &rules::EGRESS);
    let listen = section("listen", &rules::LISTEN);
    let sockets = section("sockets", &rules::SOCKETS);
    let expires = spec.get("expiresAt").map(|node| rules::expiry(reader, node, "this policy"));
    check_sections(reader, &spec, layer, [&ingress, &egress, &listen, &sockets]);
    check_containers(reader, &spec, subject.as_ref(), &ingress);
    Some(Policy {
        key: PolicyKey::default(),
        layer: layer?,
        mode: mode?,
        errno: errno?,
        subject: subject?,
        ingress: ingress.map_or(Some(None), |rules| rules.map(Some))?,
        egress: egress.map_or(Some(None), |rules| rules.map(Some))?,
        listen: listen.map_or(Some(None), |rules| rules.map(Some))?,
        sockets: sockets.map_or(Some(None), |rules| rules.map(Some))?,
        expires: expires.map_or(Some(None), |expires| expires.map(Some))?,
    })
}

const SECTIONS: [&str; 4] = ["ingress", "egress", "listen", "sockets"];

type Section = Option<Option<Vec<Rule>>>;

/// What the sections of a policy must be together.
fn check_sections(
    reader: &mut Reader<'_>,
    spec: &Mapping<'_>,
    layer: Option<Layer>,
    sections: [&Section; 4],
) {
    if let (Some(entry), Some(Layer::Admin { .. } | Layer::Baseline { .. })) = (spec.entry("listen"), layer) {
        let message = "a policy of a tier says nothing of listening";
        reader
            .error(&entry.span, Code::ConflictingFields, message)
            .label("not with `tier`")
            .help("put it into a policy without `tier`");
    }
    let has_typo = spec.entries().iter().any(|entry| nearest(&entry.key, SECTIONS).is_some());
    if sections.iter().all(|section| section.is_none()) && !has_typo {
        let message =
            "the policy has none of `ingress`, `egress`, `listen` and `sockets` and would do nothing";
        reader.error(&spec.place(), Code::NoDirection, message).label("no direction in this `spec`").help(
            "write `ingress: []` to deny all flows to the subject, `egress: []` to deny all flows from it",
        );
    }
    if layer.is_some_and(|layer| !layer.isolates()) {
        for entry in spec.entries().iter().filter(|entry| matches!(entry.key.as_str(), "ingress" | "egress"))
        {
            if matches!(&entry.value.value, crate::domain::yaml::Value::List(items) if items.is_empty()) {
                let message = format!("`{}` of a policy of a tier is empty: tiers isolate nobody", entry.key);
                reader
                    .warning(&entry.span, Code::NoEffect, message)
                    .label("does nothing")
                    .help("add a rule, `- action: Deny` for everyone");
            }
        }
    }
}

/// One end of a flow knows the container there, and not the one at the other end: a policy can't name both.
fn check_containers(
    reader: &mut Reader<'_>,
    spec: &Mapping<'_>,
    subject: Option<&Subject>,
    ingress: &Section,
) {
    let Some(name) = subject.and_then(|subject| container::named(&subject.selector)) else { return };
    let peers = ingress.iter().flatten().flatten().filter_map(|rule| match &rule.peers {
        Peers::AnyOf(peers) => Some(peers),
        Peers::Everyone => None,
    });
    let is_container = |peer: &Peer| matches!(peer, Peer::Workloads { selector, .. } if container::named(selector).is_some());
    if !peers.flatten().any(is_container) {
        return;
    }
    let Some(entry) = spec.entry("ingress") else { return };
    let message = format!("a policy about the container {} lets containers in", quote(name));
    reader
        .error(&entry.span, Code::Unsupported, message)
        .label("names a container as a peer")
        .help("one end of a flow knows its own container, and the other end by its pod's address: name a container in one place only");
}

/// `tier` and `priority`, which belong together.
fn layer(reader: &mut Reader<'_>, spec: &Mapping<'_>) -> Option<Layer> {
    let Some(node) = spec.get("tier") else {
        if let Some(entry) = spec.entry("priority") {
            reader
                .error(&entry.span, Code::ConflictingFields, "the policy has a `priority` without a `tier`")
                .label("needs `tier`")
                .help("add `tier: Admin` or `tier: Baseline`; without a tier the order never matters");
        }
        return Some(Layer::Namespaced);
    };
    tier(reader, spec, node)
}

/// The tier, with the priority that it needs.
pub(super) fn tier(reader: &mut Reader<'_>, spec: &Mapping<'_>, node: &Node) -> Option<Layer> {
    let tiers = [("Admin", true), ("Baseline", false)];
    let is_admin = reader.choice(node, "`tier`", &tiers);
    let help = format!("0-{MAX_PRIORITY}; the lowest number is asked first");
    let priority = reader.required(spec, "`spec`", "priority", Some(&help));
    let priority = priority.and_then(|node| {
        let number = reader.integer(node, "`priority`")?;
        let priority = u16::try_from(number).ok().filter(|number| *number <= MAX_PRIORITY);
        if priority.is_none() {
            let message = format!("`priority` can't be {number}");
            reader.error(&node.span, Code::UnknownValue, message).label("out of range").help(help);
        }
        priority
    })?;
    Some(if is_admin? { Layer::Admin { priority } } else { Layer::Baseline { priority } })
}

fn subject(reader: &mut Reader<'_>, spec: &Mapping<'_>, is_cluster: bool) -> Option<Subject> {
    if !is_cluster {
        let help = "write `subject: {}` if every workload of the namespace is meant";
        let node = reader.required(spec, "`spec`", "subject", Some(help))?;
        return Some(Subject::own(selector::workloads(reader, node, "`subject`")?));
    }
    let help = "write `subject: {namespaces: [\"*\"]}` if every workload of the cluster is meant";
    let node = reader.required(spec, "`spec`", "subject", Some(help))?;
    let what = "`subject`";
    let subject = reader.mapping(node, what, &["namespaces", "namespaceSelector", "workloads"])?;
    let namespaces = peers::namespaces_of(reader, &subject, what);
    let selector = match subject.get("workloads") {
        Some(node) => selector::workloads(reader, node, "`workloads`"),
        None => Some(crate::domain::labels::Selector::default()),
    };
    let namespaces = namespaces?;
    if namespaces == Namespaces::Own {
        let message =
            "the subject of a ClusterTrafficPolicy has neither `namespaces` nor `namespaceSelector`";
        reader
            .error(&subject.place(), Code::MissingField, message)
            .label("in which namespaces?")
            .help("write `namespaces: [\"*\"]` for all of them");
        return None;
    }
    Some(Subject { namespaces, selector: selector? })
}
