//! The policy model: valid by construction. `check` makes it from a document; `compile` turns it into a table.

use std::fmt;

use enforcer_common::reason::Errno;
use enforcer_common::verdict::Direction;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::domain::labels::Selector;
use crate::domain::timestamp::Timestamp;

/// Name of a policy: `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PolicyKey {
    /// Namespace, whose workloads it can select.
    pub namespace: String,
    /// Name, unique in its namespace.
    pub name: String,
}

impl fmt::Display for PolicyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A policy of kind `TrafficPolicy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Its name.
    pub key: PolicyKey,
    /// Whether its denials hold or are only reported.
    pub mode: PolicyMode,
    /// What an application gets for a denial of this policy where a rule does not say otherwise.
    pub errno: Errno,
    /// Which workloads of its namespace it speaks of.
    pub subject: Selector,
    /// Rules for flows to the subject. `Some` isolates the subject in this direction, even without rules.
    pub ingress: Option<Vec<Rule>>,
    /// Rules for flows from the subject. `Some` isolates the subject in this direction, even without rules.
    pub egress: Option<Vec<Rule>>,
    /// Rules for the ports that the subject may listen on; they have no peers. `Some` leaves it no other port.
    pub listen: Option<Vec<Rule>>,
    /// From then on the policy is as if it was not there.
    pub expires: Option<Timestamp>,
}

impl Policy {
    /// The rules of one direction; `Some` isolates.
    pub fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        self.section(direction.into())
    }

    /// The rules of one section; `Some` isolates.
    pub fn section(&self, section: RuleDirection) -> Option<&[Rule]> {
        match section {
            RuleDirection::Egress => self.egress.as_deref(),
            RuleDirection::Ingress => self.ingress.as_deref(),
            RuleDirection::Listen => self.listen.as_deref(),
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
    /// Which protocols and ports of the server side it matches.
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
}

/// Namespaces of a workload peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Namespaces {
    /// The policy's own.
    Own,
    /// Every namespace.
    All,
    /// These.
    Named(Vec<String>),
}

/// A peer that has no labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entity {
    /// Processes of the host outside the managed trees.
    Host,
    /// Addresses that belong to no known workload.
    World,
}

/// Which protocols and ports a rule matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ports {
    /// All of them: the list is missing or empty, as in `NetworkPolicy`.
    All,
    /// Any of these.
    AnyOf(Vec<PortRange>),
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

/// What has a [`RuleId`](enforcer_common::id::RuleId).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RuleKey {
    /// The policy.
    pub policy: PolicyKey,
    /// `egress`, `ingress` or `listen`.
    pub direction: RuleDirection,
    /// Position in the list of the section, from 0; `None` is the isolation itself.
    pub index: Option<u32>,
}

/// The section of a policy that a rule stands in: a [`Direction`], or who may listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuleDirection {
    /// See [`Direction::Egress`].
    Egress,
    /// See [`Direction::Ingress`].
    Ingress,
    /// Which ports may be listened on.
    Listen,
}

impl RuleDirection {
    /// Every section.
    pub const ALL: [Self; 3] = [Self::Egress, Self::Ingress, Self::Listen];

    /// `egress`, `ingress` or `listen`, as in policies.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Egress => Direction::Egress.label(),
            Self::Ingress => Direction::Ingress.label(),
            Self::Listen => "listen",
        }
    }
}

impl From<Direction> for RuleDirection {
    fn from(direction: Direction) -> Self {
        match direction {
            Direction::Egress => Self::Egress,
            Direction::Ingress => Self::Ingress,
        }
    }
}

/// `default/db ingress[0]`, or `default/db ingress (isolated)`.
impl fmt::Display for RuleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = self.direction.label();
        match self.index {
            Some(index) => write!(f, "{} {direction}[{index}]", self.policy),
            None => write!(f, "{} {direction} (isolated)", self.policy),
        }
    }
}
