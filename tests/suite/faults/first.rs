//! A process in a new directory of the managed tree opens a flow with its first instruction, before anybody can have
//! told the kernel who it is.

use std::fs;

use enforcer_tests::agent::Agent;
use enforcer_tests::first::{Start, Stub};
use enforcer_tests::patience;
use enforcer_tests::world::World;

use super::stage::{EPERM, Stage};
use super::{Figures, sized};

/// Directories of workloads; they are removed and made again, with new numbers.
const PLACES: u64 = 25;

/// Anybody who has a label may, nobody else.
const POLICY: &str = "\
apiVersion: enforcer.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: server}
spec:
  subject: {matchLabels: {app: server}}
  ingress:
    - from: [{workloads: {matchLabels: {app: known}}}]
";
const STREAM: &str = "127.0.0.1:7001";
const DATAGRAM: &str = "127.0.0.1:7002";
/// Where those go that are no workload's.
const STRANGE_STREAM: &str = "127.0.0.1:7003";
const STRANGE_DATAGRAM: &str = "127.0.0.1:7004";

pub(super) fn first_instruction() {
    let mut figures = Figures::new("first-instruction");
    let world = World::new("first");
    let server = world.workload("server");
    let mut agent = Agent::new(&world);
    let managed = world.directory("managed");
    let name = world.relative(&managed);
    agent.configure(&[("attach", &world.relative(&world.guarded())), ("managed", &format!("[{name}]"))]);
    let mut items: Vec<String> = (0..PLACES)
        .map(|at| format!("{{name: w{at}, labels: {{app: known}}, cgroup: {name}/w{at}}}"))
        .collect();
    items.push(format!(
        "{{name: server, labels: {{app: server}}, cgroup: {}}}",
        world.relative(&server.cgroup)
    ));
    fs::write(world.folder().join("workloads.yaml"), format!("workloads: [{}]\n", items.join(",\n")))
        .unwrap();
    fs::write(agent.policies().join("server.yaml"), POLICY).unwrap();
    agent.run();
    let streams = server.serve(true, STREAM);
    let datagrams = server.serve(false, DATAGRAM);
    let strange = [server.serve(true, STRANGE_STREAM), server.serve(false, STRANGE_DATAGRAM)];
    let mut stub = Stub::start(&world.agents(), world.namespace());
    let mut tries = Tries::default();
    let count = sized(300, 10_000);
    for number in 0..count {
        let stream = number % 2 == 0;
        let known = managed.join(format!("w{}", number % PLACES));
        tries.known(&mut stub, &known, stream);
        let strange = managed.join(format!("strange{number}"));
        tries.strange(&mut stub, &strange, stream);
        for directory in [known, strange] {
            fs::remove_dir(&directory).unwrap();
        }
    }
    server.until_served(&datagrams, tries.datagrams);
    // Whoever accepts may be behind on a busy machine. One that never comes shows in the figure.
    let deadline = std::time::Instant::now() + patience::seconds(5);
    while server.served(&streams) < tries.streams && std::time::Instant::now() < deadline {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let served = server.served(&streams);
    figures.note("starts", 2 * count);
    figures.exactly(
        "leaks",
        strange.iter().map(|it| server.served(it)).sum::<u64>() + tries.strange_let_in,
        0,
    );
    figures.exactly("other-errnos", tries.odd, 0);
    figures.exactly("not-bound-in-time", tries.late, 0);
    figures.exactly("arrived", served, tries.streams);
    figures.at_least("refused-before-bound", tries.early, 1);
    // What was let in was let in as a workload, never as the host or as nobody.
    let metrics = agent.metrics();
    let forwarded = |mark: &str| {
        Stage::verdicts(
            &metrics,
            &[r#"action="forwarded""#, r#"direction="egress""#, r#"destination="server""#, mark],
        )
    };
    figures.exactly("let-in-as-known", forwarded(r#"source="known""#), tries.streams + tries.datagrams);
    figures.exactly("let-in-as-another", forwarded("") - forwarded(r#"source="known""#), 0);
    // What is left to send of a connection whose directory is gone is nobody's too.
    let unmanaged = Stage::sum(&metrics, "enforcer_drop_total", &[r#"reason="UNMANAGED""#]);
    figures.at_least("refused-as-unmanaged", unmanaged, tries.early + count);
    let told = agent.cli(&["observe", "--last", "1", "--verdict", "DROPPED", "--to", "server", "-o", "json"]);
    figures.exactly("named", u64::from(told.expect_ok().contains("UNMANAGED")), 1);
    figures.finish();
}

/// What came of all starts.
#[derive(Default)]
struct Tries {
    /// Connections and datagrams that were let in.
    streams: u64,
    datagrams: u64,
    /// Refused although it is a workload's directory: not bound yet.
    early: u64,
    late: u64,
    odd: u64,
    strange_let_in: u64,
}

impl Tries {
    /// Starts until one is let in.
    fn known(&mut self, stub: &mut Stub, directory: &std::path::Path, stream: bool) {
        let to = if stream { STREAM } else { DATAGRAM };
        let start = Start { directory: directory.to_owned(), to: to.parse().unwrap(), stream };
        let deadline = std::time::Instant::now() + patience::seconds(5);
        loop {
            match stub.go(&start) {
                0 => break,
                EPERM => self.early += 1,
                _ => self.odd += 1,
            }
            if std::time::Instant::now() > deadline {
                self.late += 1;
                return;
            }
        }
        *(if stream { &mut self.streams } else { &mut self.datagrams }) += 1;
    }

    /// One start in a directory that no workload has.
    fn strange(&mut self, stub: &mut Stub, directory: &std::path::Path, stream: bool) {
        let to = if stream { STRANGE_STREAM } else { STRANGE_DATAGRAM };
        match stub.go(&Start { directory: directory.to_owned(), to: to.parse().unwrap(), stream }) {
            0 => self.strange_let_in += 1,
            EPERM => {}
            _ => self.odd += 1,
        }
    }
}
