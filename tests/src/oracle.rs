//! The oracle: judges a flow by reading the policies, one after the other, as a person would.
//!
//! It is slow and knows nothing of classes, tables or words; it does not even share the matching of labels with the
//! product. Where it and a compiled table differ, one of them misreads the policy documents.

use std::net::IpAddr;

use enforcer::domain::labels::{Condition, LabelSet, Selector};
use enforcer::domain::policy::model::{
    Action, Entity, Namespaces, Peer, Peers, Policy, PolicyMode, PortMatch, Ports, Rule, RuleDirection,
    RuleKey,
};
use enforcer::domain::timestamp::Timestamp;
use enforcer_common::reason::{Errno, Reason};
use enforcer_common::verdict::Direction;
use ipnet::{IpNet, Ipv4Net};

/// One end of a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Side {
    /// A known workload.
    Workload {
        /// Its namespace.
        namespace: String,
        /// Its labels.
        labels: LabelSet,
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

/// Judges a flow before anything has expired. `age` gives the number of a rule: of two rules that decide alike, the older
/// is named.
pub fn judge(policies: &[Policy], age: &dyn Fn(&RuleKey) -> u32, question: &Question) -> Judgement {
    judge_at(policies, age, question, Timestamp::EARLIEST)
}

/// Judges a flow at a moment.
pub fn judge_at(
    policies: &[Policy],
    age: &dyn Fn(&RuleKey) -> u32,
    question: &Question,
    at: Timestamp,
) -> Judgement {
    judgement(policies, at, |policies| {
        let section = question.direction.into();
        let matches = |policy: &Policy, rule: &Rule| {
            matches_peer(policy, rule, question) && matches_port(rule, question.protocol, question.port)
        };
        outcome(policies, age, &question.subject, section, at, &matches)
    })
}

/// Judges at a moment whether somebody may listen on a port.
pub fn judge_listen(
    policies: &[Policy],
    age: &dyn Fn(&RuleKey) -> u32,
    (subject, protocol, port): (&Side, u8, u16),
    at: Timestamp,
) -> Judgement {
    let outcome = judgement(policies, at, |policies| {
        let matches = |_: &Policy, rule: &Rule| matches_port(rule, protocol, port);
        outcome(policies, age, subject, RuleDirection::Listen, at, &matches)
    });
    // Who belongs to no workload is told so when it talks; listening alone is nobody's harm.
    let free = Outcome { deny: false, reason: Reason::AllowedByDefault, rule: None, errno: None };
    match subject {
        Side::Unmanaged => Judgement { enforced: free.clone(), hypothetical: free },
        _ => outcome,
    }
}

fn judgement(policies: &[Policy], at: Timestamp, outcome: impl Fn(&[&Policy]) -> Outcome) -> Judgement {
    let is_there = |policy: &&Policy| policy.expires.is_none_or(|end| at < end);
    let all: Vec<&Policy> = policies.iter().filter(is_there).collect();
    let enforced: Vec<&Policy> =
        all.iter().filter(|policy| policy.mode == PolicyMode::Enforce).copied().collect();
    Judgement { enforced: outcome(&enforced), hypothetical: outcome(&all) }
}

fn outcome(
    policies: &[&Policy],
    age: &dyn Fn(&RuleKey) -> u32,
    subject: &Side,
    section: RuleDirection,
    at: Timestamp,
    matches: &dyn Fn(&Policy, &Rule) -> bool,
) -> Outcome {
    let (mut denying, mut allowing, mut isolating) = (Vec::new(), Vec::new(), Vec::new());
    for policy in policies {
        if !selects(policy, subject) {
            continue;
        }
        let rules = match section {
            RuleDirection::Egress => &policy.egress,
            RuleDirection::Ingress => &policy.ingress,
            RuleDirection::Listen => &policy.listen,
        };
        let Some(rules) = rules else { continue };
        let key = |index| RuleKey { policy: policy.key.clone(), direction: section, index };
        isolating.push((key(None), policy.errno));
        for (index, rule) in (0..).zip(rules) {
            if rule.expires.is_none_or(|end| at < end) && matches(policy, rule) {
                let errno = rule.errno.unwrap_or(policy.errno);
                match rule.action {
                    Action::Deny => denying.push((key(Some(index)), errno)),
                    Action::Allow => allowing.push((key(Some(index)), errno)),
                    Action::Pass => {}
                }
            }
        }
    }
    let oldest = |rules: Vec<(RuleKey, Errno)>| rules.into_iter().min_by_key(|(key, _)| age(key));
    // Precedence 3: an explicit deny.
    if let Some((rule, errno)) = oldest(denying) {
        return deny(Reason::DeniedByRule, Some(rule), errno);
    }
    // Precedence 4: any allow.
    if let Some((rule, _)) = oldest(allowing) {
        return Outcome { deny: false, reason: Reason::AllowedByRule, rule: Some(rule), errno: None };
    }
    // Precedence 5: selected, and nothing matched.
    if let Some((rule, errno)) = oldest(isolating) {
        return deny(Reason::Isolated, Some(rule), errno);
    }
    // Precedence 7: the default of the subject.
    match subject {
        Side::Workload { .. } | Side::Host | Side::World => {
            Outcome { deny: false, reason: Reason::AllowedByDefault, rule: None, errno: None }
        }
        Side::Unmanaged => deny(Reason::Unmanaged, None, Errno::Perm),
        Side::Unknown => deny(Reason::InvalidIdentity, None, Errno::Perm),
    }
}

fn deny(reason: Reason, rule: Option<RuleKey>, errno: Errno) -> Outcome {
    Outcome { deny: true, reason, rule, errno: Some(errno) }
}

/// A policy speaks of workloads of its own namespace and of nobody else.
fn selects(policy: &Policy, subject: &Side) -> bool {
    match subject {
        Side::Workload { namespace, labels } => {
            *namespace == policy.key.namespace && has_labels(&policy.subject.selector, labels)
        }
        Side::Host | Side::World | Side::Unmanaged | Side::Unknown => false,
    }
}

fn matches_peer(policy: &Policy, rule: &Rule, question: &Question) -> bool {
    match &rule.peers {
        Peers::Everyone => true,
        Peers::AnyOf(peers) => peers.iter().any(|peer| is_meant(policy, peer, question)),
    }
}

fn is_meant(policy: &Policy, peer: &Peer, question: &Question) -> bool {
    match peer {
        Peer::Workloads { namespaces, selector, .. } => match &question.peer {
            Side::Workload { namespace, labels } => {
                let there = match namespaces {
                    Namespaces::Own => *namespace == policy.key.namespace,
                    Namespaces::All => true,
                    Namespaces::Named(names) => names.contains(namespace),
                    Namespaces::Labelled(_) => false,
                };
                there && has_labels(selector, labels)
            }
            _ => false,
        },
        Peer::Cidr { net, except } => {
            is_inside(question.address, *net) && !except.iter().any(|net| is_inside(question.address, *net))
        }
        Peer::Entity(Entity::Host) => question.peer == Side::Host,
        Peer::Entity(Entity::World) => question.peer == Side::World,
        Peer::Entity(Entity::Cluster) => matches!(question.peer, Side::Host | Side::Workload { .. }),
        Peer::Entity(Entity::Unmanaged) => question.peer == Side::Unmanaged,
        Peer::Pending(_) => false,
    }
}

fn matches_port(rule: &Rule, protocol: u8, port: u16) -> bool {
    match &rule.ports {
        Ports::All => true,
        Ports::AnyOf(items) => items.iter().any(|item| match item {
            PortMatch::Range(range) => {
                range.protocol == protocol && (range.first..=range.last).contains(&port)
            }
            PortMatch::Named { .. } => false,
        }),
    }
}

fn has_labels(selector: &Selector, labels: &LabelSet) -> bool {
    for requirement in &selector.requirements {
        let holds = match (&requirement.condition, labels.0.get(&requirement.key)) {
            (Condition::In(values), Some(value)) => values.contains(value),
            (Condition::NotIn(values), Some(value)) => !values.contains(value),
            (Condition::Exists, Some(_)) | (Condition::NotIn(_) | Condition::DoesNotExist, None) => true,
            (Condition::DoesNotExist, Some(_)) | (Condition::In(_) | Condition::Exists, None) => false,
        };
        if !holds {
            return false;
        }
    }
    true
}

/// An IPv4-mapped IPv6 address is the IPv4 address, and a net of such addresses is the IPv4 net. Beyond that a net
/// has addresses of its own family only.
fn is_inside(address: IpAddr, net: IpNet) -> bool {
    let net = match net {
        IpNet::V6(six) => match six.addr().to_ipv4_mapped() {
            Some(four) if six.prefix_len() >= 96 => {
                Ipv4Net::new(four, six.prefix_len() - 96).map_or(net, IpNet::V4)
            }
            _ => net,
        },
        IpNet::V4(_) => net,
    };
    net.contains(&address.to_canonical())
}
