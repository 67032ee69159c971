//! Rules of the project's own kinds.

use std::collections::BTreeMap;
use std::ops::Range;

use enforcer_common::reason::Errno;

use super::diagnostic::{Code, quote};
use super::model::{Action, Peers, Ports, Rule};
use super::peers::{self, Scope};
use super::{ports, sockets};
use crate::domain::syntax::{ERRNOS, Name};
use crate::domain::timestamp::Timestamp;
use crate::domain::yaml::{Mapping, Node, Reader};

/// Most rules of one direction of a policy.
pub(super) const MAX_RULES: usize = 1_000;
/// Most items of any list inside a rule or selector.
pub(super) const MAX_ITEMS: usize = 1_000;

/// What the sections call things, and what can stand in them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Words {
    pub(super) direction: &'static str,
    pub(super) rule: &'static str,
    /// Nothing where rules have no peers.
    pub(super) peers: Option<&'static str>,
    /// Whether rules name kinds of sockets, not ports.
    pub(super) kinds: bool,
    /// Whose rules they are.
    pub(super) scope: Scope,
    /// Whether the first rule that matches decides, and may pass a flow on.
    pub(super) ordered: bool,
}

const fn words(direction: &'static str, rule: &'static str, peers: Option<&'static str>) -> Words {
    Words { direction, rule, peers, kinds: false, scope: Scope::Namespace, ordered: false }
}

pub(super) const INGRESS: Words = words("`ingress`", "an ingress rule", Some("from"));
pub(super) const EGRESS: Words = words("`egress`", "an egress rule", Some("to"));
pub(super) const LISTEN: Words = words("`listen`", "a listen rule", None);
pub(super) const SOCKETS: Words = Words { kinds: true, ..words("`sockets`", "a sockets rule", None) };

const ACTIONS: [(&str, Action); 3] =
    [("Allow", Action::Allow), ("Deny", Action::Deny), ("Pass", Action::Pass)];

/// The rules of one direction.
pub(super) fn direction(reader: &mut Reader<'_>, node: &Node, words: &Words) -> Option<Vec<Rule>> {
    let items = reader.list(node, words.direction, MAX_RULES)?;
    if words.kinds && items.is_empty() {
        sockets::refuse_empty(reader, node);
        return None;
    }
    let mut names: BTreeMap<&str, Range<usize>> = BTreeMap::new();
    let mut rules = Vec::with_capacity(items.len());
    for item in items {
        let Some((rule, name)) = rule(reader, item, words) else { continue };
        if let Some((name, place)) = name {
            if let Some(first) = names.get(name) {
                let first = reader.location(first);
                let message = format!("two rules of {} are named {}", words.direction, quote(name));
                reader.error(&place, Code::Duplicate, message).label("second").related(first, "first");
            } else {
                names.insert(name, place);
            }
        }
        rules.push((rule, item));
    }
    let places: Vec<_> = rules.iter().map(|(rule, node)| (rule, *node)).collect();
    if words.ordered {
        warn_unreached(reader, &places);
    } else {
        warn_shadowed(reader, &places);
    }
    (rules.len() == items.len()).then(|| rules.into_iter().map(|(rule, _)| rule).collect())
}

type Named<'n> = Option<(&'n str, Range<usize>)>;

fn rule<'n>(reader: &mut Reader<'_>, node: &'n Node, words: &Words) -> Option<(Rule, Named<'n>)> {
    let errors = reader.errors();
    let mut fields = vec!["name", "action", "errno"];
    fields.extend(words.peers);
    fields.extend([if words.kinds { "kinds" } else { "ports" }, "expiresAt"]);
    let rule = reader.mapping(node, words.rule, &fields)?;
    let name = rule.get("name").and_then(|node| {
        Name::Word.read(reader, node, "the name of a rule").map(|name| (name, node.span.clone()))
    });
    let action = match rule.get("action") {
        Some(node) => reader.choice(node, "`action`", &ACTIONS),
        None => Some(Action::default()),
    };
    let errno = check_action(reader, node, &rule, action, words);
    let peers = match words.peers.and_then(|field| Some((format!("`{field}`"), rule.get(field)?))) {
        Some((what, node)) => reader.list(node, &what, MAX_ITEMS).and_then(|items| {
            let peers: Vec<_> = items
                .iter()
                .map(|item| {
                    let peer = peers::peer(reader, item, words.scope);
                    if words.peers == Some("to") {
                        peers::check_server(reader, item, peer.as_ref());
                    }
                    peer
                })
                .collect();
            peers.into_iter().collect::<Option<Vec<_>>>()
        }),
        None => Some(Vec::new()),
    };
    let ports = if words.kinds {
        sockets::kinds(reader, &rule).map(Ports::Kinds)
    } else {
        ports_of(reader, &rule, words.peers.is_none())
    };
    let expires = rule.get("expiresAt").map(|node| expiry(reader, node, "this rule"));
    if reader.errors() > errors {
        return None;
    }
    let (peers, ports) = (peers?, ports?);
    let rule = Rule {
        name: name.as_ref().map(|(name, _)| (*name).to_owned()),
        action: action?,
        // Missing and empty mean the same, as in NetworkPolicy.
        peers: if peers.is_empty() { Peers::Everyone } else { Peers::AnyOf(peers) },
        ports,
        errno,
        expires: expires.flatten(),
    };
    Some((rule, name))
}

