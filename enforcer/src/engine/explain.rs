//! What becomes of a flow under what is in force now, and why: the table that the kernel has, asked in the kernel's words.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::addresses::Addresses;
use super::policies::refused;
use super::state::{Published, State};
use super::told;
use crate::domain::Mode;
use crate::domain::SocketKind;
use crate::domain::address::Address;
use crate::domain::answer::{Answer, Explained, answer, answer_socket};
use crate::domain::cluster::{Service, ServiceKey, canonical};
use crate::domain::command::{Refused, Reply};
use crate::domain::container::Containers;
use crate::domain::id::IdentityId;
use crate::domain::offline;
use crate::domain::offline::{End, Flow, NOWHERE, Site, address_of};
use crate::domain::policy::diagnostic::{nearest, quote};
use crate::domain::policy::explain::Context;
use crate::domain::policy::model::Policy;
use crate::domain::registry::IdentityKey;
use crate::domain::table::PolicyTable;
use crate::domain::timestamp::Timestamp;
use crate::domain::workload::{DEFAULT_NAMESPACE, Resolved, WorkloadKey};

/// Backends of a service that are explained one by one.
const BACKENDS: usize = 64;

/// Answers for one flow. `from` and `to` are named as on the command line.
pub(super) fn explain(state: &State, from: &str, to: &str, (protocol, port): (u8, u16)) -> Reply {
    match explained(state, from, to, (protocol, port)) {
        Ok(explained) => Reply::Explained(Box::new(explained)),
        Err(refused) => Reply::Refused(refused),
    }
}

/// Answers for a socket that is created.
pub(super) fn explain_socket(state: &State, from: &str, kind: SocketKind) -> Reply {
    match explained_socket(state, from, kind) {
        Ok(explained) => Reply::Explained(Box::new(explained)),
        Err(refused) => Reply::Refused(refused),
    }
}

fn explained_socket(state: &State, from: &str, kind: SocketKind) -> Result<Explained, Refused> {
    let published = published(state)?;
    let live = Live::new(state, published);
    let from = live.end(from)?;
    let from = live.known(&from).into_owned();
    if !matches!(from, End::Workload(_) | End::Host) {
        return Err(refused(format!(
            "{} creates no sockets here; name a workload: `enforcer endpoint list` shows them",
            quote(&from.to_string())
        )));
    }
    let allowed = state.facts.socket_kinds & kind.bit() != 0;
    let mut answer = answer_socket(&live, &from, kind, allowed);
    by_mode(state.facts.mode, &mut answer);
    Ok(Explained {
        generation: published.publication.table.generation().0,
        mode: state.facts.mode.name().to_owned(),
        answer,
        backends: Vec::new(),
        notes: live.notes(&from, (&from, &from), (0, 0)),
    })
}

/// What is in force.
fn published(state: &State) -> Result<&Published, Refused> {
    state.published.as_ref().ok_or_else(|| {
        refused("no policy tables of this agent are in force yet: `enforcer status` says what it waits for")
    })
}

fn explained(state: &State, from: &str, to: &str, port: (u8, u16)) -> Result<Explained, Refused> {
    let published = published(state)?;
    let live = Live::new(state, published);
    let (from, named) = (live.end(from)?, live.end(to)?);
    let (from, to) = (live.known(&from).into_owned(), live.known(&named).into_owned());
    if let (End::Address(_), End::Address(_)) = (&from, &to) {
        return Err(refused(
            "nobody here judges a flow between two addresses; name a workload as one end: `enforcer endpoint list` \
             shows them",
        ));
    }
    let flow = |to: &End, (protocol, port)| Flow { from: from.clone(), to: to.clone(), protocol, port };
    let judged = |to: &End, port| -> Answer {
        let mut answer = answer(&live, &flow(to, port));
        by_mode(state.facts.mode, &mut answer);
        answer
    };
    let backends = match &to {
        End::Service(key) => live.servers(key, port.0, port.1),
        _ => BTreeSet::new(),
    };
    Ok(Explained {
        generation: published.publication.table.generation().0,
        mode: state.facts.mode.name().to_owned(),
        answer: judged(&to, port),
        backends: backends.iter().map(|(end, target)| judged(end, (port.0, *target))).collect(),
        notes: live.notes(&from, (&named, &to), port),
    })
}

/// What the agent's mode makes of denials.
fn by_mode(mode: Mode, answer: &mut Answer) {
    let held_back = match mode {
        Mode::Enforce => return,
        Mode::Audit => "AUDIT",
        Mode::Off => "FORWARDED",
    };
    let ends = answer.ends.iter_mut().map(|side| &mut side.verdict);
    for verdict in ends.chain([&mut answer.verdict]).filter(|verdict| *verdict != "FORWARDED") {
        held_back.clone_into(verdict);
    }
    for side in &mut answer.ends {
        side.errno = None;
    }
}

