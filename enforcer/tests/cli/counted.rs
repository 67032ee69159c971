//! What the agent of these tests has counted.

use enforcer::domain::edges::{Counts, Edge, Edges, Ends};

pub(crate) fn edges() -> Edges {
    let edge = |source: &str, port, protocol: &str, counts| Edge {
        ends: Ends {
            source: source.into(),
            destination: "default/db".into(),
            port,
            protocol: protocol.into(),
        },
        counts,
    };
    let busy = Counts {
        allowed: 10,
        opened: 10,
        closed: 7,
        bytes: 4_096,
        round_trip_microseconds: 1_400,
        ..Counts::default()
    };
    let refused = Counts { denied: 4, ..Counts::default() };
    Edges { edges: vec![edge("default/api", 5432, "TCP", busy), edge("reserved:world", 53, "UDP", refused)] }
}
