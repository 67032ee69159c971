//! `enforcer observe`

use anyhow::bail;

use super::Answer;
use super::args::{FlowFormat, Observe};
use super::context::{Context, block_on, now};
use super::render::{Screen, flow as render, quote};
use crate::api::client::Record;
use crate::domain::flow_filter::FlowFilter;
use crate::domain::timestamp::Timestamp;

/// As `hubble observe` does.
const DEFAULT_LAST: usize = 20;

pub(super) fn observe(context: &mut Context, arguments: Observe) -> anyhow::Result<Answer> {
    let wish = Wish::new(arguments, now())?;
    let client = context.client();
    let screen = &mut context.screen;
    block_on(async {
        let mut flows = client.flows(wish.last, wish.follow, &wish.filter).await?;
        let mut printer = Printer { format: wish.format, table: render::FlowTable::default() };
        while let Some(record) = flows.next().await? {
            // The server filters too; an older one may know fewer conditions, and would refuse those, not ignore them.
            printer.print(screen, &record)?;
        }
        if wish.follow {
            bail!(
                "the agent on {} ended the stream: it was stopped; see `enforcer status`",
                client.socket().display()
            );
        }
        Ok(Answer::Yes)
    })
}

#[derive(Debug, PartialEq)]
struct Wish {
    last: usize,
    follow: bool,
    format: FlowFormat,
    filter: FlowFilter,
}

impl Wish {
    fn new(arguments: Observe, now: Timestamp) -> anyhow::Result<Self> {
        let Observe {
            follow,
            last,
            since,
            output,
            verdict,
            from_label,
            to_label,
            label,
            from,
            to,
            port,
            protocol,
        } = arguments;
        let since = since.map(|since| moment("--since", &since, now)).transpose()?;
        let protocol = protocol.iter().map(|protocol| protocol.to_ascii_uppercase()).collect();
        let verdict = verdict.iter().map(|verdict| verdict.to_ascii_uppercase()).collect();
        let last = last.unwrap_or(match (since, follow) {
            (Some(_), _) => usize::MAX,
            (None, true) => 0,
            (None, false) => DEFAULT_LAST,
        });
        let filter = FlowFilter { verdict, from_label, to_label, label, from, to, port, protocol, since };
        Ok(Self { last, follow, format: output, filter })
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
    table: render::FlowTable,
}

impl Printer {
    fn print(&mut self, screen: &mut Screen, record: &Record) -> anyhow::Result<()> {
        let text = match (self.format, record) {
            (FlowFormat::Json, record) => render::json(record)?,
            (FlowFormat::Compact, Record::Flow(flow)) => render::compact(flow, screen.data_in_color()),
            (FlowFormat::Table, Record::Flow(flow)) => self.table.line(flow, screen.data_in_color()),
            (FlowFormat::Compact | FlowFormat::Table, Record::Lost(lost)) => {
                screen.warn(&format!("{lost} flows were not shown: this reader was too slow for them"));
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
        let since = wish(&["--since", "5m"]);
        assert_eq!(
            (since.last, since.filter.since),
            (usize::MAX, Some(Timestamp { seconds: 9_700, nanos: 7 }))
        );
        for bad in ["", "m", "5", "5y", "-5m", "é"] {
            assert!(moment("--since", bad, Timestamp::default()).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_filter_arrives() {
        let found = wish(&[
            "--verdict",
            "dropped,AUDIT",
            "--from-label",
            "a=b",
            "--to-label",
            "c=d",
            "-l",
            "e=f",
            "--from",
            "web",
            "--to",
            "x/db",
            "--port",
            "80,443",
            "--protocol",
            "tcp",
            "--since",
            "1970-01-01T00:00:01Z",
        ]);
        let text = |text: &[&str]| text.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let filter = FlowFilter {
            verdict: text(&["DROPPED", "AUDIT"]),
            from_label: text(&["a=b"]),
            to_label: text(&["c=d"]),
            label: text(&["e=f"]),
            from: text(&["web"]),
            to: text(&["x/db"]),
            port: vec![80, 443],
            protocol: text(&["TCP"]),
            since: Some(Timestamp { seconds: 1, nanos: 0 }),
        };
        assert_eq!(found.filter, filter);
    }
}
