//! Every hook and every form of an address: allowed and denied by label, three workloads on one shared 127.0.0.1.

use enforcer_common::abi::flow::Outcome;
use enforcer_common::reason::{Errno, Reason};
use enforcer_tests::direct::{Counts, Direct};
use enforcer_tests::puppet::Order;
use enforcer_tests::sockaddr::{inet, inet6, of, unspecified};
use enforcer_tests::workload::{Seen, Server, Workload, descriptor};
use enforcer_tests::world::World;
use enforcer_tests::{patience, puppet::Fd};

use crate::registry::{Test, skip};

pub(crate) const TESTS: &[Test] = &[
    ("three_workloads_on_one_address", three_workloads_on_one_address),
];

/// A denial is a matter of the call itself: nothing is waited for.
const AT_ONCE: u64 = 50_000;
const EPERM: i32 = 1;

/// `web` may call `api`, `api` may call `db`, and nothing else may be.
const TIERS: &str = include_str!("../../policies/three-tier.yaml");

fn three_workloads_on_one_address() {
    let world = World::new("tiers");
    let mut direct = Direct::start(&world);
    let (web, api, db) = (world.workload("web"), world.workload("api"), world.workload("db"));
    direct.policies(TIERS);
    direct.bind([&web, &api, &db]);
    let (api_server, db_server) = (api.serve(true, "127.0.0.1:8081"), db.serve(true, "127.0.0.1:5432"));
    let before = direct.counts();
    assert_eq!(web.connect("127.0.0.1:8081").errno, 0);
    assert_eq!(api.connect("127.0.0.1:5432").errno, 0);
    let denied = web.connect("127.0.0.1:5432");
    assert_eq!(denied.errno, EPERM);
    assert!(denied.micros < AT_ONCE, "{denied:?}");
    api.until_served(&api_server, 1);
    db.until_served(&db_server, 1);
    assert_eq!(direct.counted_since(&before), counts(&[
        ("web -> api TCP 8081 egress FORWARDED", 1),
        ("web -> api TCP 8081 ingress FORWARDED", 1),
        ("api -> db TCP 5432 egress FORWARDED", 1),
        ("api -> db TCP 5432 ingress FORWARDED", 1),
        ("web -> db TCP 5432 egress DROPPED", 1),
    ]));
    let event = direct.event("the denial", |event| event.outcome == Outcome::Dropped);
    assert_eq!((event.from.as_str(), event.to.as_str(), event.port), ("web", "db", 5432));
    assert_eq!((event.reason, event.rule.as_str()), (Reason::Isolated, "default/web egress (isolated)"));
    assert_eq!((event.errno, event.hook, event.pid), (EPERM, "connect4", web.puppet.pid()));
    assert_eq!((event.subject_cgroup, event.peer_cgroup), (web.cgroup_id().0, db.cgroup_id().0));
}

fn counts(rows: &[(&str, u64)]) -> Counts {
    rows.iter().map(|(row, count)| ((*row).to_owned(), *count)).collect()
}