/// What is in force.
struct Live<'a> {
    state: &'a State,
    table: &'a PolicyTable,
    at: Timestamp,
    endpoints: BTreeMap<&'a WorkloadKey, &'a Resolved>,
    services: Vec<&'a Service>,
    addresses: Option<Addresses<'a>>,
    /// Workloads by the blocks that they have; of two the first, in the order of names.
    blocks: BTreeMap<IpNet, &'a WorkloadKey>,
}

impl<'a> Live<'a> {
    fn new(state: &'a State, published: &'a Published) -> Self {
        let schedule = &published.inputs.schedule;
        // Kernel time may have put a successor in its place.
        let passed = published.publication.next.iter().rev().find(|(from, _)| *from <= state.now.boot);
        let (table, at) = match passed {
            Some((from, table)) => (&**table, schedule.ahead.get(from).copied().unwrap_or(schedule.at)),
            None => (&*published.publication.table, schedule.at),
        };
        let endpoints = told::workloads(&state.sources);
        let blocks = endpoints.iter().rev().flat_map(|(key, resolved)| {
            let key: &'a WorkloadKey = key;
            resolved.workload.addresses.iter().map(move |net| (net.trunc(), key))
        });
        Self {
            state,
            table,
            at,
            blocks: blocks.collect(),
            endpoints,
            services: told::services(&state.sources),
            addresses: state.programmed.as_ref().map(Addresses::new),
        }
    }

    /// A workload or service that the agent knows, the host, or an address.
    fn end(&self, text: &str) -> Result<End, Refused> {
        if text == "host" {
            return Ok(End::Host);
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(End::Address(address.to_canonical()));
        }
        let (only_service, name) = text.strip_prefix("service/").map_or((false, text), |name| (true, name));
        let (namespace, name) = name.split_once('/').unwrap_or((DEFAULT_NAMESPACE, name));
        let key = WorkloadKey { namespace: namespace.to_owned(), name: name.to_owned() };
        if !only_service && self.endpoints.contains_key(&key) {
            return Ok(End::Workload(key));
        }
        if self.service(&key).is_some() {
            return Ok(End::Service(key));
        }
        let names: Vec<String> = self.endpoints.keys().map(ToString::to_string).collect();
        let services: Vec<String> = self.services.iter().map(|service| service.key().to_string()).collect();
        let all = names.iter().chain(&services).map(String::as_str);
        let near = nearest(&key.to_string(), all).map(|near| format!("did you mean {}? ", quote(near)));
        let message = format!(
            "the agent knows no workload and no service {}: {}`enforcer endpoint list` shows the workloads",
            quote(&key.to_string()),
            near.unwrap_or_default()
        );
        Err(Refused { not_found: true, ..refused(message) })
    }

    fn service(&self, key: &WorkloadKey) -> Option<&'a Service> {
        let is_it = |service: &&&Service| (&service.namespace, &service.name) == (&key.namespace, &key.name);
        self.services.iter().find(is_it).copied()
    }

    /// Who has an address, as the kernel finds it.
    fn owner(&self, address: IpAddr) -> Option<End> {
        let (block, _) = self.addresses.as_ref()?.block(address.to_canonical())?;
        if let Some(key) = self.blocks.get(&block) {
            return Some(End::Workload((*key).clone()));
        }
        let is_its = |service: &&&Service| {
            service.addresses.iter().any(|own| IpNet::from(own.to_canonical()) == block)
        };
        let ServiceKey { namespace, name } = self.services.iter().find(is_its)?.key();
        Some(End::Service(WorkloadKey { namespace, name }))
    }

    /// The identity by which the kernel knows a workload now: that of its directory, else that of its address, else the one
    /// that it will have.
    fn identity(&self, resolved: &Resolved) -> IdentityId {
        let programmed = self.state.programmed.as_ref();
        let bound = resolved.cgroup.and_then(|cgroup| programmed?.bindings.get(&cgroup));
        if let Some(bound) = bound {
            let is_over = bound.until.is_some_and(|until| until <= self.state.now.boot);
            return if is_over { bound.after } else { bound.identity };
        }
        let net = resolved.workload.addresses.first();
        let by_address = net.and_then(|net| programmed?.addresses.get(&net.trunc()).copied());
        by_address.or_else(|| self.registered(resolved)).unwrap_or_default()
    }

    fn registered(&self, resolved: &Resolved) -> Option<IdentityId> {
        self.state.registry.known(&self.state.known().who(resolved).present())
    }

    /// What makes the answer another one than the kernel's, today.
    fn notes(&self, from: &End, (named, to): (&End, &End), (protocol, port): (u8, u16)) -> Vec<String> {
        let mut notes = Vec::new();
        let ends = if from == to { vec![from] } else { vec![from, to] };
        for end in ends {
            let End::Workload(key) = end else { continue };
            let Some(resolved) = self.endpoints.get(key) else { continue };
            if self.state.known().who(resolved).is_divided() {
                let all = told::containers(&self.state.sources, key);
                let one = all.first().map_or_else(|| format!("{key}/NAME"), ToString::to_string);
                notes.push(format!(
                    "policies tell the containers of {key} apart; this is a process in one that is not known yet: ask for \
                     one, like {one}"
                ));
            }
            if resolved.workload.cgroup.is_some() && resolved.cgroup.is_none() {
                notes.push(format!("{key} has no process yet: its cgroup does not exist"));
            } else if resolved.workload.cgroup.is_none() && end == from {
                notes.push(format!("{key} runs on another host, where its own policies are asked"));
            }
        }
        if named != to && *to == End::Host {
            notes.push(format!("{named} reaches whoever listens there: name the workload to ask for it"));
        }
        if let End::Service(key) = to {
            let service = self.service(key);
            let count = service.map_or(0, |service| offline::backends(service, protocol, port).count());
            match count {
                0 => notes.push(format!("nobody answers for {to} on that port")),
                count if count > BACKENDS => {
                    notes.push(format!(
                        "{BACKENDS} of {count} backends are shown; the verdict is about all of them"
                    ));
                }
                _ => {}
            }
        }
        match self.state.facts.mode {
            Mode::Enforce => {}
            Mode::Audit => notes.push("the agent's mode is audit: what is denied is let through".to_owned()),
            Mode::Off => notes.push("the agent's mode is off: nothing is judged".to_owned()),
        }
        notes
    }
}

