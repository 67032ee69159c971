//! A source that is away.

use enforcer::domain::cluster_policy::{KindInfo, SourceInfo};

pub(crate) fn source() -> SourceInfo {
    let kind = |kind: &str, objects: u64, state: &str| KindInfo {
        kind: kind.into(),
        objects,
        state: state.into(),
        since: "2026-11-22T12:53:39Z".into(),
    };
    SourceInfo {
        name: "kubernetes".into(),
        state: "restored".into(),
        since: "2026-11-22T12:53:39Z".into(),
        known: "2026-11-22T12:50:00Z".into(),
        server: "https://192.0.2.1:6443".into(),
        kinds: vec![kind("Pod", 12, "restored"), kind("ClusterNetworkPolicy", 0, "not-installed")],
        problems: vec!["the API server https://192.0.2.1:6443 is away".into()],
    }
}
