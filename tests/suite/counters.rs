//! Counting is exact: what was counted is what was done, also when nobody reads the events.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use enforcer_common::abi::config::{EVENT_WINDOW, EventLimits, Stat};
use enforcer_common::abi::flow::Outcome;
use enforcer_tests::direct::{Counts, Direct};
use enforcer_tests::patience;
use enforcer_tests::puppet::Tally;
use enforcer_tests::workload::Workload;
use enforcer_tests::world::World;

use crate::registry::Test;

pub(crate) const TESTS: &[Test] = &[
    ("connections_and_datagrams", connections_and_datagrams),
    ("four_processes_at_once", four_processes_at_once),
    ("a_ring_that_nobody_reads", a_ring_that_nobody_reads),
    ("limits_of_events", limits_of_events),
    ("a_sample_of_events", a_sample_of_events),
];

const EPERM: i32 = 1;
const API: &str = "127.0.0.1:8081";
const DB: &str = "127.0.0.1:5432";

/// `db` refuses everyone; everything else is open.
const CLOSED_DB: &str = "
apiVersion: enforcer.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: db}
spec:
  subject: {matchLabels: {app: db}}
  ingress: []
";

struct Scene {
    direct: Direct,
    api: Workload,
    db: Workload,
    clients: Vec<Workload>,
    _world: World,
}

impl Scene {
    fn new(name: &str, clients: usize) -> Self {
        let world = World::new(name);
        let mut direct = Direct::start(&world);
        let (api, db) = (world.workload("api"), world.workload("db"));
        let clients: Vec<Workload> = (0..clients).map(|index| world.workload(&format!("c{index}"))).collect();
        direct.policies(CLOSED_DB);
        direct.bind(clients.iter().chain([&api, &db]));
        Self { direct, api, db, clients, _world: world }
    }
}

fn counts(rows: &[(&str, u64)]) -> Counts {
    rows.iter().map(|(row, count)| ((*row).to_owned(), *count)).collect()
}

fn all(errno: i32, count: u64) -> Tally {
    Tally::from([(errno, count)])
}

fn connections_and_datagrams() {
    let scene = Scene::new("exact", 1);
    let client = &scene.clients[0];
    let api = [scene.api.serve(true, API), scene.api.serve(false, API)];
    let db = [scene.db.serve(true, DB), scene.db.serve(false, DB)];
    let before = scene.direct.counts();
    assert_eq!(client.repeat(137, true, API), all(0, 137));
    assert_eq!(client.repeat(59, true, DB), all(EPERM, 59));
    assert_eq!(client.repeat(211, false, API), all(0, 211));
    assert_eq!(client.repeat(83, false, DB), all(EPERM, 83));
    assert_eq!(
        scene.direct.counted_since(&before),
        counts(&[
            ("c0 -> api TCP 8081 egress FORWARDED", 137),
            ("c0 -> api TCP 8081 ingress FORWARDED", 137),
            ("c0 -> db TCP 5432 egress FORWARDED", 59),
            ("c0 -> db TCP 5432 ingress DROPPED", 59),
            // One flow, whatever it carries.
            ("c0 -> api UDP 8081 egress FORWARDED", 1),
            ("c0 -> api UDP 8081 ingress FORWARDED", 1),
            ("c0 -> db UDP 5432 egress FORWARDED", 83),
            ("c0 -> db UDP 5432 ingress DROPPED", 83),
        ])
    );
    scene.api.until_served(&api[1], 211);
    for server in &db {
        scene.db.until_served(server, 0);
    }
}

fn four_processes_at_once() {
    let scene = Scene::new("four", 4);
    scene.api.serve(true, API);
    scene.api.serve(false, API);
    scene.db.serve(true, DB);
    scene.db.serve(false, DB);
    // Four kinds of calls by four processes: 10,000 calls.
    let each = patience::scaled(625, 60);
    let before = scene.direct.counts();
    std::thread::scope(|scope| {
        for client in &scene.clients {
            scope.spawn(move || {
                for (stream, to, errno) in
                    [(true, API, 0), (true, DB, EPERM), (false, API, 0), (false, DB, EPERM)]
                {
                    assert_eq!(client.repeat(each, stream, to), all(errno, each), "{} to {to}", client.name);
                }
            });
        }
    });
    let mut expected = Counts::new();
    for client in &scene.clients {
        for protocol in ["TCP", "UDP"] {
            for (server, ingress) in [("api 8081", "FORWARDED"), ("db 5432", "DROPPED")] {
                let (server, port) = server.split_once(' ').unwrap();
                let row = format!("{} -> {server} {protocol} {port}", client.name);
                // Datagrams that are allowed are one flow.
                let count = if (protocol, ingress) == ("UDP", "FORWARDED") { 1 } else { each };
                expected.insert(format!("{row} egress FORWARDED"), count);
                expected.insert(format!("{row} ingress {ingress}"), count);
            }
        }
    }
    assert_eq!(scene.direct.counted_since(&before), expected);
    assert_eq!(scene.direct.stat(Stat::CountersFull), 0);
}

