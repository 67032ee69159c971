//! What a cluster costs its nodes: one daemon, an API server in this process, and pods that come, change and go.
//!
//! Memory and processor time are the daemon's own, as the kernel counts them. The time from a pod's directory to its
//! binding is by the clock on the wall, seen in the kernel's map.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use enforcer_common::abi::identity::Binding;
use serde::Serialize;
use serde_json::{Value, json};

use crate::agent::Agent;
use crate::apiserver::ApiServer;
use crate::bpf::PinnedMap;
use crate::workload::cgroup_id;
use crate::world::World;

/// Pods of the cluster, and how many of them are on this node: as many as a kubelet takes by default.
const PODS: usize = 5_000;
const HERE: usize = 110;
const NAMESPACES: usize = 200;
/// Applications of a namespace.
const APPS: usize = 5;
const SERVICES: usize = 500;
const POLICIES: usize = 500;
/// Changes of pods in a second, and for how many seconds.
const RATE: u32 = 50;
const SECONDS: u32 = 30;
/// Pods whose directories are made one after the other.
const BOUND: usize = 200;
/// No binding takes this long.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between looks for a binding.
const PAUSE: Duration = Duration::from_micros(100);
/// Words of a binding.
const WORDS: usize = size_of::<Binding>() / 8;

/// Most memory of the daemon, its share of a processor, and the time to bind 99 of 100 pods.
const MEMORY_GATE: u64 = 128 << 20;
const SHARE_GATE: f64 = 0.10;
const BINDING_GATE: Duration = Duration::from_millis(20);

/// What was found.
#[derive(Debug, Serialize)]
struct Report {
    /// From the start of the daemon until it is ready, everything being new to it.
    ready_seconds: f64,
    /// Resident memory, when nothing happens and at its highest while pods change.
    idle_bytes: u64,
    peak_bytes: u64,
    /// Share of one processor while pods change.
    share: f64,
    /// Changes of pods that were made in a second, as far as the API server came along.
    changes_per_second: f64,
    /// From a pod's directory to its binding in the kernel.
    binding_median_milliseconds: f64,
    binding_p99_milliseconds: f64,
}

/// Measures and prints. Exit code 1 if a gate is missed and `gate` says that this matters.
pub fn run(gate: bool, json: bool) -> ExitCode {
    let report = measure();
    if json {
        println!("{}", serde_json::to_string(&report).expect("numbers"));
    } else {
        print(&report);
    }
    let misses = misses(&report);
    for miss in &misses {
        eprintln!("{miss}");
    }
    ExitCode::from(u8::from(gate && !misses.is_empty()))
}

fn print(report: &Report) {
    println!(
        "{PODS} pods in {NAMESPACES} namespaces, {HERE} of them here, {SERVICES} services, {POLICIES} policies\n"
    );
    println!("ready after                    {:>8.2} s", report.ready_seconds);
    println!("memory, idle                   {:>8} MiB", report.idle_bytes >> 20);
    println!("memory, at its highest         {:>8} MiB", report.peak_bytes >> 20);
    println!("changes of pods                {:>8.1} /s", report.changes_per_second);
    println!("processor meanwhile            {:>8.1} % of one", report.share * 100.0);
    println!("directory to binding, median   {:>8.2} ms", report.binding_median_milliseconds);
    println!("directory to binding, p99      {:>8.2} ms", report.binding_p99_milliseconds);
}

fn misses(report: &Report) -> Vec<String> {
    let limit = BINDING_GATE.as_secs_f64() * 1_000.0;
    let all = [
        (report.peak_bytes > MEMORY_GATE, format!("memory is above {} MiB", MEMORY_GATE >> 20)),
        (report.share > SHARE_GATE, format!("more than {:.0} % of a processor", SHARE_GATE * 100.0)),
        (report.binding_p99_milliseconds > limit, format!("bindings take more than {limit} ms")),
    ];
    all.into_iter().filter(|(missed, _)| *missed).map(|(_, text)| format!("BELOW: {text}")).collect()
}

