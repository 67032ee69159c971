//! Rules about kinds of sockets.
//!
//! Every kind beyond the configured ones opens ways that are judged later than others, or packet by packet. So whoever has a
//! namespace may take kinds from their workloads, and only who has the cluster may give them more.

use std::collections::BTreeMap;
use std::ops::Range;

use enforcer_common::abi::config::SocketKind;

use super::diagnostic::{Code, quote};
use super::rules::MAX_ITEMS;
use crate::domain::yaml::{Mapping, Node, Reader};

/// What people call kinds, and what is written instead.
const OTHERS: [(&str, &str); 9] = [
    ("icmp", "write `ping` for sockets of echo requests, `raw` for those of other messages"),
    ("icmpv6", "write `ping` for sockets of echo requests, `raw` for those of other messages"),
    ("dccp", "`other` stands for every kind without a name here"),
    ("l2tp", "`other` stands for every kind without a name here"),
    ("smc", "`other` stands for every kind without a name here"),
    ("packet", "no policy opens sockets of other families; see docs/reference.md"),
    ("netlink", "no policy is about sockets of other families; see docs/reference.md"),
    ("unix", "no policy is about sockets of other families; see docs/reference.md"),
    ("vsock", "no policy opens sockets of other families; see docs/reference.md"),
];

/// The kinds that a rule names, as they are written.
pub(super) fn kinds(reader: &mut Reader<'_>, rule: &Mapping<'_>) -> Option<Vec<SocketKind>> {
    let known = SocketKind::ALL.iter().map(|kind| (kind.name(), *kind)).collect::<Vec<_>>();
    let names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
    let help = format!("write some of {}", names.join(", "));
    let node = reader.required(rule, "a sockets rule", "kinds", Some(&help))?;
    let items = reader.list(node, "`kinds`", MAX_ITEMS)?;
    if items.is_empty() {
        reader
            .error(&node.span, Code::EmptyValue, "`kinds` is empty, so the rule matches nothing")
            .label("no kind")
            .help(help);
        return None;
    }
    let errors = reader.errors();
    let mut seen: BTreeMap<SocketKind, Range<usize>> = BTreeMap::new();
    let mut kinds = Vec::with_capacity(items.len());
    for item in items {
        let Some(kind) = kind(reader, item, &known) else { continue };
        if let Some(first) = seen.get(&kind) {
            let first = reader.location(first);
            let message = format!("`kinds` names {} twice", quote(kind.name()));
            reader.error(&item.span, Code::Duplicate, message).label("second").related(first, "first");
            continue;
        }
        seen.insert(kind, item.span.clone());
        kinds.push(kind);
    }
    (reader.errors() == errors).then_some(kinds)
}

fn kind(reader: &mut Reader<'_>, node: &Node, known: &[(&str, SocketKind)]) -> Option<SocketKind> {
    let written = node.as_text().map(|text| text.to_lowercase().replace(['-', '_'], ""));
    let right = known.iter().find(|(name, _)| Some(*name) == written.as_deref());
    let other = OTHERS.iter().find(|(name, _)| Some(*name) == written.as_deref());
    let help = match (right, other) {
        (Some((name, _)), _) if node.as_text() != Some(*name) => format!("write `{name}`"),
        (None, Some((_, help))) => (*help).to_owned(),
        _ => return reader.choice(node, "an item of `kinds`", known),
    };
    let message = format!("no kind of sockets is called {}", quote(node.as_text().unwrap_or_default()));
    reader.error(&node.span, Code::UnknownValue, message).label("unknown kind").help(help);
    None
}

/// Reports a rule of a namespace that allows kinds.
pub(super) fn refuse_allow(reader: &mut Reader<'_>, place: &Range<usize>, rule: &Mapping<'_>) {
    let (place, message) = match rule.get("action") {
        Some(action) => (action.span.clone(), "a TrafficPolicy can't allow kinds of sockets"),
        None => (
            place.clone(),
            "a TrafficPolicy can't allow kinds of sockets, and `Allow` is what a rule without `action` does",
        ),
    };
    reader
        .error(&place, Code::Unsupported, message)
        .label("only a ClusterTrafficPolicy allows kinds")
        .help(
            "write `action: Deny`, or put the rule into a ClusterTrafficPolicy: what `allowed-sockets` does not name is \
             judged later than other flows, so no namespace opens it for itself",
        );
}

/// Reports a section without rules.
pub(super) fn refuse_empty(reader: &mut Reader<'_>, node: &Node) {
    reader
        .error(&node.span, Code::EmptyValue, "`sockets` is empty, so it says nothing")
        .label("no rule")
        .help("it isolates nobody: add a rule like `- {kinds: [mptcp], action: Deny}`, or remove it");
}
