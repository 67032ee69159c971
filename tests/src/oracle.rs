//! The oracle: judges a flow by reading the policies, one after the other, as a person would.
//!
//! It is slow and knows nothing of classes, tables or words; it does not even share the matching of labels with the
//! product. Where it and a compiled table differ, one of them misreads the policy documents.

mod matching;

use std::collections::BTreeMap;
use std::net::IpAddr;

use enforcer::domain::labels::LabelSet;
use enforcer::domain::policy::model::{
    Action, Layer, Policy, PolicyMode, Ports, Rule, RuleDirection, RuleKey,
};
use enforcer::domain::timestamp::Timestamp;
use enforcer::domain::workload::NamedPorts;
use enforcer_common::abi::config::SocketKind;
use enforcer_common::reason::{Errno, Reason};
use enforcer_common::verdict::Direction;

use self::matching::{
    ANY, UNKNOWN, is_contested, matches_flow, matches_port, selects, selects_as, widely_matches_flow,
};

/// One end of a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Side {
    /// A known workload.
    Workload {
        /// Its namespace.
        namespace: String,
        /// Its labels.
        labels: LabelSet,
        /// Its ports that have names.
        ports: NamedPorts,
        /// Its service account.
        account: Option<String>,
    },
    /// The address of a service.
    Service {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// The host.
    Host,
    /// An address of no known workload.
    World,
    /// A process inside a managed tree that belongs to no known workload.
    Unmanaged,
    /// Nothing is known.
    Unknown,
}

impl Side {
    /// A workload with labels and nothing else.
    pub fn workload(namespace: impl Into<String>, labels: LabelSet) -> Self {
        Self::Workload { namespace: namespace.into(), labels, ports: NamedPorts::new(), account: None }
    }
}

/// A flow in one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Whose policies are asked.
    pub subject: Side,
    /// The other end.
    pub peer: Side,
    /// Address of the other end.
    pub address: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// Port of the server side.
    pub port: u16,
    /// Direction from the subject's point of view.
    pub direction: Direction,
}

/// Who answers for a service: who, with which address, on which port.
pub type Backend = (Side, IpAddr, u16);

/// A service as clients see it, and who answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Who answers, by protocol and port.
    pub ports: BTreeMap<(u8, u16), Vec<Backend>>,
}

/// What there is besides policies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Setting {
    /// When it is judged.
    pub at: Timestamp,
    /// Labels of namespaces.
    pub namespaces: BTreeMap<String, LabelSet>,
    /// Services.
    pub services: Vec<Service>,
}

/// What happens to a flow, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Whether it is denied.
    pub deny: bool,
    /// Why.
    pub reason: Reason,
    /// The rule that decides, if a rule does.
    pub rule: Option<RuleKey>,
    /// What the application is told, if it is denied.
    pub errno: Option<Errno>,
}

/// What happens now, and what would happen if policies in audit mode were enforced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// By the policies in enforce mode.
    pub enforced: Outcome,
    /// By all policies.
    pub hypothetical: Outcome,
}

impl Judgement {
    /// Whether the flow passes although a policy in audit mode would deny it.
    pub fn audited(&self) -> bool {
        !self.enforced.deny && self.hypothetical.deny
    }
}

/// Gives the number of a rule: of two rules that decide alike, the older is named.
pub type Age<'a> = &'a dyn Fn(&RuleKey) -> u32;

/// Judges a flow before anything has expired, where no namespace has labels and there are no services.
pub fn judge(policies: &[Policy], age: Age<'_>, question: &Question) -> Judgement {
    judge_in(policies, age, question, &Setting::default())
}