/// What an action needs and excludes. The errno of the rule.
fn check_action(
    reader: &mut Reader<'_>,
    node: &Node,
    rule: &Mapping<'_>,
    action: Option<Action>,
    words: &Words,
) -> Option<Errno> {
    if words.kinds && words.scope == Scope::Namespace && action == Some(Action::Allow) {
        let place = first_line(reader, node);
        sockets::refuse_allow(reader, &place, rule);
    }
    if let (Some(Action::Pass), Some(entry), false) = (action, rule.entry("action"), words.ordered) {
        reader
            .error(&entry.value.span, Code::ConflictingFields, "`Pass` in a policy without a tier")
            .label("passes on to nothing")
            .help("only a ClusterTrafficPolicy with `tier` has rules that pass a flow on to what is beneath");
    }
    let errno = rule.get("errno").and_then(|node| reader.choice(node, "`errno`", &ERRNOS));
    if let (Some(entry), Some(Action::Allow | Action::Pass)) = (rule.entry("errno"), action) {
        let message = if action == Some(Action::Pass) {
            "a rule that passes a flow on refuses nothing, so it has no `errno`"
        } else {
            "an allow rule refuses nothing, so it has no `errno`"
        };
        reader
            .error(&entry.span, Code::ConflictingFields, message)
            .label("only with `action: Deny`")
            .help("remove it, add `action: Deny`, or set `spec.errno` for what no rule allows");
    }
    errno
}

/// The ports that a rule names.
fn ports_of(reader: &mut Reader<'_>, rule: &Mapping<'_>, listens: bool) -> Option<Ports> {
    let Some(node) = rule.get("ports") else { return Some(Ports::All) };
    let items = reader.list(node, "`ports`", MAX_ITEMS)?;
    let ports: Vec<_> = items.iter().map(|item| ports::own(reader, item, listens)).collect();
    let ports = ports.into_iter().collect::<Option<Vec<_>>>()?.concat();
    // Missing and empty mean the same, as in NetworkPolicy.
    Some(if ports.is_empty() { Ports::All } else { Ports::AnyOf(ports) })
}

/// The moment from which on something is over. Warns if that was before.
pub(super) fn expiry(reader: &mut Reader<'_>, node: &Node, what: &str) -> Option<Timestamp> {
    let text = reader.text(node, "`expiresAt`")?;
    // An API server takes no space between the day and the hour.
    let Some(moment) = Timestamp::parse(text).filter(|_| !text.contains(' ')) else {
        let message = format!("{} is no time", quote(text));
        reader
            .error(&node.span, Code::BadTime, message)
            .label("not a time")
            .help("write it as 2026-11-22T12:53:39Z, or with an offset as 2026-11-22T13:53:39+01:00");
        return None;
    };
    if moment <= reader.now() {
        let message = format!("{what} has expired and is left out");
        reader
            .warning(&node.span, Code::Expired, message)
            .label("in the past")
            .help("remove it, or give it a later time");
    }
    Some(moment)
}

/// Whether everything that one rule matches is matched by the other.
fn covers(all: &Rule, part: &Rule) -> bool {
    (all.peers == Peers::Everyone || all.peers == part.peers)
        && all.ports.cover(&part.ports)
        // A rule that ends first leaves the other its time.
        && all.expires.is_none_or(|end| part.expires.is_some_and(|part| part <= end))
}

/// How many rules others are compared with: as many comparisons as a bomb may cost.
const COMPARED: usize = 100;

/// Warns of an allow rule for exactly what a deny rule of the same list denies, or for a part of all.
fn warn_shadowed(reader: &mut Reader<'_>, rules: &[(&Rule, &Node)]) {
    let denies: Vec<_> =
        rules.iter().filter(|(rule, _)| rule.action == Action::Deny).take(COMPARED).collect();
    for (allow, node) in rules.iter().filter(|(rule, _)| rule.action == Action::Allow) {
        let Some((_, deny)) = denies.iter().find(|(deny, _)| covers(deny, allow)) else { continue };
        let deny = reader.location(&first_line(reader, deny));
        let place = first_line(reader, node);
        reader
            .warning(&place, Code::ShadowedRule, "this allow rule has no effect: a deny rule covers it")
            .label("never decides")
            .related(deny, "a deny always beats an allow");
    }
}

/// Warns of a rule that matches only what a rule before it has decided.
pub(super) fn warn_unreached(reader: &mut Reader<'_>, rules: &[(&Rule, &Node)]) {
    for (index, (rule, node)) in rules.iter().enumerate() {
        let before = &rules[..index.min(COMPARED)];
        let Some((_, first)) = before.iter().find(|(first, _)| covers(first, rule)) else { continue };
        let first = reader.location(&first_line(reader, first));
        let place = first_line(reader, node);
        reader
            .warning(&place, Code::ShadowedRule, "this rule has no effect: a rule before it covers it")
            .label("never decides")
            .related(first, "the first rule that matches decides");
    }
}

/// The first line of a node: a whole rule would bury the message.
fn first_line(reader: &Reader<'_>, node: &Node) -> Range<usize> {
    let text = reader.source().text().get(node.span.clone()).unwrap_or_default();
    node.span.start..node.span.start + text.lines().next().map_or(0, str::len)
}
