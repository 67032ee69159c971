//! The cases of public policy suites: every pair of pods on every port.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use enforcer::domain::cluster_file::Cluster;
use enforcer::domain::offline::{End, Flow, Judged, Offline, port_text};
use enforcer::domain::policy::model::Policy;
use enforcer::domain::workload::WorkloadKey;
use enforcer_tests::cluster::{Attempt, Seen, TCP};
use enforcer_tests::conformance::{Case, SETS, load};
use enforcer_tests::direct::read;
use enforcer_tests::patience;
use enforcer_tests::puppet::Means;

use super::{Bench, is_tried, offline, told_offline};

/// Of so many cases one has an event of a denial compared with what is judged offline.
const SAMPLE: u64 = 4;

/// Emulated machines take so many of each of these: what depends on the kernel is in them, and a case of the other sets has
/// hundreds of pairs.
const EMULATED: (usize, [&str; 3]) =
    (2, ["e2e-netpol", "cluster-network-policy", "cluster-network-policy-changed"]);

/// A flow that is expected to come through, or not.
struct Try {
    flow: Flow,
    attempt: Attempt,
    allowed: bool,
}

/// A case with what can be tried of it.
struct Live {
    name: String,
    cluster: Cluster,
    offline: Offline,
    tries: Vec<Try>,
}

/// How it went.
#[derive(Debug, Default)]
struct Tally {
    cases: u64,
    pairs: usize,
    denied: usize,
    silent: usize,
    events: usize,
    differences: Vec<String>,
}

fn shown(flow: &Flow) -> String {
    format!("{} -> {} {}", flow.from, flow.to, port_text(flow.protocol, flow.port))
}

impl Bench {
    /// Makes a place for everybody who is called, with a server at each port that is called.
    fn open(&mut self, live: &Live) {
        self.house(&live.cluster);
        for Try { attempt, flow, .. } in &live.tries {
            let address = attempt.to.ip();
            let is_pod = matches!(flow.to, End::Workload(_)) || live.offline.owner(address).is_some();
            self.places.settle(&self.world, address, is_pod);
            self.places.serve(address, flow.protocol, flow.port);
        }
    }

    /// Tries flows, and compares.
    fn judge(&mut self, live: &Live, tally: &mut Tally) {
        let attempts: Vec<_> = live.tries.iter().map(|tried| (tried.attempt, tried.allowed)).collect();
        let seen = self.places.attempt(&attempts);
        tally.cases += 1;
        tally.pairs += seen.len();
        for (tried, seen) in live.tries.iter().zip(&seen) {
            let judged = live.offline.judge(&tried.flow);
            tally.denied += usize::from(!tried.allowed);
            tally.silent += usize::from(!tried.allowed && seen.is_silent());
            if let Some(difference) = difference(tried, *seen, &judged) {
                tally.differences.push(format!("{}: {difference}", live.name));
            }
        }
        let mut at_once = live
            .tries
            .iter()
            .zip(&seen)
            .filter(|(tried, seen)| !(tried.allowed || seen.reached || seen.is_silent()));
        if tally.cases.is_multiple_of(patience::scaled(SAMPLE, 1))
            && let Some((tried, _)) = at_once.next()
        {
            tally.events += 1;
            tally.differences.extend(self.event(live, tried));
        }
    }

    /// Whether the event of a denial names the rule and reason that are named offline.
    fn event(&mut self, live: &Live, tried: &Try) -> Option<String> {
        let expected = told_offline(&live.offline, &tried.flow);
        let found = self.told(tried.attempt);
        (found != expected).then(|| {
            format!(
                "{}: the event of {} tells {found:?} instead of {expected:?}",
                live.name,
                shown(&tried.flow)
            )
        })
    }
}

/// What is wrong about it: it came through or did not, or the application was told something else than the rule says.
fn difference(tried: &Try, seen: Seen, judged: &Judged) -> Option<String> {
    let errno = judged
        .all()
        .find(|judgement| judgement.verdict.enforced.is_deny())
        .map_or(0, |judgement| judgement.verdict.enforced.errno().number());
    let is_refused = !seen.reached && (seen.is_silent() || seen.errno == errno);
    let is_right = if tried.allowed { seen.reached } else { is_refused };
    let wanted = if tried.allowed { "allowed".to_owned() } else { format!("denied with {errno}") };
    let Seen { errno, reached } = seen;
    (!is_right).then(|| {
        let how = tried.attempt.means;
        format!("{} should be {wanted}; reached: {reached}, errno {errno}, {how:?}", shown(&tried.flow))
    })
}

