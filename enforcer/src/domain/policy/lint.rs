//! Lints: policies that are valid, and probably do not do what they were written for. With a cluster also what only shows
//! there.

use super::check::Checked;
use super::diagnostic::{Code, Diagnostic, Location, Severity, Source};
use super::model::{
    Action, Entity, Layer, Namespaces, Peer, Peers, Policy, PortMatch, Ports, Rule, RuleDirection,
};
use super::ports::has_types;
use crate::domain::account::{AccountPattern, TrustDomain};
use crate::domain::cluster::NamespaceLabels;
use crate::domain::cluster_file::{Cluster, Pod};
use crate::domain::command::PolicyFile;
use crate::domain::container;
use crate::domain::labels::Selector;
use crate::domain::yaml::{self, Node, Reader, Value};

/// How many rules each is compared with: what a bomb may cost.
const COMPARED: usize = 1_000;

/// What looks wrong, in the order of the files and their text.
pub fn lint(files: &[PolicyFile], checked: &[Checked], cluster: Option<&Cluster>) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let places = Places::new(files, checked);
    let scene = cluster
        .map(|cluster| Scene { pods: &cluster.pods, labels: cluster.namespaces.iter().cloned().collect() });
    for (index, one) in checked.iter().enumerate() {
        let lints = Lints { places: &places, index, policy: &one.policy, scene: scene.as_ref() };
        lints.subject(&mut found);
        for (section, number, rule) in one.policy.all_rules() {
            lints.rule(section, number, rule, &mut found);
        }
        lints.shadowed(checked, &mut found);
    }
    found.sort_by(|a, b| a.location.cmp(&b.location));
    found.dedup();
    found
}

/// What is in the cluster.
struct Scene<'a> {
    pods: &'a [Pod],
    labels: NamespaceLabels,
}

struct Lints<'a> {
    places: &'a Places<'a>,
    index: usize,
    policy: &'a Policy,
    scene: Option<&'a Scene<'a>>,
}

