//! Who a socket belongs to: nested cgroups, passed descriptors, moved processes, late bindings, changed labels.

use std::fs;

use enforcer_common::abi::flow::Outcome;
use enforcer_common::id::IdentityId;
use enforcer_common::reason::Reason;
use enforcer_tests::direct::Direct;
use enforcer_tests::puppet::Order;
use enforcer_tests::workload::{Workload, cgroup_id, descriptor};
use enforcer_tests::world::World;

use crate::registry::Test;

pub(crate) const TESTS: &[Test] = &[
    ("nested_cgroups_inherit", nested_cgroups_inherit),
    ("a_passed_socket_needs_both", a_passed_socket_needs_both),
    ("a_moved_process", a_moved_process),
    ("bound_after_it_started", bound_after_it_started),
    ("labels_change_without_restart", labels_change_without_restart),
    ("outside_of_workloads_is_the_host", outside_of_workloads_is_the_host),
    ("nobody_in_a_managed_tree", nobody_in_a_managed_tree),
    ("a_directory_made_again_is_another", a_directory_made_again_is_another),
    ("the_same_port_of_two_owners", the_same_port_of_two_owners),
];

const EPERM: i32 = 1;
const ECONNREFUSED: i32 = 111;
const DB: &str = "127.0.0.1:5432";

/// Only `api` may call `db`.
const DB_FROM_API: &str = "
apiVersion: enforcer.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: db}
spec:
  subject: {matchLabels: {app: db}}
  ingress:
    - from: [{workloads: {matchLabels: {app: api}}}]
";

fn start(world: &World) -> (Direct, Workload, Workload, Workload) {
    let mut direct = Direct::start(world);
    let (web, api, db) = (world.workload("web"), world.workload("api"), world.workload("db"));
    direct.policies(DB_FROM_API);
    direct.bind([&web, &api, &db]);
    db.serve(true, DB);
    db.serve(false, DB);
    (direct, web, api, db)
}

#[track_caller]
fn both(who: &Workload, errno: i32) {
    assert_eq!(who.connect(DB).errno, errno, "{} by TCP", who.name);
    assert_eq!(who.send(DB).errno, errno, "{} by UDP", who.name);
}

fn nested_cgroups_inherit() {
    let world = World::new("nested");
    let (_direct, web, api, db) = start(&world);
    for (who, errno) in [(&api, 0), (&web, EPERM)] {
        let inner = who.cgroup.join("pod/container/deeper");
        fs::create_dir_all(&inner).unwrap();
        who.must(&Order::Enter { cgroup: inner });
        both(who, errno);
    }
    // A server in a directory below its workload's is the workload's.
    let inner = db.cgroup.join("inner");
    fs::create_dir(&inner).unwrap();
    db.must(&Order::Enter { cgroup: inner });
    db.serve(true, "127.0.0.1:5433");
    assert_eq!(api.connect("127.0.0.1:5433").errno, 0);
    assert_eq!(web.connect("127.0.0.1:5433").errno, EPERM);
}

fn a_passed_socket_needs_both() {
    let world = World::new("passed");
    let (mut direct, web, api, _db) = start(&world);
    let to = enforcer_tests::sockaddr::of(DB.parse().unwrap());
    for (number, (giver, taker)) in [(&api, &web), (&web, &api)].into_iter().enumerate() {
        let path = world.folder().join(format!("mailbox{number}"));
        let mailbox = descriptor(&taker.must(&Order::Mailbox { path: path.clone() }));
        let (stream, datagram) = (libc::SOCK_STREAM, libc::SOCK_DGRAM);
        for kind in [stream, datagram] {
            let fd = giver.socket(libc::AF_INET, kind);
            giver.must(&Order::Give { path: path.clone(), fd });
            let taken = descriptor(&taker.must(&Order::Take { fd: mailbox }));
            let seen = if kind == stream {
                taker.connect_on(taken, to.clone())
            } else {
                taker.send_on(taken, Some(to.clone()))
            };
            assert_eq!(seen.errno, EPERM, "{} by way of {}", giver.name, taker.name);
            let event = direct.event("the denial", |event| event.outcome == Outcome::Dropped);
            assert_eq!(event.from, "web", "the one who may not is named");
            assert_eq!(event.pid, taker.puppet.pid());
        }
    }
}

fn a_moved_process() {
    let world = World::new("moved");
    let (_direct, web, api, _db) = start(&world);
    let before = api.socket(libc::AF_INET, libc::SOCK_STREAM);
    // Old sockets stay what they were, and whoever calls must be allowed too.
    api.must(&Order::Enter { cgroup: web.cgroup.clone() });
    let to = enforcer_tests::sockaddr::of(DB.parse().unwrap());
    assert_eq!(api.connect_on(before, to.clone()).errno, EPERM, "a socket from before");
    both(&api, EPERM);
    api.must(&Order::Enter { cgroup: api.cgroup.clone() });
    assert_eq!(api.connect_on(before, to).errno, 0, "back again");
    both(&api, 0);
}

