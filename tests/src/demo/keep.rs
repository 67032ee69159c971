//! `--keep`: everything stays, with some traffic to look at and commands to try.

use crate::agent;
use crate::puppet::Order;
use crate::sockaddr;

use super::screen::Screen;
use super::stage::{API, DB, Stage};

/// Nothing is left to run for ever.
const SECONDS: u64 = 3600;

/// Gives the workloads something to do and leaves the stage to itself.
pub(super) fn leave(mut stage: Stage, screen: &mut Screen) {
    let at = |address: &str| sockaddr::of(address.parse().expect("an address with a port"));
    for workload in [&stage.web, &stage.api, &stage.db] {
        workload.must(&Order::Stay { seconds: SECONDS });
    }
    stage.web.must(&Order::Visit { to: vec![at(API), at(DB)], rounds: SECONDS });
    stage.api.must(&Order::Visit { to: vec![at(DB)], rounds: SECONDS });
    screen.chapter("Still running for an hour: web calls api and db, api calls db, once a second");
    let enforcer = format!("{} --socket {}", agent::program().display(), stage.agent.socket().display());
    for (what, command) in [
        ("how it is", format!("{enforcer} status")),
        ("who is who, and which policies hold", format!("{enforcer} endpoint list")),
        ("refusals as they happen", format!("{enforcer} observe -f --verdict DROPPED")),
        (
            "allow nobody to call api any more, and see the difference",
            format!("{enforcer} policy delete api web"),
        ),
        ("the numbers", format!("nsenter -t {} -n curl -s 127.0.0.1:9962/metrics", stage.web.puppet.pid())),
        ("be web", be(&stage)),
        ("end it", "cargo xtask clean".to_owned()),
    ] {
        screen.command(what, &command);
    }
    stage.world.keep();
    // Nothing of it is dropped: the processes are nobody's to end but `clean`'s.
    std::mem::forget(stage);
}

/// A command that becomes part of `web` and calls the database.
fn be(stage: &Stage) -> String {
    let (pid, cgroup) = (stage.web.puppet.pid(), stage.web.cgroup.display());
    format!(
        "nsenter -t {pid} -n sh -c 'echo $$ > {cgroup}/cgroup.procs; exec bash -c \"< /dev/tcp/127.0.0.1/5432\"'"
    )
}