/// What was seen, and what became of it.
#[derive(Debug, PartialEq)]
struct Events {
    seen: u64,
    delivered: u64,
    left_out: u64,
    lost: u64,
}

impl Events {
    fn of(direct: &Direct) -> Self {
        Self {
            seen: direct.stat(Stat::EventsSeen),
            delivered: direct.stat(Stat::EventsDelivered),
            left_out: direct.stat(Stat::EventsSampledOut),
            lost: direct.stat(Stat::EventsLost),
        }
    }
}

fn limits_of_events() {
    let mut scene = Scene::new("limits", 2);
    scene.api.serve(true, API);
    scene.db.serve(true, DB);
    let limits = EventLimits { sample: 1, allowed: 20, denied: 50 };
    scene.direct.limit_events(limits);
    let started = Instant::now();
    // More than any limit, of two: each has its own.
    for client in &scene.clients {
        assert_eq!(client.repeat(400, true, DB), all(EPERM, 400));
        assert_eq!(client.repeat(300, true, API), all(0, 300));
    }
    // So many limits have begun at most; and each is kept to the full.
    let windows = u64::try_from(started.elapsed().as_nanos() >> EVENT_WINDOW).unwrap() + 2;
    let events = Events::of(&scene.direct);
    assert_eq!(events.seen, 2 * (400 + 300));
    assert_eq!(events.seen, events.delivered + events.left_out + events.lost, "{events:?}");
    let (mut refused, mut allowed) = (BTreeMap::<String, u64>::new(), BTreeMap::<String, u64>::new());
    patience::until_true("all that was delivered is read", Duration::from_secs(20), || {
        for event in scene.direct.events() {
            let kind = if event.outcome == Outcome::Dropped { &mut refused } else { &mut allowed };
            *kind.entry(event.from).or_default() += 1;
        }
        refused.values().chain(allowed.values()).sum::<u64>() >= events.delivered
    });
    for client in ["c0", "c1"] {
        assert!((50..=50 * windows).contains(&refused[client]), "{refused:?} in {windows} windows");
        assert!((20..=20 * windows).contains(&allowed[client]), "{allowed:?} in {windows} windows");
    }
}

fn a_sample_of_events() {
    let mut scene = Scene::new("sample", 1);
    scene.api.serve(true, API);
    scene.db.serve(true, DB);
    scene.direct.limit_events(EventLimits { sample: 10, allowed: 0, denied: 0 });
    assert_eq!(scene.clients[0].repeat(100, true, DB), all(EPERM, 100));
    assert_eq!(scene.clients[0].repeat(1_000, true, API), all(0, 1_000));
    let events = Events::of(&scene.direct);
    assert_eq!((events.seen, events.lost), (100 + 1_000, 0), "{events:?}");
    assert_eq!(events.seen, events.delivered + events.left_out);
    // 1,000 chances of a tenth: 100 with a standard deviation of 9.5. Every refusal is told.
    assert!((100 + 40..=100 + 160).contains(&events.delivered), "{events:?}");
}

fn a_ring_that_nobody_reads() {
    let mut scene = Scene::new("stalled", 1);
    scene.db.serve(true, DB);
    let client = &scene.clients[0];
    // More than the ring holds: a record is 144 bytes and a header of 8.
    let count = 9_000;
    let before = scene.direct.counts();
    assert_eq!(client.repeat(count, true, DB), all(EPERM, count));
    assert_eq!(
        scene.direct.counted_since(&before),
        counts(&[
            ("c0 -> db TCP 5432 egress FORWARDED", count),
            ("c0 -> db TCP 5432 ingress DROPPED", count),
        ])
    );
    let (delivered, lost) = (scene.direct.stat(Stat::EventsDelivered), scene.direct.stat(Stat::EventsLost));
    assert!(lost > 0, "the ring took {delivered}");
    assert_eq!(delivered + lost, count);
    let mut read = 0;
    patience::until_true("all that was delivered is read", Duration::from_secs(20), || {
        read += scene.direct.events().len() as u64;
        read >= delivered
    });
    assert_eq!(read, delivered);
    // And with room again, nothing more is lost.
    assert_eq!(scene.clients[0].repeat(10, true, DB), all(EPERM, 10));
    assert_eq!(scene.direct.stat(Stat::EventsLost), lost);
    assert_eq!(scene.direct.stat(Stat::EventsDelivered), delivered + 10);
}