impl Site for Live<'_> {
    fn policies(&self) -> Vec<&Policy> {
        self.state.asked.policies.effective().map(|(loaded, _)| &loaded.policy).collect()
    }

    fn context(&self, hypothetical: bool) -> Context<'_> {
        let (registry, namespaces) = (&self.state.registry, &self.state.namespaces);
        let trust_domain = &self.state.facts.trust_domain;
        Context { registry, namespaces, trust_domain, at: self.at, hypothetical }
    }

    fn table(&self) -> &PolicyTable {
        self.table
    }

    fn known<'e>(&'e self, end: &'e End) -> Cow<'e, End> {
        let End::Address(address) = end else { return Cow::Borrowed(end) };
        let is_own = self.state.programmed.as_ref().is_some_and(|tables| tables.own.contains(address));
        match self.owner(*address) {
            Some(owner) => Cow::Owned(owner),
            None if is_own || address.is_loopback() => Cow::Owned(End::Host),
            None => Cow::Borrowed(end),
        }
    }

    fn number(&self, end: &End) -> (IdentityId, Address) {
        match end {
            End::Workload(key) => match self.endpoints.get(key) {
                Some(resolved) => {
                    let pod = key.pod().and_then(|pod| self.endpoints.get(&pod)).unwrap_or(resolved);
                    (self.identity(resolved), address_of(&pod.workload))
                }
                None => (IdentityId::UNKNOWN, NOWHERE),
            },
            End::Service(key) => {
                let id = IdentityKey::service(key.namespace.as_str(), key.name.as_str());
                let address = self.service(key).and_then(|service| service.addresses.first());
                let address = address.map_or(NOWHERE, |address| canonical(*address));
                (self.state.registry.known(&id).unwrap_or_default(), address)
            }
            End::Host => (IdentityId::HOST, NOWHERE),
            End::Address(address) => {
                let id = self.addresses.as_ref().map_or(IdentityId::WORLD, |all| all.has(*address));
                (id, canonical(*address))
            }
        }
    }

    fn known_as(&self, end: &End) -> IdentityId {
        let pod = match offline::of_pod(end) {
            End::Workload(key) => self.endpoints.get(&key),
            _ => None,
        };
        let Some(pod) = pod.filter(|pod| !pod.workload.addresses.is_empty()) else {
            return self.number(end).0;
        };
        if pod.workload.containers == Containers::Unknown {
            return self.number(end).0;
        }
        let key = self.state.known().who(pod).present_at_address();
        self.state.registry.known(&key).unwrap_or_default()
    }

    fn servers(&self, key: &WorkloadKey, protocol: u8, port: u16) -> BTreeSet<(End, u16)> {
        let Some(service) = self.service(key) else { return BTreeSet::new() };
        offline::backends(service, protocol, port)
            .take(BACKENDS)
            .map(|backend| (self.known(&End::Address(backend.address)).into_owned(), backend.port))
            .collect()
    }

    /// The policies of who is on another host are asked there, but a server's also here.
    fn judges_client(&self, end: &End) -> bool {
        match end {
            End::Workload(key) => self.endpoints.get(key).is_none_or(|it| it.workload.cgroup.is_some()),
            end => *end == End::Host,
        }
    }
}
