//! `enforcer observe`

mod follow;
mod nodes;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context as _, bail};

use super::Answer;
use super::args::cluster::ToCluster;
use super::args::{FlowFormat, Observe};
use super::context::{Context, block_on, now};
use super::render::{Screen, flow as render, quote};
use crate::api::client::{Client, Record};
use crate::domain::flow::Flow;
use crate::domain::flow_filter::FlowFilter;
use crate::domain::hubble;
use crate::domain::timestamp::Timestamp;

/// As `hubble observe` does.
const DEFAULT_LAST: usize = 20;

pub(super) fn observe(context: &mut Context, arguments: Observe) -> anyhow::Result<Answer> {
    let file = arguments.input_file.clone();
    let to = Some(arguments.to.clone()).filter(ToCluster::is_meant);
    let leaves = arguments.until_stdin_ends;
    let wish = Wish::new(arguments, now())?;
    if let Some(to) = to {
        return nodes::observe(context, &wish, &to.way);
    }
    let client = context.client();
    let screen = &mut context.screen;
    let mut printer = Printer::new(&wish, wish.node_name);
    if let Some(path) = file {
        for flow in recorded(&path, &wish)? {
            printer.print(screen, &Record::Flow(Box::new(flow)), "")?;
        }
        return Ok(Answer::Yes);
    }
    block_on(async {
        let shown = show(screen, &client, &wish, printer);
        if !leaves {
            return shown.await;
        }
        tokio::select! {
            shown = shown => shown,
            () = stdin_ends() => Ok(Answer::Yes),
        }
    })
}

/// Shows what the agent of this host tells.
async fn show(
    screen: &mut Screen,
    client: &Client,
    wish: &Wish,
    mut printer: Printer,
) -> anyhow::Result<Answer> {
    let mut flows = client.flows(wish.last, wish.follow, &wish.filter).await?;
    let mut rest = wish.first.unwrap_or(usize::MAX);
    while let Some(record) = flows.next().await? {
        if rest == 0 {
            return Ok(Answer::Yes);
        }
        rest -= 1;
        // The server filters too; an older one may know fewer conditions, and would refuse those, not ignore them.
        printer.print(screen, &record, "")?;
    }
    if wish.follow {
        bail!(
            "the agent on {} ended the stream: it was stopped; see `enforcer status`",
            client.socket().display()
        );
    }
    Ok(Answer::Yes)
}

/// Returns when standard input ends: the other end of the connection is gone.
async fn stdin_ends() {
    let (ended, end) = tokio::sync::oneshot::channel();
    // A thread of its own, which ends with the process: nobody can wait for standard input otherwise.
    std::thread::spawn(move || {
        drop(std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink()));
        ended.send(()).ok();
    });
    drop(end.await);
}

/// The wanted flows of a file of JSON lines, as `observe -o json` writes them, or Hubble.
fn recorded(path: &Path, wish: &Wish) -> anyhow::Result<Vec<Flow>> {
    let shown = if path == Path::new("-") { "stdin".to_owned() } else { path.display().to_string() };
    let reader: Box<dyn BufRead> = if path == Path::new("-") {
        Box::new(std::io::stdin().lock())
    } else {
        let file = File::open(path).with_context(|| format!("open {shown}"))?;
        Box::new(BufReader::new(file))
    };
    let mut flows = VecDeque::new();
    for (number, line) in (1_u64..).zip(reader.lines()) {
        let line = line.with_context(|| format!("read {shown}, line {number}"))?;
        let is_other = |line: &str| line.trim().is_empty() || line.starts_with("{\"lost_events\"");
        if is_other(&line) {
            continue;
        }
        let record: hubble::Line = serde_json::from_str(&line).with_context(|| {
            format!("{shown}, line {number} is no flow; a file is expected as `enforcer observe -o json` writes it")
        })?;
        let flow = Flow::from(record);
        if !wish.filter.matches(&flow) {
            continue;
        }
        if flows.len() == wish.first.unwrap_or(usize::MAX) {
            break;
        }
        if flows.len() == wish.last {
            flows.pop_front();
        }
        if wish.last > 0 {
            flows.push_back(flow);
        }
    }
    Ok(flows.into())
}

#[derive(Debug, PartialEq)]
struct Wish {
    last: usize,
    first: Option<usize>,
    follow: bool,
    format: FlowFormat,
    node_name: bool,
    filter: FlowFilter,
}

impl Wish {
    fn new(arguments: Observe, now: Timestamp) -> anyhow::Result<Self> {
        let Observe {
            follow,
            last,
            first,
            all,
            since,
            until,
            input_file,
            output,
            print_node_name,
            filters,
            ..
        } = arguments;
        let mut filter = filters.0;
        if let Some(since) = &since {
            filter.since(moment("--since", since, now)?);
        }
        if let Some(until) = &until {
            filter.until(moment("--until", until, now)?);
        }
        let is_everything =
            all || first.is_some() || since.is_some() || until.is_some() || input_file.is_some();
        let last = last.unwrap_or(match (is_everything, follow) {
            (true, _) => usize::MAX,
            (false, true) => 0,
            (false, false) => DEFAULT_LAST,
        });
        Ok(Self { last, first, follow, format: output, node_name: print_node_name, filter })
    }
}