/// What of a case can be tried.
fn live(set: &str, case: Case) -> Live {
    let policies = read_or_none(&case.policies);
    let offline = offline(policies, &case.cluster);
    let addresses: BTreeMap<&WorkloadKey, IpAddr> =
        case.cluster.pods.iter().map(|pod| (&pod.workload.key, pod.workload.addresses[0].addr())).collect();
    let place = |end: &End| match end {
        End::Workload(key) => addresses.get(key).copied(),
        End::Address(address) => Some(*address),
        End::Service(_) | End::Host => None,
    };
    let mut tries = Vec::new();
    for (flow, allowed) in case.flows {
        let (Some(from), Some(to)) = (place(&flow.from), place(&flow.to)) else { continue };
        if !is_tried(flow.protocol) {
            continue;
        }
        // Turn by turn: other hooks see a datagram of a connected socket.
        let means = match (flow.protocol, tries.len() % 2) {
            (TCP, _) => Means::Connection,
            (_, 0) => Means::Datagram,
            _ => Means::ConnectedDatagram,
        };
        // Half of the sockets have their address before the call, which then is judged with it.
        let bound = tries.len() % 4 >= 2;
        let attempt = Attempt { from, means, to: SocketAddr::new(to, flow.port), bound };
        tries.push(Try { flow, attempt, allowed });
    }
    Live { name: format!("{set} {}", case.name), cluster: case.cluster, offline, tries }
}

/// Some cases say what holds without a policy.
fn read_or_none(text: &str) -> Vec<Policy> {
    if text.trim().is_empty() { Vec::new() } else { read(text) }
}

/// Those that have a flow to try, and how many flows can't be tried. On an emulated machine the smallest of some sets.
fn chosen() -> (Vec<Live>, usize) {
    let mut cases = Vec::new();
    let mut left_out = 0;
    let is_emulated = patience::is_emulated();
    let (sample, few) = EMULATED;
    for set in SETS.into_iter().filter(|set| !is_emulated || few.contains(set)) {
        let mut of_set = load(set).expect("a set");
        let flows = of_set.iter().flat_map(|case| &case.flows);
        left_out += flows.filter(|(flow, _)| !is_tried(flow.protocol)).count();
        let has = |case: &Case, wanted: bool| {
            case.flows.iter().any(|(flow, allowed)| is_tried(flow.protocol) && *allowed == wanted)
        };
        if is_emulated {
            of_set.retain(|case| has(case, true) && has(case, false));
            of_set.sort_by_key(|case| case.flows.len());
            of_set.truncate(sample);
        }
        of_set.retain(|case| has(case, true) || has(case, false));
        cases.extend(of_set.into_iter().map(|case| live(set, case)));
    }
    (cases, left_out)
}

/// Every case of every set: what reaches what, as the suites expect it.
pub(super) fn cases() {
    let (cases, left_out) = chosen();
    let mut bench = Bench::new("conformance");
    for live in &cases {
        bench.open(live);
    }
    let mut tally = Tally::default();
    let mut settled: Option<&Cluster> = None;
    for live in &cases {
        if settled != Some(&live.cluster) {
            bench.direct.set_policies(Vec::new());
            bench.settle(&live.cluster);
            settled = Some(&live.cluster);
            // Without policies all is open; else a denial would prove nothing.
            let attempts: Vec<_> = live.tries.iter().map(|tried| (tried.attempt, true)).collect();
            let seen = bench.places.attempt(&attempts);
            assert!(seen.iter().all(|seen| seen.reached), "{}, without policies: {seen:?}", live.name);
        }
        bench.direct.forget_events();
        bench.direct.set_policies(live.offline.policies().to_vec());
        bench.judge(live, &mut tally);
    }
    let Tally { cases: count, pairs, denied, silent, events, differences } = &tally;
    println!(
        "conformance: {count} cases, {pairs} pairs ({denied} denied, {silent} of them without an errno; \
         {left_out} of SCTP left out), {events} events, {} differences",
        differences.len()
    );
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    // A loader that finds nothing, or a table that lets everything through, would prove nothing.
    assert!(*count >= patience::scaled(200, 6), "{count} cases");
    assert!(*denied > 0 && *denied < *pairs && *silent < *denied && *events > 0, "{tally:?}");
}