/// Judges a flow.
pub fn judge_in(policies: &[Policy], age: Age<'_>, question: &Question, setting: &Setting) -> Judgement {
    let live: Vec<&Policy> = policies.iter().filter(|policy| is_live(policy, setting.at)).collect();
    judgement(policies, setting.at, |policies| {
        let flow = |question: &Question| {
            let contested = is_contested(&live, &question.subject, setting);
            let matches = |policy: &Policy, rule: &Rule| {
                let is_meant = matches_flow(policy, rule, question, setting);
                // Who is meant by an address is meant, but for a denial.
                let denies =
                    rule.action == Action::Deny || (rule.action == Action::Pass && policy.layer.is_admin());
                if (denies || !is_meant) && widely_matches_flow(policy, rule, question, setting, UNKNOWN) {
                    Match::Feared
                } else if is_meant {
                    Match::Meant
                } else if !contested && widely_matches_flow(policy, rule, question, setting, ANY) {
                    Match::MayBe
                } else {
                    Match::No
                }
            };
            let section = question.direction.into();
            outcome(policies, age, &question.subject, section, setting, &matches)
        };
        let answering = answering(question, setting);
        if answering.is_empty() {
            return flow(question).1;
        }
        let outcomes: Vec<(Line, Outcome)> = answering
            .into_iter()
            .map(|(peer, address, port)| flow(&Question { peer, address, port, ..question.clone() }))
            .collect();
        together(outcomes)
    })
}

/// Judges whether somebody may listen on a port.
pub fn judge_listen(
    policies: &[Policy],
    age: Age<'_>,
    (subject, protocol, port): (&Side, u8, u16),
    setting: &Setting,
) -> Judgement {
    let outcome = judgement(policies, setting.at, |policies| {
        let matches = |_: &Policy, rule: &Rule| {
            if matches_port(rule, subject, protocol, port) { Match::Meant } else { Match::No }
        };
        outcome(policies, age, subject, RuleDirection::Listen, setting, &matches).1
    });
    // Who belongs to no workload is told so when it talks; listening alone is nobody's harm.
    let free = Outcome { deny: false, reason: Reason::AllowedByDefault, rule: None, errno: None };
    match subject {
        Side::Unmanaged => Judgement { enforced: free.clone(), hypothetical: free },
        _ => outcome,
    }
}

/// Judges whether somebody may create a socket of a kind that the configuration allows, or not.
pub fn judge_socket(
    policies: &[Policy],
    age: Age<'_>,
    (subject, kind, allowed): (&Side, SocketKind, bool),
    setting: &Setting,
) -> Judgement {
    let configured = if allowed { by_default() } else { deny(Reason::SocketKind, None, Errno::Perm) };
    judgement(policies, setting.at, |policies| {
        let matches = |_: &Policy, rule: &Rule| {
            let Ports::Kinds(kinds) = &rule.ports else { return Match::No };
            if kinds.contains(&kind) { Match::Meant } else { Match::No }
        };
        let decided = outcome(policies, age, subject, RuleDirection::Sockets, setting, &matches).1;
        // Of a kind of which no rule speaks the configuration does, and of those of whom no policy speaks.
        if decided.rule.is_none() { configured.clone() } else { decided }
    })
}

/// Whether a rule means a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Match {
    No,
    /// It names a container, and the caller is known as any of its pod's.
    MayBe,
    /// It names a container, and the caller is in one that nobody knows.
    Feared,
    Meant,
}

/// How a policy means a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lens {
    Exact,
    /// It is about a container, and the subject is known as any of its pod's.
    Lenient,
    /// It is about a container, and the subject is in one that nobody knows.
    Strict,
}

/// Only flows are judged at the other end, too, by an address that stands for a whole pod.
fn is_flow(section: RuleDirection) -> bool {
    matches!(section, RuleDirection::Egress | RuleDirection::Ingress)
}

fn is_live(policy: &Policy, at: Timestamp) -> bool {
    policy.expires.is_none_or(|end| at < end)
}

fn judgement(policies: &[Policy], at: Timestamp, outcome: impl Fn(&[&Policy]) -> Outcome) -> Judgement {
    let all: Vec<&Policy> = policies.iter().filter(|policy| is_live(policy, at)).collect();
    let enforced: Vec<&Policy> =
        all.iter().filter(|policy| policy.mode == PolicyMode::Enforce).copied().collect();
    Judgement { enforced: outcome(&enforced), hypothetical: outcome(&all) }
}

/// Who may answer a client that calls a service; nobody for flows of other kinds.
fn answering(question: &Question, setting: &Setting) -> Vec<(Side, IpAddr, u16)> {
    let Side::Service { namespace, name } = &question.peer else { return Vec::new() };
    if question.direction == Direction::Ingress || question.subject == Side::Unknown {
        return Vec::new();
    }
    let mut found = Vec::new();
    for service in &setting.services {
        if service.namespace == *namespace && service.name == *name {
            found.extend(
                service.ports.get(&(question.protocol, question.port)).into_iter().flatten().cloned(),
            );
        }
    }
    found
}

