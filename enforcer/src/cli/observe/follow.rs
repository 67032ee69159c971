//! Following the nodes of a cluster: whoever joins is followed too, and whoever was lost is asked again.
//!
//! A node that is asked again is asked from its last flow on, so that nothing is missing that its agent remembers.

use std::time::Duration;

use anyhow::bail;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::nodes::{News, QUEUE, tell, words};
use super::{Printer, Wish};
use crate::api::client::Record;
use crate::cli::Answer;
use crate::cli::across::{Across, Missing, Roll};
use crate::cli::render::Screen;
use crate::cluster::agents::Agent;
use crate::domain::flow_filter::FlowFilter;
use crate::domain::timestamp::Timestamp;

/// How often is looked who there is. The first pause before a lost node is asked again, too.
const LOOK: Duration = Duration::from_secs(5);
/// Longest pause before a lost node is asked again.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// A node that is or was followed.
struct Node {
    name: String,
    /// The agent's pod when it was asked last.
    pod: String,
    /// Since when it is asked; nothing while it is not.
    asked: Option<Instant>,
    /// Whether it ever was followed.
    answered: bool,
    /// When it may be asked again, and how long is waited the next time.
    again: Instant,
    pause: Duration,
    last: Last,
}

/// The latest time of a node's flows, and how many flows of this time were shown.
#[derive(Debug, Default, PartialEq, Eq)]
struct Last {
    time: Option<Timestamp>,
    shown: usize,
    /// How many of these come once more, because it was asked again.
    known: usize,
}

impl Last {
    /// It is asked again, from that time on. What has the time comes once more, if the agent still has it.
    fn asked_again(&mut self) {
        self.known = self.shown;
    }

    /// Whether a flow of this time is new.
    fn is_new(&mut self, time: Option<Timestamp>) -> bool {
        if time.is_some() && time == self.time && self.known > 0 {
            self.known -= 1;
            return false;
        }
        match time.cmp(&self.time) {
            // What was under way on another processor may come later than what happened after it.
            std::cmp::Ordering::Less => {}
            std::cmp::Ordering::Equal => self.shown += 1,
            std::cmp::Ordering::Greater => *self = Self { time, shown: 1, known: 0 },
        }
        true
    }
}

/// Shows what happens on nodes as it comes, until nobody listens.
///
/// # Errors
/// If none of the nodes could be followed when it began: then nothing is to be expected of waiting.
pub(super) async fn follow(
    screen: &mut Screen,
    mut printer: Printer,
    wish: &Wish,
    across: &Across,
    chosen: Vec<Agent>,
) -> anyhow::Result<Answer> {
    // One queue for all: whoever has much to tell waits for its turn like the others.
    let (sender, mut news) = mpsc::channel(QUEUE);
    let (seen, mut looks) = mpsc::channel(1);
    tokio::spawn(look(across.clone(), wish.filter.clone(), seen));
    let mut followed = Followed { nodes: Vec::new(), roll: Roll::default(), unseen: false };
    followed.ask(wish, across, &sender, chosen);
    loop {
        tokio::select! {
            Some((place, news)) = news.recv() => followed.hear(screen, &mut printer, place, news)?,
            Some(agents) = looks.recv() => match agents {
                Ok(agents) => {
                    followed.unseen = false;
                    followed.ask(wish, across, &sender, agents);
                }
                Err(error) if !followed.unseen => {
                    followed.unseen = true;
                    screen.error(&format!("new nodes are not seen: {error:#}"));
                }
                Err(_) => {}
            },
        }
        if followed.nodes.iter().all(|node| node.asked.is_none() && !node.answered) {
            bail!("nothing is left to follow: no node tells anything");
        }
    }
}

/// Looks again and again who there is.
async fn look(across: Across, filter: FlowFilter, seen: mpsc::Sender<anyhow::Result<Vec<Agent>>>) {
    loop {
        sleep(LOOK).await;
        let agents = across.chosen(|node| filter.takes_node(node)).await;
        if seen.send(agents).await.is_err() {
            return;
        }
    }
}

