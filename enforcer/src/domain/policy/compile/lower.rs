//! From policies to questions, blocks and lists of ports: what has to be told apart, each once, and where each rule
//! refers to it.

use std::collections::{BTreeMap, BTreeSet};

use enforcer_common::id::{IdentityId, RuleId};

use super::addresses::Block;
use super::containers::{Lens, Widened};
use super::people::People;
use super::ports::List;
use super::questions::{Question, QuestionId, Questions, Who};
use super::wards::{Guest, Wards};
use crate::domain::container;
use crate::domain::labels::Selector;
use crate::domain::policy::model::{
    Action, Entity, Namespaces, Peer, Peers, Policy, PortMatch, Ports, Rule, RuleDirection, RuleKey,
};
use crate::domain::registry::Registry;

/// Number of an address block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockId(pub(super) usize);

/// Number of a list of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ListId(pub(super) usize);

/// One kind of other end.
#[derive(Clone, Copy, Debug)]
pub(super) enum Party {
    Asked(QuestionId),
    Block(BlockId),
    Reserved(IdentityId),
}

/// What of a server a part of a rule means.
#[derive(Clone, Debug)]
pub(super) enum PartPorts {
    /// Every port, every kind of socket.
    All,
    Listed(ListId),
    /// Kinds of sockets, by their [class](enforcer_common::abi::config::SocketKind::class).
    Kinds(Vec<u16>),
}

/// Ports of a rule for some of the ends that it speaks of.
#[derive(Debug)]
pub(super) struct Part {
    /// Subjects, if not all of the policy's.
    pub(super) subjects: Option<QuestionId>,
    /// Peers; `None` is everyone.
    pub(super) peers: Option<Vec<Party>>,
    pub(super) ports: PartPorts,
    /// Peers that are meant through a lens, see [`super::containers`].
    pub(super) widened: Vec<(Lens, Vec<Party>)>,
}

/// A rule with its number.
#[derive(Debug)]
pub(super) struct LoweredRule<'a> {
    pub(super) rule: &'a Rule,
    pub(super) id: RuleId,
    pub(super) parts: Vec<Part>,
}

/// A section of a policy.
#[derive(Debug)]
pub(super) struct LoweredSection<'a> {
    pub(super) section: RuleDirection,
    /// Number of the isolation; none where the layer isolates nobody.
    pub(super) isolation: Option<RuleId>,
    pub(super) rules: Vec<LoweredRule<'a>>,
}

/// A policy that selects somebody.
#[derive(Debug)]
pub(super) struct LoweredPolicy<'a> {
    pub(super) policy: &'a Policy,
    pub(super) subjects: QuestionId,
    pub(super) sections: Vec<LoweredSection<'a>>,
    /// How it is meant for these subjects.
    pub(super) lens: Lens,
}

/// What is to be told apart.
#[derive(Debug)]
pub(super) struct Lowering<'a> {
    pub(super) questions: Questions<'a>,
    pub(super) blocks: BTreeMap<Block, BlockId>,
    pub(super) lists: BTreeMap<List, ListId>,
    /// Whom policies mean that select nobody.
    pub(super) dormant: Vec<Who<'a>>,
    /// Names of ports that rules use.
    pub(super) names: BTreeSet<&'a str>,
    /// Pods of whose containers some policy says who may call them.
    pub(super) contested: Vec<QuestionId>,
    widened: &'a Widened,
}

/// Gives numbers to all rules of a policy, those without effect too: a rule keeps its number when its first workload
/// comes and when its time is over.
pub(super) fn number(policy: &Policy, registry: &mut Registry) {
    for (section, rules) in policy.sections() {
        if policy.isolates(section) {
            registry.rule(&key(policy, section, None));
        }
        for (_, index) in rules.iter().zip(0..) {
            registry.rule(&key(policy, section, Some(index)));
        }
    }
}

fn key(policy: &Policy, direction: RuleDirection, index: Option<u32>) -> RuleKey {
    RuleKey { policy: policy.key.clone(), direction, index }
}

impl<'a> Lowering<'a> {
    pub(super) fn new(questions: Questions<'a>, widened: &'a Widened) -> Self {
        Self {
            widened,
            contested: Vec::new(),
            questions,
            blocks: BTreeMap::new(),
            lists: BTreeMap::new(),
            dormant: Vec::new(),
            names: BTreeSet::new(),
        }
    }

