//! What most faults happen to: a daemon, a server, a client that may and one that may not, and load by both.

use std::fs;
use std::net::SocketAddr;

use enforcer_tests::agent::{Agent, Metrics};
use enforcer_tests::hammer::{Hammer, Job, Score};
use enforcer_tests::workload::Workload;
use enforcer_tests::world::World;

use super::Figures;

/// What a refused call gets.
pub(super) const EPERM: i32 = 1;

/// Only `good` may reach `server`.
pub(super) const POLICY: &str = "\
apiVersion: enforcer.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: server}
spec:
  subject: {matchLabels: {app: server}}
  ingress:
    - from: [{workloads: {matchLabels: {app: good}}}]
";

/// Where the server is, by what is done there. Those who may not have ports of their own: what arrives there is a leak.
const CONNECT: &str = "127.0.0.1:7001";
const PING: &str = "127.0.0.1:7002";
const ECHO: &str = "127.0.0.1:7003";
const FORBIDDEN_CONNECT: &str = "127.0.0.1:7011";
const FORBIDDEN_SEND: &str = "127.0.0.1:7012";
/// A server for single questions, there as long as the stage is.
pub(super) const PROBE: &str = "127.0.0.1:7020";

/// The stage. Fields are dropped in this order: the daemon first, the world last.
pub(super) struct Stage {
    pub(super) agent: Agent,
    pub(super) good: Workload,
    pub(super) bad: Workload,
    pub(super) server: Workload,
    pub(super) world: World,
}

impl Stage {
    /// Everything but a running daemon.
    pub(super) fn set(name: &str) -> Self {
        let world = World::new(name);
        let (good, bad, server) = (world.workload("good"), world.workload("bad"), world.workload("server"));
        let agent = Agent::new(&world);
        agent.workloads([&good, &bad, &server]);
        fs::write(agent.policies().join("server.yaml"), POLICY).unwrap();
        server.serve(true, PROBE);
        Self { agent, good, bad, server, world }
    }

    /// The same with a daemon that enforces.
    pub(super) fn enforcing(name: &str) -> Self {
        let mut stage = Self::set(name);
        stage.agent.run();
        stage.check();
        stage
    }

    /// What is true as long as the policy is enforced.
    #[track_caller]
    pub(super) fn check(&self) {
        assert_eq!(self.bad.connect(PROBE).errno, EPERM, "bad -> server");
        assert_eq!(self.good.connect(PROBE).errno, 0, "good -> server");
    }

    /// Starts the load: four kinds of flows that may be, two that may not, from several processes.
    pub(super) fn load(&self) -> Load {
        let at = |text: &str| -> SocketAddr { text.parse().unwrap() };
        let start = |who: &Workload, jobs: &[Job]| Hammer::start(&who.cgroup, self.world.namespace(), jobs);
        let server = start(
            &self.server,
            &[
                Job::Accept(at(FORBIDDEN_CONNECT)),
                Job::Receive(at(FORBIDDEN_SEND)),
                Job::Accept(at(CONNECT)),
                Job::Answer(at(PING)),
                Job::Receive(at(ECHO)),
            ],
        );
        let good = vec![
            start(&self.good, &[Job::Connect(at(CONNECT))]),
            start(&self.good, &[Job::PingPong(at(PING)), Job::Echo(at(ECHO))]),
        ];
        let bad = vec![
            start(&self.bad, &[Job::Connect(at(FORBIDDEN_CONNECT))]),
            start(&self.bad, &[Job::Send(at(FORBIDDEN_SEND)), Job::PingPong(at(FORBIDDEN_CONNECT))]),
        ];
        Load { server, good, bad }
    }

    /// How many verdicts there are with all of these labels.
    pub(super) fn verdicts(metrics: &Metrics, marks: &[&str]) -> u64 {
        Self::sum(metrics, "enforcer_policy_verdicts_total", marks)
    }

    /// The sum of a metric's series with all of these labels.
    pub(super) fn sum(metrics: &Metrics, metric: &str, marks: &[&str]) -> u64 {
        let rows = metrics.iter().filter(|(name, _)| name.starts_with(metric));
        let sum: f64 = rows
            .filter(|(name, _)| marks.iter().all(|mark| name.contains(mark)))
            .map(|(_, value)| value)
            .sum();
        whole(sum)
    }
}

/// The load that is on.
pub(super) struct Load {
    server: Hammer,
    good: Vec<Hammer>,
    bad: Vec<Hammer>,
}

/// What came of the load.
pub(super) struct Outcome {
    /// What arrived, or succeeded, and must not.
    pub(super) leaks: u64,
    /// What failed, stayed without an answer or got a wrong one, and must not.
    pub(super) broken: u64,
    /// Allowed connections; answers on kept flows are not among them.
    pub(super) connections: u64,
    /// Answers on the two kept flows.
    pub(super) answers: u64,
    /// Refused calls.
    pub(super) refused: u64,
    /// The longest time without an answer on a kept flow, in milliseconds.
    pub(super) longest_pause: u64,
    /// The odd ones, for people.
    pub(super) odd: String,
}

impl Load {
    /// Ends it: clients first.
    pub(super) fn rest(self) -> Outcome {
        let rest =
            |hammers: Vec<Hammer>| -> Vec<Score> { hammers.into_iter().flat_map(Hammer::rest).collect() };
        let good = rest(self.good);
        let bad = rest(self.bad);
        let server = self.server.rest();
        let sum = |scores: &[Score], of: fn(&Score) -> u64| scores.iter().map(of).sum::<u64>();
        let arrived = sum(&server[..2], Score::good);
        let kept = &good[1..];
        Outcome {
            leaks: sum(&bad, Score::good) + arrived,
            broken: sum(&good, Score::bad) + bad.iter().map(|score| score.other_than(EPERM)).sum::<u64>(),
            connections: good[0].good(),
            answers: sum(kept, Score::good),
            refused: sum(&bad, Score::bad),
            longest_pause: kept.iter().map(|score| score.longest_pause).max().unwrap_or_default() / 1000,
            odd: format!("good {good:?} bad {bad:?} server {server:?}"),
        }
    }
}

impl Outcome {
    /// The figures that every kind of load has.
    pub(super) fn figures(&self, figures: &mut Figures) {
        if self.leaks + self.broken > 0 {
            println!("{}", self.odd);
        }
        figures.exactly("leaks", self.leaks, 0);
        figures.exactly("broken", self.broken, 0);
        figures.at_least("allowed", self.connections, 1);
        figures.at_least("answers", self.answers, 1);
        figures.at_least("refused", self.refused, 1);
        figures.note("longest-pause-ms", self.longest_pause);
    }
}

/// A count that came as a floating-point number.
#[track_caller]
pub(super) fn whole(value: f64) -> u64 {
    assert!(value >= 0.0 && value.fract() == 0.0, "{value} is no count");
    // A sum of nothing is -0.
    format!("{}", value.abs()).parse().unwrap()
}