fn measure() -> Report {
    let world = World::new("cluster");
    let api = world.inside(ApiServer::start);
    fill(&api);
    let kubeconfig = world.folder().join("kubeconfig");
    fs::write(&kubeconfig, api.kubeconfig("")).expect("a file for the client's configuration");
    let mut agent = Agent::new(&world);
    agent.configure(&[
        ("attach", &world.relative(&world.guarded())),
        ("kubernetes", "\"on\""),
        ("kubeconfig", &kubeconfig.display().to_string()),
        ("node-name", "here"),
    ]);
    for number in 0..HERE {
        fs::create_dir_all(directory(&world, number)).expect("a pod's directory");
    }
    let start = Instant::now();
    agent.run();
    let ready_seconds = start.elapsed().as_secs_f64();
    std::thread::sleep(Duration::from_secs(5));
    let daemon = PathBuf::from(format!("/proc/{}", agent.pid()));
    let idle_bytes = resident(&daemon, "VmRSS:");
    let (share, changes_per_second) = change(&api, &daemon);
    let mut times = bind(&api, &world);
    times.sort_unstable();
    let milliseconds = |time: Duration| time.as_secs_f64() * 1_000.0;
    Report {
        ready_seconds,
        idle_bytes,
        peak_bytes: resident(&daemon, "VmHWM:"),
        share,
        changes_per_second,
        binding_median_milliseconds: milliseconds(times[times.len() / 2]),
        binding_p99_milliseconds: milliseconds(times[times.len() * 99 / 100]),
    }
}

/// A cluster of ordinary shape.
fn fill(api: &ApiServer) {
    api.install_definitions();
    for number in 0..NAMESPACES {
        let labels = json!({ "team": format!("team-{}", number % 20) });
        let metadata = json!({ "name": namespace(number), "labels": labels });
        api.put(json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": metadata }));
    }
    api.put(json!({
        "apiVersion": "v1", "kind": "Node", "metadata": { "name": "here" },
        "status": { "addresses": [{ "type": "InternalIP", "address": "192.0.2.1" }] },
    }));
    (0..PODS).for_each(|number| _ = api.put(pod(number, if number < HERE { "here" } else { "there" }, "a")));
    for number in 0..SERVICES {
        api.put_all([service(number), slice(number)]);
        if number < POLICIES {
            api.put(policy(number));
        }
    }
}

fn namespace(number: usize) -> String {
    format!("ns-{}", number % NAMESPACES)
}

fn app(number: usize) -> String {
    format!("app-{}", number / NAMESPACES % APPS)
}

fn uid(number: usize) -> String {
    format!("{number:08x}-7c1f-4e57-9c7e-2f6a1d1f0a11")
}

fn address(number: usize) -> String {
    format!("10.{}.{}.{}", 64 + number / 62_500, number / 250 % 250, number % 250 + 1)
}

/// As the API server has it, with what the daemon has no use for. `version` stands in a label that policies don't name.
fn pod(number: usize, node: &str, version: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "namespace": namespace(number), "name": format!("{}-{number}", app(number)), "uid": uid(number),
            "labels": { "app": app(number), "version": version, "pod-template-hash": format!("{number:x}") },
            "annotations": { "example.com/checksum": "0123456789abcdef".repeat(8) },
        },
        "spec": {
            "nodeName": node, "serviceAccountName": app(number),
            "containers": [{
                "name": "main", "image": "registry.example.com/app:1",
                "ports": [{ "name": "http", "containerPort": 8080 }],
                "env": (0..10).map(|n| json!({ "name": format!("NAME_{n}"), "value": "a value" })).collect::<Vec<_>>(),
            }],
        },
        "status": {
            "phase": "Running", "podIP": address(number), "podIPs": [{ "ip": address(number) }], "hostIP": "192.0.2.1",
        },
    })
}

fn service(number: usize) -> Value {
    let own = format!("10.96.{}.{}", number / 250, number % 250 + 1);
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "namespace": namespace(number), "name": app(number) },
        "spec": {
            "clusterIP": own, "clusterIPs": [own], "selector": { "app": app(number) },
            "ports": [{ "name": "http", "port": 80, "targetPort": "http" }],
        },
    })
}

