//! One verdict: the kernel's function, the host's and the oracle's say the same of random policies and flows, and so
//! do real sockets.

use std::collections::BTreeMap;

use enforcer::domain::labels::LabelSet;
use enforcer::domain::policy::compile::compile_scene;
use enforcer::domain::policy::model::{Policy, RuleKey};
use enforcer::domain::registry::Registry;
use enforcer::kernel::Scheduled;
use enforcer_common::abi::config::SocketKind;
use enforcer_common::id::Generation;
use enforcer_common::verdict::Direction;
use enforcer_tests::direct::Direct;
use enforcer_tests::oracle::{Question, Setting, Side, judge, judge_in, judge_socket};
use enforcer_tests::puppet::Order;
use enforcer_tests::workload::Workload;
use enforcer_tests::world::World;
use enforcer_tests::{generate, numbers, patience};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, TestRunner};

use crate::registry::Test;

pub(crate) const TESTS: &[Test] = &[
    ("kernel_host_and_oracle_agree", kernel_host_and_oracle_agree),
    ("sockets_and_oracle_agree", sockets_and_oracle_agree),
];

/// Flows per world: filling a table costs more than asking it.
const FLOWS: usize = 500;

fn runner(cases: u32) -> TestRunner {
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 200, ..Config::default() };
    TestRunner::new(config)
}

/// How many flows the kernel judges: so many as `ENFORCER_JUDGED_FLOWS` says.
fn flows() -> u64 {
    let asked = std::env::var("ENFORCER_JUDGED_FLOWS").ok();
    let asked = asked.map(|text| text.parse().expect("ENFORCER_JUDGED_FLOWS is a number"));
    asked.unwrap_or(patience::scaled(100, 8) * FLOWS as u64)
}