    /// A policy, or nothing if it selects nobody: its peers and ports would split classes for nothing. One about a container
    /// comes three times, once for each lens.
    pub(super) fn policy(
        &mut self,
        policy: &'a Policy,
        people: &People<'_>,
        registry: &Registry,
    ) -> Vec<LoweredPolicy<'a>> {
        let own = policy.key.namespace.as_str();
        let (namespaces, selector) = (&policy.subject.namespaces, &policy.subject.selector);
        let who = self.questions.who(namespaces, own, selector, None);
        if let Some(pods) = self.widened.pods(selector).filter(|_| policy.ingress.is_some()) {
            let pods = self.questions.who(namespaces, own, pods, None);
            self.contested.push(self.questions.ask(Question::Who(pods)));
        }
        let mut all = vec![(who, Lens::Exact)];
        for lens in [Lens::Lenient, Lens::Strict] {
            let selector = self.widened.through(lens, selector);
            all.extend(selector.map(|selector| (self.questions.who(namespaces, own, selector, None), lens)));
        }
        let mut lowered = Vec::new();
        for (who, lens) in all {
            if people.select(&who, &self.questions).next().is_none() {
                self.dormant.push(who);
            } else {
                lowered.push(self.sections(policy, who, lens, people, registry));
            }
        }
        lowered
    }

    /// A policy for these subjects.
    fn sections(
        &mut self,
        policy: &'a Policy,
        who: Who<'a>,
        lens: Lens,
        people: &People<'_>,
        registry: &Registry,
    ) -> LoweredPolicy<'a> {
        let subjects = self.questions.ask(Question::Who(who));
        let id = |section, index| registry.known_rule(&key(policy, section, index)).unwrap_or(RuleId::NONE);
        // Nobody listens at an address, or has sockets there.
        let at_an_address = |section| matches!(section, RuleDirection::Egress | RuleDirection::Ingress);
        let is_asked = |section| lens != Lens::Lenient || at_an_address(section);
        let sections = policy.sections().filter(|(section, _)| is_asked(*section));
        let about_container = container::named(&policy.subject.selector).is_some();
        let own = policy.key.namespace.as_str();
        let sections = sections.map(|(section, rules)| LoweredSection {
            section,
            isolation: (policy.isolates(section) && lens != Lens::Lenient).then(|| id(section, None)),
            rules: (0..)
                .zip(rules)
                .map(|(index, rule)| LoweredRule {
                    rule,
                    id: id(section, Some(index)),
                    parts: {
                        let widens = section == RuleDirection::Ingress && !about_container;
                        self.rule(rule, section, (own, who), (people, widens))
                    },
                })
                .collect(),
        });
        LoweredPolicy { policy, subjects, sections: sections.collect(), lens }
    }

    fn rule(
        &mut self,
        rule: &'a Rule,
        section: RuleDirection,
        (own, subjects): (&'a str, Who<'a>),
        (people, widens): (&People<'_>, bool),
    ) -> Vec<Part> {
        let peers: Option<Vec<Party>> = match &rule.peers {
            Peers::Everyone => None,
            Peers::AnyOf(peers) => Some(peers.iter().flat_map(|peer| self.peer(peer, own)).collect()),
        };
        let widened = if widens { self.widen(rule, own) } else { Vec::new() };
        let items = match &rule.ports {
            Ports::AnyOf(items) => items,
            Ports::All => return vec![Part { subjects: None, peers, ports: PartPorts::All, widened }],
            Ports::Kinds(kinds) => {
                let ports = PartPorts::Kinds(kinds.iter().map(|kind| kind.class()).collect());
                return vec![Part { subjects: None, peers, ports, widened }];
            }
        };
        let mut parts = Vec::new();
        let servers = match section {
            RuleDirection::Egress => self.servers(&rule.peers, own),
            RuleDirection::Ingress | RuleDirection::Listen | RuleDirection::Sockets => vec![subjects],
        };
        for item in items {
            let PortMatch::Named { protocol, name } = item else { continue };
            self.names.insert(name);
            for port in people.named(name) {
                if protocol.is_some_and(|protocol| protocol != port.protocol) {
                    continue;
                }
                let ports = PartPorts::Listed(self.list(vec![(port.protocol, port.port, port.port)]));
                let named = servers.iter().map(|who| self.questions.ask(Question::Named(*who, name, port)));
                if section == RuleDirection::Egress {
                    let peers = Some(named.map(Party::Asked).collect());
                    parts.push(Part { subjects: None, peers, ports, widened: Vec::new() });
                } else {
                    let named: Vec<QuestionId> = named.collect();
                    parts.extend(named.into_iter().map(|subjects| Part {
                        subjects: Some(subjects),
                        peers: peers.clone(),
                        ports: ports.clone(),
                        widened: widened.clone(),
                    }));
                }
            }
        }
        let ranges = items.iter().filter_map(|item| match item {
            PortMatch::Range(range) => Some((range.protocol, range.first, range.last)),
            PortMatch::Named { .. } => None,
        });
        let ranges: List = ranges.collect();
        if !ranges.is_empty() {
            let ports = PartPorts::Listed(self.list(ranges));
            parts.push(Part { subjects: None, peers, ports, widened });
        }
        parts
    }

    /// Whom peers that name a container mean through each lens through which the rule says anything.
    fn widen(&mut self, rule: &'a Rule, own: &'a str) -> Vec<(Lens, Vec<Party>)> {
        let Peers::AnyOf(peers) = &rule.peers else { return Vec::new() };
        let lenses: &[Lens] = match rule.action {
            Action::Allow => &[Lens::Lenient],
            Action::Deny => &[Lens::Strict],
            Action::Pass => &[Lens::Lenient, Lens::Strict],
        };
        let mut widened = Vec::new();
        for lens in lenses {
            let mut parties = Vec::new();
            for peer in peers {
                let Peer::Workloads { namespaces, selector, account } = peer else { continue };
                let Some(wide) = self.widened.through(*lens, selector) else { continue };
                let who = self.questions.who(namespaces, own, wide, account.as_ref());
                parties.push(Party::Asked(self.questions.ask(Question::Who(who))));
            }
            if !parties.is_empty() {
                widened.push((*lens, parties));
            }
        }
        widened
    }

    /// Which of the peers of an egress rule can be servers that give names to ports. An address has no names, so a block
    /// of addresses is nobody here.
    fn servers(&mut self, peers: &'a Peers, own: &'a str) -> Vec<Who<'a>> {
        let Peers::AnyOf(peers) = peers else { return vec![self.everyone()] };
        let mut servers = Vec::new();
        for peer in peers {
            match peer {
                Peer::Workloads { namespaces, selector, account } => {
                    servers.push(self.questions.who(namespaces, own, selector, account.as_ref()));
                }
                Peer::Entity(Entity::Cluster) => servers.push(self.everyone()),
                Peer::Entity(Entity::Host | Entity::World | Entity::Unmanaged)
                | Peer::Cidr { .. }
                | Peer::Pending(_) => {}
            }
        }
        servers
    }

    /// All workloads.
    fn everyone(&mut self) -> Who<'a> {
        static ALL: Selector = Selector { requirements: Vec::new() };
        self.questions.who(&Namespaces::All, "", &ALL, None)
    }

    /// One peer of a rule.
    fn peer(&mut self, peer: &'a Peer, own: &'a str) -> Vec<Party> {
        match peer {
            Peer::Workloads { namespaces, selector, account } => {
                let who = self.questions.who(namespaces, own, selector, account.as_ref());
                vec![Party::Asked(self.questions.ask(Question::Who(who)))]
            }
            Peer::Cidr { net, except } => vec![Party::Block(self.block((*net, except.clone())))],
            Peer::Entity(Entity::Host) => vec![Party::Reserved(IdentityId::HOST)],
            Peer::Entity(Entity::World) => vec![Party::Reserved(IdentityId::WORLD)],
            Peer::Entity(Entity::Unmanaged) => vec![Party::Reserved(IdentityId::UNMANAGED)],
            Peer::Pending(_) => Vec::new(),
            Peer::Entity(Entity::Cluster) => {
                let who = self.everyone();
                let asked = self.questions.ask(Question::Who(who));
                vec![Party::Asked(asked), Party::Reserved(IdentityId::HOST)]
            }
        }
    }

    /// Everyone in quarantine and their guests, in the order of the wards.
    pub(super) fn wards(&mut self, wards: &Wards<'a>) -> Vec<(QuestionId, Vec<Party>)> {
        let mut lowered = Vec::with_capacity(wards.list.len());
        for (index, (guests, _)) in wards.list.iter().enumerate() {
            let ward = self.questions.ask(Question::Ward(index));
            let mut parties = Vec::new();
            for guest in *guests {
                match guest {
                    Guest::Identity(id) => {
                        parties.push(Party::Asked(self.questions.ask(Question::One(*id))));
                    }
                    Guest::Peer(peer) => parties.extend(self.peer(peer, "")),
                }
            }
            lowered.push((ward, parties));
        }
        lowered
    }

    fn block(&mut self, block: Block) -> BlockId {
        let next = BlockId(self.blocks.len());
        *self.blocks.entry(block).or_insert(next)
    }

    /// The number of a list of ports.
    pub(super) fn list(&mut self, mut list: List) -> ListId {
        list.sort_unstable();
        list.dedup();
        let next = ListId(self.lists.len());
        *self.lists.entry(list).or_insert(next)
    }
}
