//! Flows of the nodes of a cluster, as one story: what is remembered in the order of time.
//!
//! Bounded: of each node some lines wait here, some in its connection; what is more waits on the node, where the agent counts
//! what a slow reader has lost.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use super::follow::follow;
use super::{Printer, Wish};
use crate::api::LostEvents;
use crate::api::client::Record;
use crate::cli::Answer;
use crate::cli::across::{Across, Missing, PATIENCE, Roll, silent, why};
use crate::cli::args::cluster::Way;
use crate::cli::context::{Context, block_on};
use crate::cli::render::Screen;
use crate::cluster::agents::Agent;
use crate::domain::flow::Flow;
use crate::domain::hubble;
use crate::domain::timestamp::Timestamp;

/// Records of a node that wait to be taken.
pub(super) const QUEUE: usize = 16;

/// What comes of a node. The last of it is `Ended`.
pub(super) enum News {
    Record(Record),
    /// What its command said besides, of which it did not end.
    Said(String),
    /// Its answer is complete, or why it is not.
    Ended(Result<(), Missing>),
}

/// `observe --cluster`
pub(super) fn observe(context: &mut Context, wish: &Wish, to: &Way) -> anyhow::Result<Answer> {
    block_on(async {
        let across = Across::open(context, to).await?;
        let chosen = across.chosen(|node| wish.filter.takes_node(node)).await?;
        let screen = &mut context.screen;
        let printer = Printer::new(wish, true);
        if wish.follow {
            return follow(screen, printer, wish, &across, chosen).await;
        }
        let command = across.command(words(wish, None));
        let mut roll = Roll::default();
        remembered(screen, printer, wish, &across, chosen, &command, &mut roll).await?;
        roll.close(screen)
    })
}

/// The command that a node executes: the same question, for JSON; or all of it from a time on. Nodes are chosen here.
pub(super) fn words(wish: &Wish, from: Option<Timestamp>) -> Vec<String> {
    let mut words: Vec<String> = ["observe", "--output=json", "--until-stdin-ends"].map(str::to_owned).into();
    words.extend(wish.follow.then(|| "--follow".to_owned()));
    words.push(match (from, wish.first, wish.last) {
        (None, Some(first), _) => format!("--first={first}"),
        (Some(_), ..) | (None, None, usize::MAX) => "--all".to_owned(),
        (None, None, last) => format!("--last={last}"),
    });
    let mut filter = wish.filter.on_any_node();
    if let Some(from) = from {
        filter.since(from);
    }
    words.extend(filter.flags());
    words
}

/// What a node tells, until it ends or nobody listens.
pub(super) async fn tell(
    across: Across,
    agent: Agent,
    command: Vec<String>,
    patience: Option<Duration>,
    news: mpsc::Sender<(usize, News)>,
    place: usize,
) {
    let ended = async {
        let mut running = across.run(&agent, &command).await.map_err(Missing::from)?;
        loop {
            let line = match patience {
                Some(patience) => timeout(patience, running.line()).await.unwrap_or_else(|_| Err(silent())),
                None => running.line().await,
            };
            let Some(line) = line.map_err(Missing::Other)? else { break };
            let record = record(&line, &agent.node)?;
            if news.send((place, News::Record(record))).await.is_err() {
                return Ok(());
            }
        }
        let end = running.end().await;
        // A stream that should go on ends with an error of its own.
        if end.code != Ok(0) || patience.is_none() {
            return Err(why(&end));
        }
        if !end.talk.is_empty() {
            drop(news.send((place, News::Said(end.talk))).await);
        }
        Ok(())
    };
    let ended = ended.await;
    drop(news.send((place, News::Ended(ended))).await);
}

/// A line as `observe -o json` prints it. The node is called what the API server calls it.
fn record(line: &str, node: &str) -> Result<Record, Missing> {
    if let Ok(LostEvents { lost_events }) = serde_json::from_str(line) {
        return Ok(Record::Lost(lost_events));
    }
    let line: hubble::Line = serde_json::from_str(line)
        .map_err(|error| Missing::Other(format!("a line of its answer is no flow ({error})")))?;
    let mut flow = Flow::from(line);
    node.clone_into(&mut flow.node_name);
    Ok(Record::Flow(Box::new(flow)))
}

/// What the nodes remember, in the order of time.
async fn remembered(
    screen: &mut Screen,
    mut printer: Printer,
    wish: &Wish,
    across: &Across,
    chosen: Vec<Agent>,
    command: &[String],
    roll: &mut Roll,
) -> anyhow::Result<()> {
    let mut nodes = Vec::new();
    for (place, agent) in chosen.into_iter().enumerate() {
        let (sender, news) = mpsc::channel(QUEUE);
        nodes.push((agent.node.clone(), news));
        tokio::spawn(tell(across.clone(), agent, command.to_vec(), Some(PATIENCE), sender, place));
    }
    let mut heads = Heads::default();
    for (place, (node, news)) in nodes.iter_mut().enumerate() {
        heads.fill(place, next(screen, &mut printer, roll, node, news).await?);
    }
    let mut rest = wish.first.unwrap_or(usize::MAX);
    let mut last = VecDeque::new();
    while let Some((place, flow)) = heads.pop() {
        let Some((node, news)) = nodes.get_mut(place) else { break };
        let record = Record::Flow(Box::new(flow));
        if wish.first.is_none() && wish.last != usize::MAX {
            // Which are the last of all is known at the end.
            last.push_back(record);
            if last.len() > wish.last {
                last.pop_front();
            }
        } else if rest > 0 {
            rest -= 1;
            printer.print(screen, &record, node)?;
        }
        heads.fill(place, next(screen, &mut printer, roll, node, news).await?);
    }
    for record in last {
        printer.print(screen, &record, "")?;
    }
    Ok(())
}