fn kernel_host_and_oracle_agree() {
    let cases = u32::try_from(flows().div_ceil(FLOWS as u64)).unwrap();
    let world = World::new("judge");
    let direct = std::cell::RefCell::new(Direct::start(&world));
    let judged = std::cell::Cell::new(0_u64);
    runner(cases)
        .run(&generate::world(FLOWS), |sample| {
            let mut registry = numbers::registry(&sample);
            let scene = numbers::scene(&mut registry, &sample.setting);
            let table = compile_scene(&sample.policies, &scene, &mut registry, Generation(1)).unwrap();
            let mut direct = direct.borrow_mut();
            direct.kernel().publish(&[Scheduled::always(&table)]).unwrap();
            for question in &sample.questions {
                let query = numbers::query(&mut registry, question);
                let host = table.decide(&query);
                let kernel = direct.kernel().judge(&query).unwrap();
                prop_assert_eq!(kernel, host, "{:?}", question);
                let expected = judge_in(
                    &sample.policies,
                    &|rule| numbers::age(&registry, rule),
                    question,
                    &sample.setting,
                );
                prop_assert_eq!(numbers::judgement(&registry, kernel), expected, "{:?}", question);
                judged.set(judged.get() + 1);
            }
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
    println!(
        "differential: {} flows in {cases} worlds, judged alike by kernel, host and oracle",
        judged.get()
    );
    assert!(judged.get() >= u64::from(cases) * FLOWS as u64, "{} flows", judged.get());
}

/// Four workloads with fixed places and random labels.
#[derive(Clone, Debug)]
struct Sample {
    policies: Vec<Policy>,
    labels: Vec<LabelSet>,
    flows: Vec<(usize, usize, u16, bool)>,
}

const PORTS: [u16; 4] = [79, 80, 443, 8080];

fn sample() -> impl Strategy<Value = Sample> {
    let flow = (0..4_usize, 0..3_usize, proptest::sample::select(&PORTS[..]), any::<bool>());
    let flow =
        flow.prop_map(|(from, to, port, stream)| (from, if to < from { to } else { to + 1 }, port, stream));
    (
        proptest::collection::vec(generate::policy(), 1..6),
        proptest::collection::vec(generate::labels(), 4),
        proptest::collection::vec(flow, 6),
    )
        .prop_map(|(mut policies, labels, flows)| {
            let mut seen = std::collections::BTreeSet::new();
            policies.retain(|policy| seen.insert(policy.key.clone()));
            Sample { policies, labels, flows }
        })
}

/// Real sockets on addresses of the loopback net, one for each server, so that all ports are free.
fn sockets_and_oracle_agree() {
    let cases = patience::scaled(200, 20);
    let world = World::new("sockets");
    let mut direct = Direct::start(&world);
    let namespaces = ["blue", "blue", "red", "blue"];
    let mut workloads: Vec<Workload> =
        (0..4).map(|index| world.workload_in(namespaces[index], &format!("w{index}"), &[])).collect();
    for (index, workload) in workloads.iter().enumerate() {
        for port in PORTS {
            for stream in [true, false] {
                workload.serve(stream, &format!("127.0.0.{}:{port}", index + 1));
            }
        }
    }
    let mut tree = runner(1);
    let mut outcomes = BTreeMap::<i32, u64>::new();
    // A generator that stops refusing, or allowing, would prove nothing. A few cases need not meet every errno.
    let is_enough = |outcomes: &BTreeMap<i32, u64>| {
        outcomes.len() as u64 >= patience::scaled(5, 3) && outcomes.values().all(|count| *count >= cases / 40)
    };
    // Chance may leave one of them out for a while.
    for case in 0.. {
        if case >= cases && is_enough(&outcomes) {
            break;
        }
        assert!(case < 20 * cases, "{outcomes:?}");
        let sample = sample().new_tree(&mut tree).unwrap().current();
        for (workload, labels) in workloads.iter_mut().zip(&sample.labels) {
            workload.labels = labels.clone();
        }
        direct.set_policies(sample.policies.clone());
        direct.bind(&workloads);
        for flow in &sample.flows {
            let errno = try_flow(&mut direct, &workloads, &sample.policies, *flow);
            *outcomes.entry(errno).or_default() += 1;
        }
    }
}

fn try_flow(
    direct: &mut Direct,
    workloads: &[Workload],
    policies: &[Policy],
    (from, to, port, stream): (usize, usize, u16, bool),
) -> i32 {
    if let Some(errno) = refused_socket(direct.registry(), policies, &workloads[from], stream) {
        return errno;
    }
    let expected =
        expected(direct.registry(), policies, &workloads[from], &workloads[to], (to, port, stream));
    let address = format!("127.0.0.{}:{port}", to + 1);
    let seen = if stream { workloads[from].connect(&address) } else { workloads[from].send(&address) };
    assert_eq!(
        seen.errno, expected,
        "w{from} to {address}, stream {stream}, labels {:?} to {:?}, policies {policies:#?}",
        workloads[from].labels, workloads[to].labels
    );
    expected
}

/// The errno with which the policies have no socket created for a flow, and it is not; nothing if it may be.
fn refused_socket(registry: &Registry, policies: &[Policy], from: &Workload, stream: bool) -> Option<i32> {
    let (asked, kind) =
        if stream { (SocketKind::Tcp, libc::SOCK_STREAM) } else { (SocketKind::Udp, libc::SOCK_DGRAM) };
    let age = |rule: &RuleKey| numbers::age(registry, rule);
    let judgement = judge_socket(policies, &age, (&side(from), asked, true), &Setting::default());
    let errno = judgement.enforced.errno?.number();
    let answer = from.puppet.obey(&Order::Socket { domain: libc::AF_INET, kind, protocol: 0 });
    assert_eq!(answer.errno, errno, "{} of {:?}, policies {policies:#?}", asked.name(), from.labels);
    Some(errno)
}

fn side(workload: &Workload) -> Side {
    Side::workload(workload.namespace.clone(), workload.labels.clone())
}

/// The errno that the policies, read one after the other, ask for.
fn expected(
    registry: &Registry,
    policies: &[Policy],
    from: &Workload,
    to: &Workload,
    (server, port, stream): (usize, u16, bool),
) -> i32 {
    let protocol = if stream { 6 } else { 17 };
    let egress = Question {
        subject: side(from),
        peer: side(to),
        address: format!("127.0.0.{}", server + 1).parse().unwrap(),
        protocol,
        port,
        direction: Direction::Egress,
    };
    // A client that has chosen no address is taken to come from the first of the loopback net.
    let address = "127.0.0.1".parse().unwrap();
    let ingress = Question {
        subject: side(to),
        peer: side(from),
        address,
        protocol,
        port,
        direction: Direction::Ingress,
    };
    for question in [egress, ingress] {
        let judgement = judge(policies, &|rule| numbers::age(registry, rule), &question);
        if let Some(errno) = judgement.enforced.errno {
            return errno.number();
        }
    }
    0
}
