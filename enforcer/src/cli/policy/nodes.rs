//! What agents of a cluster say becomes of a flow, and whether they say the same.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::bail;

use super::offline::About;
use crate::cli::Answer;
use crate::cli::across::{Across, Roll, is_named, read};
use crate::cli::args::{Explain, ObjectFormat};
use crate::cli::context::{Context, block_on};
use crate::cli::render::{json, offline as render, quote};
use crate::cluster::agents::Agent;
use crate::domain::answer::Explained;
use crate::domain::offline::port_text;

/// Whether agents of a cluster are asked, and not the one of this host.
pub(super) fn is_meant(asked: &Explain) -> bool {
    asked.cluster.is_some() || asked.way.is_given() || !asked.of.node_name.is_empty()
}

/// What those say on whose nodes the ends of the flow live: there they are judged.
pub(super) fn explain(context: &mut Context, asked: &Explain, about: About<'_>) -> anyhow::Result<Answer> {
    block_on(async {
        let across = Across::open(context, &asked.way).await?;
        let from = qualified(&asked.from, &across.namespace);
        let (to, what) = match about {
            About::Flow(to, protocol, port) => {
                let to = qualified(to, &across.namespace);
                let server = format!("--to={}", server(&to, &port_text(protocol, port)));
                (to, server)
            }
            About::Socket(kind) => (from.clone(), format!("--socket-kind={}", kind.name())),
        };
        let patterns = &asked.of.node_name;
        let chosen = if patterns.is_empty() {
            let nodes = homes(&across, [&from, &to]).await?;
            if nodes.is_empty() {
                bail!(
                    "neither {} nor {} is a pod that is on a node: name the nodes to ask with --node-name, like \
                     --node-name '*'",
                    quote(&from),
                    quote(&to)
                );
            }
            homes_with_agents(&across, &nodes).await?
        } else {
            across.chosen(|node| is_named(patterns, node)).await?
        };
        let words = ["policy", "explain", "--output=json"].map(str::to_owned);
        let flow = [format!("--from={from}"), what];
        let command = across.command(words.into_iter().chain(flow));
        let screen = &mut context.screen;
        let mut roll = Roll::default();
        let mut answers: Vec<(String, Explained)> = Vec::new();
        for (node, said) in across.ask(&chosen, &command).await {
            match read(said, &[0]) {
                Ok(explained) => {
                    roll.answered();
                    answers.push((node, explained));
                }
                Err(missing) => roll.missing(screen, &node, &missing),
            }
        }
        let text = match asked.output.format {
            ObjectFormat::Table => render::explained_by(&answers),
            ObjectFormat::Json => json::list("nodes", &render::explained_records(&answers))?,
        };
        screen.data(&text)?;
        let agree = render::same(&answers).len() < 2;
        if !agree {
            screen.warn(
                "the nodes answer differently: not all of them have the same policies and workloads yet",
            );
        }
        let answer = roll.close(screen)?;
        Ok(if agree { answer } else { Answer::No })
    })
}

/// The agents of these nodes. That one of them has none is no answer to do without.
async fn homes_with_agents(across: &Across, nodes: &BTreeSet<String>) -> anyhow::Result<Vec<Agent>> {
    let chosen = across.chosen(|node| nodes.contains(node)).await?;
    if let Some(without) = nodes.iter().find(|node| !chosen.iter().any(|agent| agent.node == **node)) {
        bail!(
            "{} has no agent, and one end of the flow lives there; others are asked with --node-name",
            quote(without)
        );
    }
    Ok(chosen)
}

/// The nodes of those ends that are pods.
async fn homes(across: &Across, ends: [&str; 2]) -> anyhow::Result<BTreeSet<String>> {
    let mut nodes = BTreeSet::new();
    for end in ends {
        // Services and containers have one more word, addresses and the host have none.
        let Some((namespace, name)) = end.split_once('/').filter(|(first, _)| *first != SERVICE) else {
            continue;
        };
        let pod = name.split_once('/').map_or(name, |(pod, _container)| pod);
        nodes.extend(across.agents.node_of(namespace, pod).await?);
    }
    Ok(nodes)
}

const SERVICE: &str = "service";

/// An end with its namespace, as the cluster's context has it where none is written.
fn qualified(end: &str, namespace: &str) -> String {
    let (kind, name) = match end.strip_prefix("service/") {
        Some(name) => ("service/", name),
        None => ("", end),
    };
    if name == "host" && kind.is_empty() || name.parse::<IpAddr>().is_ok() || name.contains('/') {
        return end.to_owned();
    }
    format!("{kind}{namespace}/{name}")
}

/// The server as the command line has it: `END:PORT/PROTOCOL`.
fn server(end: &str, port: &str) -> String {
    let (protocol, port) = port.split_once('/').unwrap_or(("TCP", port));
    if end.contains(':') { format!("[{end}]:{port}/{protocol}") } else { format!("{end}:{port}/{protocol}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_get_their_namespace() {
        for (end, expected) in [
            ("web", "shop/web"),
            ("default/web", "default/web"),
            ("default/web/main", "default/web/main"),
            ("service/db", "service/shop/db"),
            ("service/a/db", "service/a/db"),
            ("host", "host"),
            ("192.0.2.1", "192.0.2.1"),
            ("2001:db8::1", "2001:db8::1"),
        ] {
            assert_eq!(qualified(end, "shop"), expected);
        }
    }

    #[test]
    fn servers_are_written_as_they_are_read() {
        for (end, port, expected) in [
            ("shop/db", "TCP/5432", "shop/db:5432/TCP"),
            ("2001:db8::1", "UDP/53", "[2001:db8::1]:53/UDP"),
            ("shop/db", "ICMP/echo-request", "shop/db:echo-request/ICMP"),
        ] {
            assert_eq!(server(end, port), expected);
        }
    }
}