fn slice(number: usize) -> Value {
    let pods = (number..PODS).step_by(NAMESPACES * APPS);
    let endpoints: Vec<Value> = pods.map(|pod| json!({ "addresses": [address(pod)] })).collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {
            "namespace": namespace(number), "name": format!("{}-1", app(number)),
            "labels": { "kubernetes.io/service-name": app(number) },
        },
        "endpoints": endpoints, "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
    })
}

/// An application takes calls from another one of its namespace, and from all of a team.
fn policy(number: usize) -> Value {
    let other = app(number + NAMESPACES);
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": { "namespace": namespace(number), "name": app(number) },
        "spec": {
            "podSelector": { "matchLabels": { "app": app(number) } },
            "ingress": [{
                "from": [
                    { "podSelector": { "matchLabels": { "app": other } } },
                    { "namespaceSelector": { "matchLabels": { "team": format!("team-{}", number % 20) } } },
                ],
                "ports": [{ "port": "http" }],
            }],
        },
    })
}

fn directory(world: &World, number: usize) -> PathBuf {
    world.guarded().join(format!("kubepods/burstable/pod{}", uid(number)))
}

/// Pods of other nodes go, come and change, at an even pace; what the daemon takes of a processor meanwhile.
fn change(api: &ApiServer, daemon: &Path) -> (f64, f64) {
    let (before, start) = (processor(daemon), Instant::now());
    for step in 0..RATE * SECONDS {
        let due = Duration::from_secs(1) * step / RATE;
        std::thread::sleep(due.saturating_sub(start.elapsed()));
        let number = HERE + step as usize / 3 % (PODS - HERE);
        match step % 3 {
            0 => _ = api.put(pod(number, "there", "b")),
            1 => _ = api.remove("pods", &namespace(number), &format!("{}-{number}", app(number))),
            _ => _ = api.put(pod(number, "there", "c")),
        }
    }
    let took = start.elapsed().as_secs_f64();
    let share = processor(daemon).checked_sub(before).unwrap().as_secs_f64() / took;
    (share, f64::from(RATE * SECONDS) / took)
}

/// New pods on this node: known to the API server, then their directories are made.
fn bind(api: &ApiServer, world: &World) -> Vec<Duration> {
    let bindings = PinnedMap::open(&world.pins().join("BINDINGS")).expect("the pinned map");
    let added = (0..BOUND).map(|n| {
        let number = PODS + n;
        api.put(pod(number, "here", "a"));
        std::thread::sleep(Duration::from_millis(20));
        let directory = directory(world, number);
        let start = Instant::now();
        fs::create_dir(&directory).expect("a pod's directory");
        let id = cgroup_id(&directory).0;
        loop {
            let found: Option<[u64; WORDS]> = bindings.get(&id).expect("the map can be read");
            if found.is_some() {
                return start.elapsed();
            }
            assert!(start.elapsed() < PATIENCE, "pod {number} is not bound");
            // Not without a pause: that would take one of a small machine's processors from the daemon.
            std::thread::sleep(PAUSE);
        }
    });
    added.collect()
}

fn resident(daemon: &Path, line: &str) -> u64 {
    let status = fs::read_to_string(daemon.join("status")).expect("the daemon runs");
    let words = status.lines().find_map(|it| it.strip_prefix(line)).expect("the line");
    words.split_whitespace().next().and_then(|it| it.parse::<u64>().ok()).expect("a number") << 10
}

/// Time that it has computed.
fn processor(daemon: &Path) -> Duration {
    let stat = fs::read_to_string(daemon.join("stat")).expect("the daemon runs");
    // Fields 14 and 15 of proc_pid_stat(5), behind a name that may hold anything but the last parenthesis.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().expect("a number")).sum();
    // `USER_HZ` is 100 on every architecture that this runs on.
    Duration::from_millis(ticks * 10)
}
