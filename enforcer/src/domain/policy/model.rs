//! The policy model: valid by construction. `check` makes it from a document; `compile` turns it into a table.

use enforcer_common::abi::config::SocketKind;
use enforcer_common::reason::Errno;
use enforcer_common::verdict::Direction;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::domain::account::AccountPattern;
use crate::domain::cluster::NamespaceLabels;
use crate::domain::labels::Selector;
use crate::domain::registry::IdentityKey;
use crate::domain::timestamp::Timestamp;

pub use super::key::{PolicyKey, PolicyKind, RuleDirection, RuleKey};

/// A policy of any kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Its name.
    pub key: PolicyKey,
    /// Where it stands in the list of precedence.
    pub layer: Layer,
    /// Whether its denials hold or are only reported.
    pub mode: PolicyMode,
    /// What an application gets for a denial of this policy where a rule does not say otherwise.
    pub errno: Errno,
    /// Which workloads it speaks of.
    pub subject: Subject,
    /// Rules for flows to the subject. In the namespaced layer `Some` isolates the subject in this direction, even
    /// without rules.
    pub ingress: Option<Vec<Rule>>,
    /// Rules for flows from the subject. In the namespaced layer `Some` isolates the subject in this direction, even
    /// without rules.
    pub egress: Option<Vec<Rule>>,
    /// Rules for the ports that the subject may listen on; they have no peers. `Some` leaves it no other port.
    pub listen: Option<Vec<Rule>>,
    /// Rules for the kinds of sockets that the subject may create; they have no peers. Isolates nobody: of other kinds the
    /// configuration decides.
    pub sockets: Option<Vec<Rule>>,
    /// From then on the policy is as if it was not there.
    pub expires: Option<Timestamp>,
}

/// Where the rules of a policy stand in the list of precedence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    /// Before all namespaced policies (precedence 2). Ordered: the rule that comes first decides, by priority, then by
    /// the policy's name, then by its place in the list. Isolates nobody.
    Admin {
        /// A lower number comes first.
        priority: u16,
    },
    /// Deny beats allow, allow beats isolation; no order (precedence 3 to 5).
    #[default]
    Namespaced,
    /// Behind all namespaced policies, ordered like [`Layer::Admin`] (precedence 6). Isolates nobody.
    Baseline {
        /// A lower number comes first.
        priority: u16,
    },
}

impl Layer {
    /// Whether it is the admin layer.
    pub const fn is_admin(self) -> bool {
        matches!(self, Self::Admin { .. })
    }

    /// Whether policies of this layer isolate who they select.
    pub const fn isolates(self) -> bool {
        matches!(self, Self::Namespaced)
    }
}

/// Which workloads a policy speaks of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// In which namespaces; [`Namespaces::Own`] for policies that have a namespace.
    pub namespaces: Namespaces,
    /// With which labels.
    pub selector: Selector,
}

impl Subject {
    /// Workloads of the policy's own namespace.
    pub fn own(selector: Selector) -> Self {
        Self { namespaces: Namespaces::Own, selector }
    }
}

impl Policy {
    /// Whether it speaks of this identity.
    pub fn selects(&self, key: &IdentityKey, labels: &NamespaceLabels) -> bool {
        key.is_workload()
            && self.subject.namespaces.contain(&key.namespace, &self.key.namespace, labels)
            && self.subject.selector.matches(&key.labels)
    }

    /// Whether it denies who it selects what no rule of this section allows.
    pub fn isolates(&self, section: RuleDirection) -> bool {
        self.layer.isolates() && section.isolates() && self.section(section).is_some()
    }

    /// The rules of one direction; `Some` isolates.
    pub fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        self.section(direction.into())
    }

    /// The rules of one section, if it has it.
    pub fn section(&self, section: RuleDirection) -> Option<&[Rule]> {
        match section {
            RuleDirection::Egress => self.egress.as_deref(),
            RuleDirection::Ingress => self.ingress.as_deref(),
            RuleDirection::Listen => self.listen.as_deref(),
            RuleDirection::Sockets => self.sockets.as_deref(),
        }
    }

    /// The sections that it has, with their rules.
    pub fn sections(&self) -> impl Iterator<Item = (RuleDirection, &[Rule])> + Clone {
        RuleDirection::ALL.into_iter().filter_map(|section| Some((section, self.section(section)?)))
    }

    /// Every rule with its number in its section.
    pub fn all_rules(&self) -> impl Iterator<Item = (RuleDirection, u32, &Rule)> {
        self.sections()
            .flat_map(|(section, rules)| (0..).zip(rules).map(move |(index, rule)| (section, index, rule)))
    }

    /// Whether it is over at that moment.
    pub fn is_over(&self, at: Timestamp) -> bool {
        self.expires.is_some_and(|expires| expires <= at)
    }

    /// Every moment at which something of it expires and that makes a difference.
    pub fn expiries(&self) -> impl Iterator<Item = Timestamp> {
        let end = self.expires;
        let rules = self.all_rules().filter_map(|(_, _, rule)| rule.expires);
        rules.filter(move |expires| end.is_none_or(|end| *expires < end)).chain(end)
    }
}

