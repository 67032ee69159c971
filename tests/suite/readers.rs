//! Readers of flows that never read: they cost the daemon a bounded amount of memory and nobody anything else, and learn what
//! they lost when they read again.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use enforcer_tests::agent::{self, Agent};
use enforcer_tests::patience;
use enforcer_tests::workload::Workload;
use enforcer_tests::world::World;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::registry::Test;

pub(crate) const TESTS: &[Test] = &[("that_never_read", that_never_read)];

const DB: &str = "127.0.0.1:5432";
/// More flows than the daemon remembers and buffers hold. Each is one event: the client's end judges for both.
const CONNECTIONS: u64 = 10_000;
/// Readers of the socket, besides those of the command line.
const STUCK: usize = 20;
/// What the daemon may take for all of them, besides what it remembers for everybody.
const MEMORY: u64 = 24 << 20;
const POLICY: &str = "apiVersion: enforcer.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: other}\n\
                      spec: {subject: {matchLabels: {app: other}}, egress: []}\n";

/// Asks for the flows that happen from now on; the answer has begun when this returns.
fn follow(socket: &Path) -> UnixStream {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(patience::seconds(20))).unwrap();
    stream.write_all(b"GET /v1/flows?follow=true HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    stream
}

/// Flows and what was lost, of the answer so far.
#[derive(Debug, Default)]
struct Told {
    rest: Vec<u8>,
    flows: u64,
    lost: u64,
}

impl Told {
    /// Reads until there were so many, lost or not.
    fn read(&mut self, stream: &mut UnixStream, all: u64) {
        let mut bytes = vec![0; 1 << 16];
        while self.flows + self.lost < all {
            let count = stream.read(&mut bytes).expect("the rest comes");
            assert!(count > 0, "the daemon ended the stream: {} flows, {} lost", self.flows, self.lost);
            self.rest.extend_from_slice(&bytes[..count]);
            let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else { continue };
            for line in self.rest[..end].split(|byte| *byte == b'\n') {
                // Lines that are no records are HTTP's sizes of pieces.
                if let Some(lost) = line.strip_prefix(b"{\"lost_events\":") {
                    let digits = std::str::from_utf8(lost).unwrap().trim_end_matches('}');
                    self.lost += digits.parse::<u64>().unwrap();
                } else if line.starts_with(b"{") {
                    self.flows += 1;
                }
            }
            self.rest.drain(..=end);
        }
    }
}

/// `enforcer observe -f` whose output goes into a pipe that nobody reads.
fn observe(agent: &Agent) -> Child {
    let mut command = Command::new(agent::program());
    command.env_clear().arg("--config").arg(agent.config()).args(["observe", "-f", "-o", "json"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

fn resident(agent: &Agent) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10
}

/// Connections; all of them get through, and the daemon reads the events of some before there are more than the ring holds.
fn connect(agent: &Agent, web: &Workload, count: u64) {
    const SOME: u64 = 2_500;
    for begun in (0..count).step_by(usize::try_from(SOME).unwrap()) {
        let some = SOME.min(count - begun);
        assert_eq!(web.repeat(some, true, DB), [(0, some)].into());
        read(agent);
    }
}

/// Events that the daemon has read, once it has read all that the kernel told.
fn read(agent: &Agent) -> u64 {
    patience::until("the ring is read", patience::seconds(10), || {
        let metrics = agent.metrics();
        let read = metrics["enforcer_events_read_total"];
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        (read >= metrics[r#"enforcer_kernel_stats_total{stat="events_delivered"}"#]).then_some(read as u64)
    })
}

fn that_never_read() {
    let world = World::new("readers");
    let (web, db) = (world.workload("web"), world.workload("db"));
    db.serve(true, DB);
    let mut agent = Agent::new(&world);
    agent.workloads([&web, &db]);
    // The canary's events are read and are no flows.
    agent.configure(&[("attach", &world.relative(&world.guarded())), ("canary-interval", "none")]);
    agent.run();
    let mut command = observe(&agent);
    // It follows once it has begun to print. Nobody reads more than that.
    let (mut printed, mut first) = (command.stdout.take().unwrap(), [0]);
    fcntl(&printed, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    patience::until_true("the command follows", patience::seconds(20), || {
        connect(&agent, &web, 1);
        printed.read(&mut first).is_ok_and(|count| count == 1)
    });
    fcntl(&printed, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
    let earlier = read(&agent);
    let mut stuck: Vec<UnixStream> = (0..STUCK).map(|_| follow(&agent.socket())).collect();
    let mut reader = follow(&agent.socket());
    // What is remembered for everybody, and what one reader takes, is there before it is measured.
    connect(&agent, &web, CONNECTIONS / 8);
    let (before, mut told) = (read(&agent) - earlier, Told::default());
    told.read(&mut reader, before);
    let memory = resident(&agent);

    let counting = std::thread::spawn(move || {
        let mut told = told;
        told.read(&mut reader, before + CONNECTIONS);
        (told, reader)
    });
    connect(&agent, &web, CONNECTIONS);
    let all = read(&agent) - earlier;
    assert_eq!(
        (before, all),
        (CONNECTIONS / 8, before + CONNECTIONS),
        "an event of each connection, and nothing else"
    );
    let (told, _reader) = counting.join().unwrap();
    assert_eq!(told.flows + told.lost, all);
    let metrics = agent.metrics();
    assert!(
        (metrics[r#"enforcer_flows_total{verdict="FORWARDED",protocol="TCP",direction="egress"}"#]
            - f64::from(u32::try_from(earlier + all).unwrap()))
        .abs()
            < 0.5,
        "counting does not depend on readers"
    );
    assert!(metrics[r#"enforcer_lost_events_total{source="ring"}"#].abs() < 0.5, "the ring was read");
    let grown = resident(&agent).saturating_sub(memory);
    assert!(grown < MEMORY, "{grown} bytes for {STUCK} readers");

    // Changes and questions don't wait for them.
    let begin = Instant::now();
    agent.cli_with(&["policy", "apply", "-f", "-"], POLICY).expect_ok();
    assert_eq!(agent.status().state, "enforcing");
    assert!(begin.elapsed() < patience::seconds(10), "{:?}", begin.elapsed());

    // One reads again.
    let missed = || agent.metrics()[r#"enforcer_lost_events_total{source="reader"}"#];
    let known = missed();
    let (mut again, mut late) = (stuck.pop().unwrap(), Told::default());
    late.read(&mut again, all);
    assert_eq!(late.flows + late.lost, all, "what it got and what it is told it lost");
    assert!(late.lost > 0, "the test sends too little");
    let lost = f64::from(u32::try_from(late.lost).unwrap());
    assert!((missed() - known - lost).abs() < 0.5, "and that is counted");
    // From then on it is a reader like any other.
    connect(&agent, &web, 10);
    late.read(&mut again, all + 10);
    assert_eq!(late.flows + late.lost, all + 10);

    // The end does not wait for them either.
    let begin = Instant::now();
    assert_eq!(agent.terminate(), 0);
    assert!(begin.elapsed() < patience::seconds(15), "{:?}", begin.elapsed());
    // Read at last, the command shows what it had, and says that the daemon has ended.
    let mut output = String::from(char::from(first[0]));
    printed.read_to_string(&mut output).unwrap();
    assert!(output.lines().all(|line| line.starts_with('{')), "whole lines");
    assert!(output.contains("\"verdict\":\"FORWARDED\""));
    assert_eq!(command.wait().unwrap().code(), Some(2));
}