/// One outcome for all who may answer. The rule that stands highest in the list of precedence is named.
fn together(mut outcomes: Vec<(Line, Outcome)>) -> Outcome {
    outcomes.sort_by(|(one, _), (other, _)| one.cmp(other));
    let denials = outcomes.iter().filter(|(_, outcome)| outcome.deny).count();
    let mixed = denials > 0 && denials < outcomes.len();
    let (_, mut first) =
        outcomes.into_iter().find(|(_, outcome)| outcome.deny == (denials > 0)).expect("somebody answers");
    if mixed {
        first.reason = Reason::MixedBackends;
    }
    first
}

/// Where in the list of precedence something was decided: the line, the place in an ordered layer, and the age of the rule.
type Line = (u8, Option<Place>, u32);

/// A place in an ordered layer: priority, name of the policy, the policy, place in its list.
type Place = (u16, String, String, usize);

fn outcome(
    policies: &[&Policy],
    age: Age<'_>,
    subject: &Side,
    section: RuleDirection,
    setting: &Setting,
    matches: &dyn Fn(&Policy, &Rule) -> Match,
) -> (Line, Outcome) {
    let selecting = policies.iter().filter_map(|policy| {
        let lens = if selects(policy, subject, setting) {
            Lens::Exact
        } else if is_flow(section) && selects_as(policy, subject, setting, ANY) {
            Lens::Lenient
        } else if selects_as(policy, subject, setting, UNKNOWN) {
            Lens::Strict
        } else {
            return None;
        };
        Some((*policy, lens))
    });
    let selecting: Vec<(&Policy, Lens)> = selecting.collect();
    // What is only perhaps meant never denies, and is let through where it would be passed on. What is feared is never allowed,
    // and denied where it would be passed on. Behind the baseline tier there is only the default.
    let action = |policy: &Policy, lens: Lens, rule: &Rule| {
        let is_admin = policy.layer.is_admin();
        match (matches(policy, rule), lens, rule.action) {
            (Match::No, ..) => None,
            (Match::Meant, Lens::Exact, action) => Some(action),
            (Match::Feared, ..) | (_, Lens::Strict, _) => match rule.action {
                Action::Deny => Some(Action::Deny),
                Action::Pass if is_admin => Some(Action::Deny),
                Action::Pass | Action::Allow => None,
            },
            (_, _, Action::Deny) => None,
            (_, _, Action::Pass) if !is_admin => Some(Action::Pass),
            (_, _, Action::Allow | Action::Pass) => Some(Action::Allow),
        }
    };
    // Precedence 2: the first rule of the admin tier that matches, unless it passes.
    let admin = |policy: &Policy| match policy.layer {
        Layer::Admin { priority } => Some(priority),
        _ => None,
    };
    if let Some((place, action, outcome)) = first(&selecting, section, setting, &action, &admin)
        && action != Action::Pass
    {
        return ((2, Some(place), 0), outcome);
    }
    if let Some((line, outcome)) = namespaced(&selecting, age, section, setting, &action) {
        return ((line.0, None, line.1), outcome);
    }
    // Precedence 6: the first rule of the baseline tier that matches; where it passes, the default.
    let baseline = |policy: &Policy| match policy.layer {
        Layer::Baseline { priority } => Some(priority),
        _ => None,
    };
    if let Some((place, _, outcome)) = first(&selecting, section, setting, &action, &baseline) {
        return ((6, Some(place), 0), outcome);
    }
    // Precedence 7: the default of the subject.
    let default = match subject {
        Side::Workload { .. } | Side::Service { .. } | Side::Host | Side::World => by_default(),
        Side::Unmanaged => deny(Reason::Unmanaged, None, Errno::Perm),
        Side::Unknown => deny(Reason::InvalidIdentity, None, Errno::Perm),
    };
    ((7, None, 0), default)
}