/// Whether a policy's denials hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PolicyMode {
    /// The policy decides.
    #[default]
    Enforce,
    /// The policy never changes what is enforced, neither by its allow rules nor by its denials: flows that would
    /// be denied if it were enforced are let through and reported as audited.
    Audit,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// A name for people, shown with every verdict of the rule.
    pub name: Option<String>,
    /// What it does with a flow it matches.
    pub action: Action,
    /// Which other ends it matches.
    pub peers: Peers,
    /// Which protocols and ports of the server side it matches, or which kinds of sockets.
    pub ports: Ports,
    /// What an application gets for a denial of this rule; the policy's where missing.
    pub errno: Option<Errno>,
    /// From then on the rule is as if it was not there.
    pub expires: Option<Timestamp>,
}

impl Rule {
    /// Whether it is over at that moment.
    pub fn is_over(&self, at: Timestamp) -> bool {
        self.expires.is_some_and(|expires| expires <= at)
    }
}

/// What a rule does with a flow it matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Action {
    /// Lets it through (precedence 4).
    #[default]
    Allow,
    /// Denies it, whatever other policies allow (precedence 3).
    Deny,
    /// Leaves it to what stands beneath: in the admin layer to all that is not of that layer, in the baseline layer to the
    /// default. Only there.
    Pass,
}

/// Which other ends a rule matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peers {
    /// Everyone: the list is missing or empty, as in `NetworkPolicy`.
    Everyone,
    /// Any of these.
    AnyOf(Vec<Peer>),
}

/// One kind of other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Workloads by label.
    Workloads {
        /// In which namespaces.
        namespaces: Namespaces,
        /// With which labels.
        selector: Selector,
        /// With which service account; any, or none at all, where missing.
        account: Option<AccountPattern>,
    },
    /// Addresses, known workloads among them (as `ipBlock` in Kubernetes' own test suite).
    Cidr {
        /// The addresses.
        net: IpNet,
        /// Parts of it that are not meant.
        except: Vec<IpNet>,
    },
    /// A reserved identity.
    Entity(Entity),
    /// Somebody whose addresses are not known from policies and workloads. Until they are, it matches nobody.
    Pending(Pending),
}

/// A peer that somebody else has to find.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pending {
    /// Whoever is known by one of these domain names; `*.` in front means every name below it.
    Domains(Vec<String>),
    /// Machines of the cluster with these labels.
    Nodes(Selector),
}

/// Namespaces of a subject or of a workload peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Namespaces {
    /// The policy's own.
    #[default]
    Own,
    /// Every namespace.
    All,
    /// These.
    Named(Vec<String>),
    /// Those with these labels.
    Labelled(Selector),
}

impl Namespaces {
    /// Whether a namespace is among them; `own` is the policy's own.
    pub fn contain(&self, namespace: &str, own: &str, labels: &NamespaceLabels) -> bool {
        match self {
            Self::Own => namespace == own,
            Self::All => true,
            Self::Named(names) => names.iter().any(|name| name == namespace),
            Self::Labelled(selector) => selector.matches(&labels.of(namespace)),
        }
    }
}

/// A peer that has no labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entity {
    /// Processes of the host outside the managed trees.
    Host,
    /// Addresses that belong to no known workload.
    World,
    /// Any known workload, and the host.
    Cluster,
    /// Processes inside a managed tree that belong to no known workload.
    Unmanaged,
}

/// Which protocols and ports a rule matches, or which kinds of sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ports {
    /// All of them: the list is missing or empty, as in `NetworkPolicy`.
    All,
    /// Any of these.
    AnyOf(Vec<PortMatch>),
    /// Kinds of sockets, each once; in the section about sockets, and only there.
    Kinds(Vec<SocketKind>),
}

impl Ports {
    /// Whether these are known to be all of the others.
    pub fn cover(&self, others: &Self) -> bool {
        match (self, others) {
            (Self::Kinds(all), Self::Kinds(some)) => some.iter().all(|kind| all.contains(kind)),
            _ => *self == Self::All || self == others,
        }
    }
}

/// One item of a list of ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortMatch {
    /// By number.
    Range(PortRange),
    /// The port to which the server gives this name. Servers without such a port are not matched.
    Named {
        /// Only if it is one of this protocol.
        protocol: Option<u8>,
        /// The name.
        name: String,
    },
}

impl From<PortRange> for PortMatch {
    fn from(range: PortRange) -> Self {
        Self::Range(range)
    }
}

/// Ports `first..=last` of one protocol; a protocol without ports has `0..=65535`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// IP protocol number: TCP 6, UDP 17, SCTP 132.
    pub protocol: u8,
    /// First port.
    pub first: u16,
    /// Last port, not below `first`.
    pub last: u16,
}
