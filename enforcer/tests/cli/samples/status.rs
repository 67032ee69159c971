//! An agent's own state.

use enforcer::domain::SocketKind;
use enforcer::domain::canary::CanaryInfo;
use enforcer::domain::cluster_policy::{KindInfo, SourceInfo};
use enforcer::domain::command::{Confinement, Status, UnconfirmedInfo};
use enforcer::domain::unguarded::{Coverage, Openings};
use enforcer_common::hook::Hook;

use super::texts;

/// A kernel without the security module.
fn coverage() -> Coverage {
    Coverage::new(&Openings {
        absent: vec![(
            Hook::SocketCreate,
            "loading it is refused: Operation not permitted (os error 1)".into(),
        )],
        socket_kinds: vec![SocketKind::Tcp, SocketKind::Udp, SocketKind::Mptcp, SocketKind::Ping],
        ..Openings::default()
    })
}

fn coverage_hooks() -> Vec<String> {
    let attached = Hook::ALL.iter().filter(|hook| !hook.is_optional());
    attached.map(|hook| hook.program().to_owned()).collect()
}

pub(crate) fn status() -> Status {
    Status {
        version: "0.1.0".into(),
        state: "enforcing".into(),
        problems: Vec::new(),
        mode: "enforce".into(),
        generation: 7,
        policies: 3,
        unconfirmed: None,
        rolled_back: None,
        pending_peers: Vec::new(),
        canary: CanaryInfo {
            state: "refused".into(),
            message: "its calls were refused with EHOSTUNREACH".into(),
            generation: 7,
            last_success: Some("2026-11-22T12:53:39Z".into()),
        },
        entries: 24,
        identities: 5,
        endpoints: 3,
        endpoints_waiting: 0,
        quarantined: Vec::new(),
        kernel: "6.12.0".into(),
        cgroup_root: "/sys/fs/cgroup".into(),
        pins: "/sys/fs/bpf/enforcer".into(),
        confinement: Confinement {
            seccomp: true,
            no_new_privileges: true,
            capabilities: texts(&["CAP_BPF", "CAP_NET_ADMIN"]),
            problems: Vec::new(),
        },
        hooks: coverage_hooks(),
        absent_hooks: coverage().absent,
        notices: Vec::new(),
        runtimes: [("containerd".into(), "connected: /run/containerd/containerd.sock, 3 known".into())]
            .into(),
        unguarded: coverage().unguarded,
        uptime_seconds: 192,
        sources: Vec::new(),
    }
}

pub(crate) fn degraded() -> Status {
    Status {
        state: "degraded".into(),
        notices: texts(&["program somebody of another owner runs at hook connect4"]),
        unconfirmed: Some(UnconfirmedInfo {
            since: "2026-11-22T12:53:39Z".into(),
            until: "2026-11-22T12:54:39Z".into(),
            seconds_left: 42,
            by: Some(0),
        }),
        rolled_back: Some("the push of 2026-11-22T12:00:00Z was not confirmed".into()),
        pending_peers: texts(&["clusternetworkpolicy/web egress[0]: domainNames example.com"]),
        canary: CanaryInfo {
            state: "failed".into(),
            message: "connect4 was answered with ECONNREFUSED".into(),
            ..status().canary
        },
        problems: texts(&["the address map is full", "the static source can't be read"]),
        mode: "audit".into(),
        endpoints_waiting: 2,
        quarantined: texts(&["default/web", "shop/gone"]),
        hooks: Vec::new(),
        sources: vec![SourceInfo {
            name: "kubernetes".into(),
            state: "restored".into(),
            since: "2026-11-22T12:53:39Z".into(),
            known: "2026-11-22T12:50:00Z".into(),
            server: "https://192.0.2.1:6443".into(),
            kinds: vec![
                KindInfo { kind: "Pod".into(), objects: 12, state: "restored".into(), ..KindInfo::default() },
                KindInfo {
                    kind: "ClusterNetworkPolicy".into(),
                    state: "not-installed".into(),
                    ..KindInfo::default()
                },
            ],
            problems: texts(&["the API server https://192.0.2.1:6443 is away"]),
        }],
        ..status()
    }
}