struct Followed {
    nodes: Vec<Node>,
    roll: Roll,
    /// Whether it was told that the last look failed.
    unseen: bool,
}

impl Followed {
    /// Asks the nodes of these agents that nobody asks yet.
    fn ask(
        &mut self,
        wish: &Wish,
        across: &Across,
        sender: &mpsc::Sender<(usize, News)>,
        agents: Vec<Agent>,
    ) {
        let now = Instant::now();
        for agent in agents {
            let place = self.nodes.iter().position(|node| node.name == agent.node).unwrap_or_else(|| {
                self.nodes.push(Node::new(&agent, now));
                self.nodes.len() - 1
            });
            let Some(node) = self.nodes.get_mut(place) else { continue };
            let is_other = node.pod != agent.pod;
            // What kept a pod from telling need not keep its successor.
            if node.asked.is_some() || node.again > now && !is_other {
                continue;
            }
            if is_other {
                node.pod.clone_from(&agent.pod);
                node.pause = LOOK;
            }
            node.asked = Some(now);
            node.last.asked_again();
            let command = across.command(words(wish, node.last.time));
            tokio::spawn(tell(across.clone(), agent, command, None, sender.clone(), place));
        }
    }

    /// Shows what came of a node.
    fn hear(
        &mut self,
        screen: &mut Screen,
        printer: &mut Printer,
        place: usize,
        news: News,
    ) -> anyhow::Result<()> {
        let Some(node) = self.nodes.get_mut(place) else { return Ok(()) };
        match news {
            News::Record(record) => {
                node.answered = true;
                node.pause = LOOK;
                if self.roll.tells_again(&node.name) {
                    screen.note(&format!("{} tells again", node.name));
                }
                let is_new = match &record {
                    Record::Flow(flow) => node.last.is_new(Timestamp::parse(&flow.time)),
                    Record::Lost(_) => true,
                };
                if is_new {
                    printer.print(screen, &record, &node.name)?;
                }
            }
            News::Said(talk) => screen.note(&format!("{} says: {talk}", node.name)),
            News::Ended(ended) => {
                // Who has no agent says so at once.
                node.answered |= node.asked.take().is_some_and(|asked| asked.elapsed() >= LOOK);
                node.again = Instant::now() + node.pause;
                node.pause = (node.pause * 2).min(LONGEST_PAUSE);
                let missing = ended.err().unwrap_or_else(|| Missing::Other("it ended".to_owned()));
                self.roll.missing(screen, &node.name, &missing);
            }
        }
        Ok(())
    }
}

impl Node {
    fn new(agent: &Agent, now: Instant) -> Self {
        let Agent { node, pod, .. } = agent;
        Self {
            name: node.clone(),
            pod: pod.clone(),
            asked: None,
            answered: false,
            again: now,
            pause: LOOK,
            last: Last::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanos: u32) -> Option<Timestamp> {
        Some(Timestamp { seconds: 1, nanos })
    }

    #[test]
    fn what_comes_once_more_is_shown_once() {
        let mut last = Last::default();
        let mut shown = |again: bool, times: &[u32]| {
            if again {
                last.asked_again();
            }
            times.iter().filter(|time| last.is_new(at(**time))).count()
        };
        assert_eq!(shown(false, &[1, 2, 2]), 3);
        // The agent still has them, and a third of the same moment.
        assert_eq!(shown(true, &[2, 2, 2, 3]), 2);
        // It began anew and remembers nothing.
        assert_eq!(shown(true, &[4]), 1);
        // What is late is shown, and does not move the time back.
        assert_eq!(shown(false, &[3]), 1);
        assert_eq!(shown(true, &[4, 5]), 1);
        assert_eq!(last, Last { time: at(5), shown: 1, known: 0 });
    }

    #[test]
    fn what_has_no_time_is_shown() {
        let mut last = Last::default();
        assert!(last.is_new(None) && last.is_new(None));
        last.asked_again();
        assert!(last.is_new(None) && last.is_new(at(1)) && last.is_new(None));
    }
}