impl Lints<'_> {
    fn tell(
        &self,
        found: &mut Vec<Diagnostic>,
        path: &[Step],
        code: Code,
        (message, label, help): (String, &str, &str),
    ) {
        found.push(Diagnostic {
            severity: Severity::Warning,
            code,
            location: self.places.find(self.index, path),
            message,
            label: label.to_owned(),
            help: (!help.is_empty()).then(|| help.to_owned()),
            related: Vec::new(),
        });
    }

    fn selects(&self, pod: &Pod) -> bool {
        let Some(scene) = self.scene else { return true };
        let workload = &pod.workload;
        let namespaces = &self.policy.subject.namespaces;
        namespaces.contain(&workload.key.namespace, &self.policy.key.namespace, &scene.labels)
            && selects_one(&self.policy.subject.selector, pod)
    }

    fn subject(&self, found: &mut Vec<Diagnostic>) {
        let Some(scene) = self.scene else { return };
        if !scene.pods.iter().any(|pod| self.selects(pod)) {
            let message = format!("`{}` selects no workload of the cluster", self.policy.key);
            let field = if self.policy.key.kind == super::model::PolicyKind::NetworkPolicy {
                "podSelector"
            } else {
                "subject"
            };
            let path = [Step::Field("spec"), Step::Field(field)];
            let help = "compare it with the labels of the pods, and look at the namespace of the policy";
            self.tell(found, &path, Code::SelectsNothing, (message, "protects nobody", help));
        }
    }

    fn rule(&self, section: RuleDirection, number: u32, rule: &Rule, found: &mut Vec<Diagnostic>) {
        let path = [Step::Field("spec"), Step::Field(section.label()), Step::Item(number)];
        self.broad(section, rule, &path, found);
        let Some(scene) = self.scene else { return };
        let Peers::AnyOf(peers) = &rule.peers else {
            return self.ports(section, rule, None, &path, found);
        };
        let mut servers = Vec::new();
        for peer in peers {
            let Peer::Workloads { namespaces, selector, account } = peer else { continue };
            let is_meant = |pod: &&Pod| {
                let workload = &pod.workload;
                let (namespace, own) = (&workload.key.namespace, &self.policy.key.namespace);
                namespaces.contain(namespace, own, &scene.labels)
                    && selects_one(selector, pod)
                    && account.as_ref().is_none_or(|account| {
                        // Whatever the trust domain is where the policy is enforced.
                        let anywhere = AccountPattern { trust_domain: None, ..account.clone() };
                        anywhere.matches(&TrustDomain::default(), namespace, workload.account.as_deref())
                    })
            };
            let before = servers.len();
            servers.extend(scene.pods.iter().filter(is_meant));
            if servers.len() == before {
                let message = "a peer of this rule matches no workload of the cluster".to_owned();
                let help = "compare it with the labels of the pods and of their namespaces";
                self.tell(found, &path, Code::SelectsNothing, (message, "matches nobody", help));
            }
        }
        let only_workloads = peers.iter().all(|peer| matches!(peer, Peer::Workloads { .. }));
        self.ports(section, rule, only_workloads.then_some(servers), &path, found);
    }

    /// Ports that none of the workloads that could be the server declares.
    fn ports(
        &self,
        section: RuleDirection,
        rule: &Rule,
        servers: Option<Vec<&Pod>>,
        path: &[Step],
        found: &mut Vec<Diagnostic>,
    ) {
        let (Some(scene), Ports::AnyOf(ports)) = (self.scene, &rule.ports) else { return };
        let servers: Vec<&Pod> = match (section, servers) {
            (RuleDirection::Egress, Some(servers)) => servers,
            // Somebody outside may listen on anything.
            (RuleDirection::Egress, None) => return,
            _ => scene.pods.iter().filter(|pod| self.selects(pod)).collect(),
        };
        // What declares no port at all tells nothing.
        let servers: Vec<&Pod> = servers.into_iter().filter(|pod| !pod.ports.is_empty()).collect();
        if servers.is_empty() {
            return;
        }
        for port in ports {
            let (is_declared, text): (bool, String) = match port {
                PortMatch::Range(range) => (
                    // Nobody declares types of messages.
                    has_types(range.protocol)
                        || servers.iter().any(|pod| {
                            pod.ports.iter().any(|(protocol, port)| {
                                *protocol == range.protocol && (range.first..=range.last).contains(port)
                            })
                        }),
                    format!(
                        "{}-{}",
                        crate::domain::offline::port_text(range.protocol, range.first),
                        range.last
                    ),
                ),
                PortMatch::Named { protocol, name } => (
                    servers.iter().any(|pod| {
                        pod.workload
                            .ports
                            .get(name)
                            .is_some_and(|port| protocol.is_none_or(|wanted| wanted == port.protocol))
                    }),
                    format!("`{name}`"),
                ),
            };
            if !is_declared {
                let text = match text.split_once('-') {
                    Some((first, last)) if first.ends_with(&format!("/{last}")) => first.to_owned(),
                    _ => text,
                };
                let message = format!("no workload that could be the server declares port {text}");
                let help = "compare it with `containerPort` and the names of ports; a Service's own port does not count";
                self.tell(found, path, Code::UnreachablePort, (message, "reaches nobody", help));
            }
        }
    }

    /// Allow rules for more than their author is likely to mean.
    fn broad(&self, section: RuleDirection, rule: &Rule, path: &[Step], found: &mut Vec<Diagnostic>) {
        if rule.action != Action::Allow || matches!(section, RuleDirection::Listen | RuleDirection::Sockets) {
            return;
        }
        let everything = rule.ports == Ports::All;
        let message = match &rule.peers {
            Peers::Everyone if everything => "everyone, on every protocol and port",
            Peers::Everyone => return,
            Peers::AnyOf(peers) => match peers.iter().find_map(|peer| broad_peer(peer, everything)) {
                Some(message) => message,
                None => return,
            },
        };
        let verb = if section == RuleDirection::Ingress { "lets in" } else { "lets out to" };
        let help = "name the peers or ports that are meant; keep it if all of them are";
        self.tell(found, path, Code::BroadPeer, (format!("this rule {verb} {message}"), "broad", help));
    }

    /// Rules that another policy, or another rule of this one, always comes before.
    fn shadowed(&self, checked: &[Checked], found: &mut Vec<Diagnostic>) {
        for (section, number, rule) in self.policy.all_rules() {
            let others = checked.iter().enumerate().flat_map(|(index, other)| {
                other
                    .policy
                    .all_rules()
                    .map(move |(section, number, rule)| (index, &other.policy, section, number, rule))
            });
            let first = others.take(COMPARED).find(|(index, policy, other, place, before)| {
                (*index, *place, *other) != (self.index, number, section)
                    && *other == section
                    && covers_subject(policy, self.policy)
                    && comes_before((policy, before, *place), (self.policy, rule, number))
                    && covers(policy, before, self.policy, rule)
            });
            let Some((index, policy, other, place, _)) = first else { continue };
            let path = [Step::Field("spec"), Step::Field(section.label()), Step::Item(number)];
            let by = format!("{} {}[{place}]", policy.key, other.label());
            let message = format!("this rule never decides: {by} always comes before it");
            self.tell(found, &path, Code::ShadowedRule, (message, "no effect", ""));
            if let Some(last) = found.last_mut() {
                let path = [Step::Field("spec"), Step::Field(other.label()), Step::Item(place)];
                last.related(self.places.find(index, &path), "this one decides");
            }
        }
    }
}

/// Whether a selector means a pod, or a container that it has.
fn selects_one(selector: &Selector, pod: &Pod) -> bool {
    match container::named(selector) {
        None => selector.matches(&pod.workload.labels),
        Some(name) => {
            pod.containers.contains(name) && container::of_pod(selector).matches(&pod.workload.labels)
        }
    }
}