fn bound_after_it_started() {
    let world = World::new("late");
    let mut direct = Direct::start(&world);
    direct.policies(DB_FROM_API);
    let (web, api, db) = (world.workload("web"), world.workload("api"), world.workload("db"));
    db.serve(true, DB);
    db.serve(false, DB);
    // Nobody is known, so no policy selects anybody.
    both(&web, 0);
    direct.bind([&db]);
    // The listener is older than the binding.
    both(&web, EPERM);
    both(&api, EPERM);
    direct.bind([&api]);
    both(&api, 0);
    direct.unbind(db.cgroup_id());
    both(&web, 0);
}

fn labels_change_without_restart() {
    let world = World::new("labels");
    let (mut direct, mut web, mut api, db) = start(&world);
    both(&web, EPERM);
    let old = web.socket(libc::AF_INET, libc::SOCK_DGRAM);
    let to = enforcer_tests::sockaddr::of(DB.parse().unwrap());
    assert_eq!(web.send_on(old, Some(to.clone())).errno, EPERM);
    web.relabel(&[("app", "api"), ("tier", "front")]);
    api.relabel(&[("app", "retired")]);
    direct.bind([&web, &api]);
    both(&web, 0);
    both(&api, EPERM);
    assert_eq!(web.send_on(old, Some(to)).errno, 0, "the socket is older than the label");
    // The server's own label: no longer a database, no longer isolated.
    let mut db = db;
    db.relabel(&[("app", "cache")]);
    direct.bind([&db]);
    both(&api, 0);
}

fn outside_of_workloads_is_the_host() {
    let world = World::new("host");
    let (mut direct, web, _api, _db) = start(&world);
    let host = world.host();
    both(&host, EPERM);
    let event = direct.event("the denial", |event| event.outcome == Outcome::Dropped);
    assert_eq!((event.from.as_str(), event.to.as_str()), ("host", "db"));
    host.serve(true, "127.0.0.1:9000");
    assert_eq!(web.connect("127.0.0.1:9000").errno, 0);
    let event = direct.event("the call of the host", |event| event.port == 9000);
    assert_eq!((event.from.as_str(), event.to.as_str()), ("web", "host"));
    // An entity in a policy means it.
    direct.policies(&DB_FROM_API.replace("{workloads: {matchLabels: {app: api}}}", "{entity: host}"));
    both(&host, 0);
    both(&web, EPERM);
}

fn nobody_in_a_managed_tree() {
    let world = World::new("managed");
    let mut direct = Direct::start(&world);
    let managed = world.directory("managed");
    direct.bind_directory(&managed, IdentityId::UNMANAGED);
    let known = world.workload_in("default", "known", &[("app", "web")]);
    let open = world.workload("open");
    open.serve(true, DB);
    open.serve(false, DB);
    // A workload inside the managed tree, and a process of nobody beside it.
    let inner = world.directory("managed/known");
    known.must(&Order::Enter { cgroup: inner.clone() });
    let stranger = world.workload("stranger");
    stranger.must(&Order::Enter { cgroup: world.directory("managed/stranger") });
    direct.bind([&open]);
    both(&stranger, EPERM);
    let event = direct.event("the denial", |event| event.outcome == Outcome::Dropped);
    assert_eq!(
        (event.from.as_str(), event.reason, event.rule.as_str()),
        ("unmanaged", Reason::Unmanaged, "-")
    );
    both(&known, EPERM);
    let identity = direct.registry().identity(&known.identity());
    // The tables know the identity from the bindings' first publication on.
    direct.policies(DB_FROM_API);
    direct.bind_directory(&inner, identity);
    both(&known, 0);
    both(&stranger, EPERM);
    // And nobody may call it.
    stranger.serve(true, "127.0.0.1:9000");
    assert_eq!(open.connect("127.0.0.1:9000").errno, EPERM);
}

fn a_directory_made_again_is_another() {
    let world = World::new("again");
    let (mut direct, _web, mut api, _db) = start(&world);
    both(&api, 0);
    let (path, old) = (api.cgroup.clone(), api.cgroup_id());
    api.must(&Order::Enter { cgroup: world.guarded() });
    fs::remove_dir(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert_ne!(cgroup_id(&path), old);
    api.must(&Order::Enter { cgroup: path });
    both(&api, EPERM);
    direct.unbind(old);
    direct.bind([&api]);
    both(&api, 0);
    // One whose directory is gone is the host's next, not the old workload's.
    direct.unbind(api.cgroup_id());
    api.relabel(&[]);
    both(&api, EPERM);
}

/// Two servers share a port by different addresses: the peer is who listens where the call goes.
fn the_same_port_of_two_owners() {
    let world = World::new("port");
    let (_direct, web, api, _db) = start(&world);
    let other = world.workload("other");
    other.serve(true, "127.0.0.2:5432");
    other.serve(false, "127.0.0.2:5432");
    both(&web, EPERM);
    assert_eq!(web.connect("127.0.0.2:5432").errno, 0);
    assert_eq!(web.send("127.0.0.2:5432").errno, 0);
    // Where nobody listens the kernel's own answer comes.
    assert_eq!(web.connect("127.0.0.3:5432").errno, ECONNREFUSED);
    assert_eq!(api.connect("127.0.0.3:5432").errno, ECONNREFUSED);
}