/// A time, or a duration before `now`.
pub(super) fn moment(flag: &str, text: &str, now: Timestamp) -> anyhow::Result<Timestamp> {
    if let Some(moment) = Timestamp::parse(text) {
        return Ok(moment);
    }
    let seconds = text.split_at_checked(text.len().saturating_sub(1)).and_then(|(number, unit)| {
        let unit = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86_400,
            _ => return None,
        };
        i64::from(number.parse::<u32>().ok()?).checked_mul(unit)
    });
    match seconds {
        Some(seconds) => Ok(Timestamp { seconds: now.seconds - seconds, ..now }),
        None => bail!(
            "{flag} {} is neither a time like 2026-11-22T12:53:39Z nor a duration like 30s, 5m, 2h",
            quote(text)
        ),
    }
}

struct Printer {
    format: FlowFormat,
    node_name: bool,
    table: render::FlowTable,
}

impl Printer {
    fn new(wish: &Wish, node_name: bool) -> Self {
        Self { format: wish.format, node_name, table: render::FlowTable::new(node_name) }
    }

    /// Prints what came from a node, which is empty for this one.
    fn print(&mut self, screen: &mut Screen, record: &Record, node: &str) -> anyhow::Result<()> {
        let color = screen.data_in_color();
        let text = match (self.format, record) {
            (FlowFormat::Json, record) => render::json(record, node)?,
            (FlowFormat::Compact, Record::Flow(flow)) => render::compact(flow, self.node_name, color),
            (FlowFormat::Dict, Record::Flow(flow)) => render::dict(flow, self.node_name, color),
            (FlowFormat::Table, Record::Flow(flow)) => self.table.line(flow, color),
            (_, Record::Lost(lost)) => {
                let of = if node.is_empty() { String::new() } else { format!(" of {node}") };
                screen.warn(&format!("{lost} flows{of} were not shown: this reader was too slow for them"));
                return Ok(());
            }
        };
        screen.data(&text)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::args::{Cli, Command};
    use crate::domain::flow_filter::CONDITIONS;

    fn wish(arguments: &[&str]) -> Wish {
        let cli = Cli::try_parse_from(["enforcer", "observe"].iter().chain(arguments)).unwrap();
        let Command::Observe(observe) = cli.command else { panic!("not observe") };
        Wish::new(*observe, Timestamp { seconds: 10_000, nanos: 7 }).unwrap()
    }

    #[test]
    fn how_far_back() {
        assert_eq!(wish(&[]).last, 20);
        assert_eq!(wish(&["-f"]).last, 0);
        assert_eq!(wish(&["-f", "--last", "3"]).last, 3);
        assert_eq!((wish(&["--first", "3"]).last, wish(&["--first", "3"]).first), (usize::MAX, Some(3)));
        for everything in [&["--all"][..], &["--since", "5m"], &["--until", "5m"], &["--input-file", "-"]] {
            assert_eq!(wish(everything).last, usize::MAX, "{everything:?}");
        }
        let parameters = wish(&["--since", "5m"]).filter.parameters();
        assert_eq!(parameters, [("since".to_owned(), "1970-01-01T02:41:40.000000007Z".to_owned())]);
        for bad in ["", "m", "5", "5y", "-5m", "é"] {
            assert!(moment("--since", bad, Timestamp::default()).is_err(), "{bad}");
        }
    }

    fn parameters(arguments: &[&str]) -> Vec<String> {
        let parameters = wish(arguments).filter.parameters();
        parameters.into_iter().map(|(key, value)| format!("{key}={value}")).collect()
    }

    #[test]
    fn every_filter_arrives() {
        let samples = [
            ("verdict", "AUDIT"),
            ("type", "drop"),
            ("drop-reason-desc", "POLICY_DENIED"),
            ("traffic-direction", "EGRESS"),
            ("ip-version", "IPv6"),
        ];
        for condition in CONDITIONS {
            let sample = samples.iter().find(|(key, _)| *key == condition.key).map(|(_, value)| *value);
            let fallback = match condition.value_name {
                "PORT" | "IDENTITY" => "443",
                "ADDRESS" => "192.0.2.0/24",
                "PROTOCOL" => "TCP",
                _ => "x",
            };
            let value = sample.unwrap_or(fallback);
            let key = condition.key.replace('-', "_");
            let flag = format!("--{}", condition.key);
            assert_eq!(parameters(&[&flag, value]), [format!("{key}={value}")]);
            assert_eq!(parameters(&["--not", &flag, value]), [format!("not_{key}={value}")]);
        }
        let found = parameters(&["--verdict", "dropped,AUDIT", "-4", "-l", "a=b,c=d", "-n", "shop"]);
        assert_eq!(
            found,
            ["verdict=DROPPED", "verdict=AUDIT", "label=a=b,c=d", "namespace=shop", "ip_version=IPv4"]
        );
    }

    #[test]
    fn not_turns_the_next_filter_round() {
        let found =
            parameters(&["--port", "80", "--not", "--port=443,53", "--to", "db", "--not", "--to", "x"]);
        assert_eq!(found, ["to=db", "port=80", "not_to=x", "not_port=443", "not_port=53"]);
        for wrong in [&["--port", "80", "--not"][..], &["--port", "http"], &["--type", "l7"]] {
            assert!(Cli::try_parse_from(["enforcer", "observe"].iter().chain(wrong)).is_err(), "{wrong:?}");
        }
    }
}