/// The next flow of a node; nothing when it has told all.
async fn next(
    screen: &mut Screen,
    printer: &mut Printer,
    roll: &mut Roll,
    node: &str,
    news: &mut mpsc::Receiver<(usize, News)>,
) -> anyhow::Result<Option<Flow>> {
    loop {
        match news.recv().await {
            Some((_, News::Record(Record::Flow(flow)))) => return Ok(Some(*flow)),
            Some((_, News::Record(lost @ Record::Lost(_)))) => printer.print(screen, &lost, node)?,
            Some((_, News::Said(talk))) => screen.note(&format!("{node} says: {talk}")),
            Some((_, News::Ended(Ok(())))) => roll.answered(),
            Some((_, News::Ended(Err(missing)))) => roll.missing(screen, node, &missing),
            None => return Ok(None),
        }
    }
}

/// The oldest flow that each node has left.
#[derive(Default)]
struct Heads {
    order: BinaryHeap<Reverse<(Timestamp, usize)>>,
    flows: Vec<Option<Flow>>,
}

impl Heads {
    /// Takes a node's next flow.
    fn fill(&mut self, place: usize, flow: Option<Flow>) {
        let Some(flow) = flow else { return };
        // What has no readable time is no reason to wait.
        let time = Timestamp::parse(&flow.time).unwrap_or(Timestamp::EARLIEST);
        if self.flows.len() <= place {
            self.flows.resize_with(place + 1, || None);
        }
        self.flows[place] = Some(flow);
        self.order.push(Reverse((time, place)));
    }

    /// The oldest of all, and whose it is; of two with one time that of the first node.
    fn pop(&mut self) -> Option<(usize, Flow)> {
        let Reverse((_, place)) = self.order.pop()?;
        let flow = self.flows.get_mut(place)?.take()?;
        Some((place, flow))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::args::{Cli, Command};

    fn words_of(arguments: &[&str]) -> Vec<String> {
        let cli = Cli::try_parse_from(["enforcer", "observe"].iter().chain(arguments)).unwrap();
        let Command::Observe(observe) = cli.command else { panic!("not observe") };
        words(&Wish::new(*observe, Timestamp { seconds: 10_000, nanos: 0 }).unwrap(), None)
    }

    /// A node understands what it is asked, and takes it for the same question.
    #[test]
    fn a_node_is_asked_the_same() {
        for arguments in [
            &[][..],
            &["-f"],
            &["-f", "--last", "3", "--verdict", "dropped,AUDIT"],
            &["--first", "7", "-n", "shop", "-4", "-l", "a=b,c=d"],
            &["--since", "5m", "--not", "--to", "db", "--from-ip", "2001:db8::/32"],
            &["--all", "--port", "80", "--process=-x"],
        ] {
            let words = words_of(arguments);
            let asked: Vec<&str> = words.iter().skip(1).map(String::as_str).collect();
            assert_eq!(words_of(&asked), words, "{arguments:?}");
        }
        let words = words_of(&["--node-name", "n1,n2", "--not", "--node-name", "n2"]);
        assert_eq!(words, ["observe", "--output=json", "--until-stdin-ends", "--last=20"]);
    }

    fn flow(time: &str) -> Flow {
        let line = format!(r#"{{"flow": {{"time": "{time}"}}, "node_name": "itself"}}"#);
        match record(&line, "n1") {
            Ok(Record::Flow(flow)) => *flow,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_oldest_flow_is_next() {
        let mut nodes = [
            VecDeque::from(["2026-11-22T12:00:01Z", "2026-11-22T12:00:04Z"]),
            VecDeque::from(["2026-11-22T12:00:02+01:00", "2026-11-22T12:00:03Z", "2026-11-22T12:00:03Z"]),
            VecDeque::new(),
        ];
        let mut heads = Heads::default();
        for (place, node) in nodes.iter_mut().enumerate() {
            heads.fill(place, node.pop_front().map(flow));
        }
        let mut order = Vec::new();
        while let Some((place, flow)) = heads.pop() {
            assert_eq!(flow.node_name, "n1");
            order.push((place, flow.time));
            heads.fill(place, nodes[place].pop_front().map(self::flow));
        }
        let order: Vec<(usize, &str)> = order.iter().map(|(place, time)| (*place, &time[11..])).collect();
        let expected =
            [(1, "12:00:02+01:00"), (0, "12:00:01Z"), (1, "12:00:03Z"), (1, "12:00:03Z"), (0, "12:00:04Z")];
        assert_eq!(order, expected);
    }

    #[test]
    fn what_is_no_flow_is_told() {
        assert!(matches!(record(r#"{"lost_events": 3}"#, "n1"), Ok(Record::Lost(3))));
        assert!(
            matches!(record("Segmentation fault", "n1"), Err(Missing::Other(why)) if why.contains("no flow"))
        );
    }
}