fn broad_peer(peer: &Peer, everything: bool) -> Option<&'static str> {
    match peer {
        Peer::Cidr { net, except } if net.prefix_len() == 0 && except.is_empty() => {
            Some("every address, those of pods too")
        }
        Peer::Workloads { namespaces: Namespaces::All, selector, account: None }
            if selector.requirements.is_empty() && everything =>
        {
            Some("every workload of every namespace, on every protocol and port")
        }
        Peer::Entity(Entity::World) if everything => {
            Some("every address outside, on every protocol and port")
        }
        _ => None,
    }
}

/// Whether one policy speaks of everybody that the other speaks of.
fn covers_subject(all: &Policy, part: &Policy) -> bool {
    if all.mode != part.mode || all.expires.is_some() {
        return false;
    }
    let namespaces = match (&all.subject.namespaces, &part.subject.namespaces) {
        (Namespaces::All, _) => true,
        (Namespaces::Own, Namespaces::Own) => all.key.namespace == part.key.namespace,
        (a, b) => a == b && *a != Namespaces::Own,
    };
    let selector = &all.subject.selector;
    namespaces && (selector.requirements.is_empty() || *selector == part.subject.selector)
}

/// Whether one rule always decides before the other where both match.
fn comes_before(
    (first, rule, index): (&Policy, &Rule, u32),
    (second, other, number): (&Policy, &Rule, u32),
) -> bool {
    let rank = |layer: Layer| match layer {
        Layer::Admin { priority } => (0, priority),
        Layer::Namespaced => (1, 0),
        Layer::Baseline { priority } => (2, priority),
    };
    let ((first_layer, first_priority), (second_layer, second_priority)) =
        (rank(first.layer), rank(second.layer));
    match (first.layer, second.layer) {
        (Layer::Namespaced, Layer::Namespaced) => {
            rule.action == Action::Deny && other.action == Action::Allow
        }
        _ if first_layer == second_layer => {
            (first_priority, &first.key, index) < (second_priority, &second.key, number)
        }
        // What a tier passes on still gets to what is beneath it.
        _ => first_layer < second_layer && first_layer == 0 && rule.action != Action::Pass,
    }
}

/// Whether everything that one rule matches is matched by the other.
fn covers(all_of: &Policy, all: &Rule, part_of: &Policy, part: &Rule) -> bool {
    let own = |rule: &Rule| match &rule.peers {
        Peers::AnyOf(peers) => {
            peers.iter().any(|peer| matches!(peer, Peer::Workloads { namespaces: Namespaces::Own, .. }))
        }
        Peers::Everyone => false,
    };
    let same_words = all_of.key.namespace == part_of.key.namespace || !own(all) && !own(part);
    all.expires.is_none()
        && (all.peers == Peers::Everyone || (all.peers == part.peers && same_words))
        && all.ports.cover(&part.ports)
}

/// A step into a document.
#[derive(Clone, Copy, Debug)]
enum Step {
    Field(&'static str),
    Item(u32),
}

/// Where things are in the checked documents.
struct Places<'a> {
    sources: Vec<Source<'a>>,
    /// Each policy's own file and root.
    roots: Vec<(usize, Node)>,
}

impl<'a> Places<'a> {
    fn new(files: &'a [PolicyFile], checked: &[Checked]) -> Self {
        let sources: Vec<_> =
            files.iter().enumerate().map(|(index, file)| Source::new(index, file)).collect();
        let trees: Vec<Vec<Node>> = sources
            .iter()
            .map(|source| {
                let mut reader = Reader::new(source);
                yaml::parse(&mut reader).into_iter().map(|document| document.root).collect()
            })
            .collect();
        let root = |checked: &Checked| {
            let span = checked.place.span();
            let documents = trees.get(checked.place.file).map_or(&[][..], |trees| trees);
            let found = documents.iter().flat_map(items).find(|node| node.span == span);
            (checked.place.file, found.cloned().unwrap_or(Node { span, value: Value::Null }))
        };
        let roots = checked.iter().map(root).collect();
        Self { sources, roots }
    }

    /// The first line of what the path leads to, or of the last thing on the way that is there.
    fn find(&self, index: usize, path: &[Step]) -> Location {
        let Some((file, root)) = self.roots.get(index) else {
            return Location { file: 0, name: String::new(), start: 0, end: 0, line: 1, column: 1 };
        };
        let mut node = root;
        for step in path {
            let next = match (step, &node.value) {
                (Step::Field(name), _) => node.field(name),
                (Step::Item(index), Value::List(items)) => {
                    usize::try_from(*index).ok().and_then(|index| items.get(index))
                }
                _ => None,
            };
            let Some(next) = next else { break };
            node = next;
        }
        let source = &self.sources[*file];
        let text = source.text().get(node.span.clone()).unwrap_or_default();
        let first = text.lines().next().map_or(0, str::len);
        source.location(&(node.span.start..node.span.start + first))
    }
}

/// The document itself and, if it is a list, its items.
fn items(root: &Node) -> Vec<&Node> {
    let mut found = vec![root];
    if let Some(Value::List(items)) = root.field("items").map(|node| &node.value) {
        found.extend(items);
    }
    found
}