/// Precedence 3, 4 and 5: (line, age of the rule) and what is decided.
fn namespaced(
    selecting: &[(&Policy, Lens)],
    age: Age<'_>,
    section: RuleDirection,
    setting: &Setting,
    action: Does<'_>,
) -> Option<((u8, u32), Outcome)> {
    let (mut denying, mut allowing, mut isolating) = (Vec::new(), Vec::new(), Vec::new());
    for (policy, lens) in selecting.iter().filter(|(policy, _)| policy.layer == Layer::Namespaced) {
        let Some(rules) = rules(policy, section) else { continue };
        let key = |index| RuleKey { policy: policy.key.clone(), direction: section, index };
        if *lens != Lens::Lenient {
            isolating.push((key(None), policy.errno));
        }
        for (index, rule) in (0..).zip(rules) {
            if rule.expires.is_some_and(|end| end <= setting.at) || rule.action == Action::Pass {
                continue;
            }
            let errno = rule.errno.unwrap_or(policy.errno);
            match action(policy, *lens, rule) {
                Some(Action::Deny) => denying.push((key(Some(index)), errno)),
                Some(Action::Allow) => allowing.push((key(Some(index)), errno)),
                Some(Action::Pass) | None => {}
            }
        }
    }
    let oldest = |rules: Vec<(RuleKey, Errno)>| {
        rules.into_iter().map(|(key, errno)| (age(&key), key, errno)).min_by_key(|(age, ..)| *age)
    };
    // An explicit deny.
    if let Some((age, rule, errno)) = oldest(denying) {
        return Some(((3, age), deny(Reason::DeniedByRule, Some(rule), errno)));
    }
    // Any allow.
    if let Some((age, rule, _)) = oldest(allowing) {
        return Some(((4, age), allow(rule)));
    }
    // Selected, and nothing matched. Of kinds of sockets that means nothing.
    if section == RuleDirection::Sockets {
        return None;
    }
    let (age, rule, errno) = oldest(isolating)?;
    Some(((5, age), deny(Reason::Isolated, Some(rule), errno)))
}

/// What a rule of a policy does, if it does anything.
type Does<'a> = &'a dyn Fn(&Policy, Lens, &Rule) -> Option<Action>;

/// The first rule of an ordered layer that matches, and what it says.
fn first(
    selecting: &[(&Policy, Lens)],
    section: RuleDirection,
    setting: &Setting,
    action: Does<'_>,
    priority: &dyn Fn(&Policy) -> Option<u16>,
) -> Option<(Place, Action, Outcome)> {
    let mut found: Vec<(Place, Action, Outcome)> = Vec::new();
    for (policy, lens) in selecting {
        let (Some(priority), Some(rules)) = (priority(policy), rules(policy, section)) else { continue };
        for (index, rule) in rules.iter().enumerate() {
            if rule.expires.is_some_and(|end| end <= setting.at) {
                continue;
            }
            let Some(action) = action(policy, *lens, rule) else { continue };
            let number = u32::try_from(index).expect("a short list");
            let key = RuleKey { policy: policy.key.clone(), direction: section, index: Some(number) };
            let outcome = match action {
                Action::Allow => allow(key),
                Action::Deny => deny(Reason::DeniedByRule, Some(key), rule.errno.unwrap_or(policy.errno)),
                Action::Pass => by_default(),
            };
            let place = (priority, policy.key.name.clone(), format!("{:?}", policy.key.kind as u8), index);
            found.push((place, action, outcome));
        }
    }
    found.into_iter().min_by(|(one, ..), (other, ..)| one.cmp(other))
}

fn rules(policy: &Policy, section: RuleDirection) -> Option<&Vec<Rule>> {
    match section {
        RuleDirection::Egress => policy.egress.as_ref(),
        RuleDirection::Ingress => policy.ingress.as_ref(),
        RuleDirection::Listen => policy.listen.as_ref(),
        RuleDirection::Sockets => policy.sockets.as_ref(),
    }
}

fn deny(reason: Reason, rule: Option<RuleKey>, errno: Errno) -> Outcome {
    Outcome { deny: true, reason, rule, errno: Some(errno) }
}

fn allow(rule: RuleKey) -> Outcome {
    Outcome { deny: false, reason: Reason::AllowedByRule, rule: Some(rule), errno: None }
}

fn by_default() -> Outcome {
    Outcome { deny: false, reason: Reason::AllowedByDefault, rule: None, errno: None }
}
