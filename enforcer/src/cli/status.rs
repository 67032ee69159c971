//! `enforcer status`

use super::across::{Across, Roll, is_named, read};
use super::args::{ObjectFormat, Status};
use super::context::{Context, block_on};
use super::render::{json, lists, status as render};
use super::{Answer, cluster};
use crate::domain::command::Status as Info;

/// The only state in which everything asked for is enforced.
const GOOD: &str = "enforcing";

pub(super) fn status(context: &mut Context, asked: &Status) -> anyhow::Result<Answer> {
    if !asked.of.node_name.is_empty() {
        return of_nodes(context, asked);
    }
    if asked.to.is_meant() {
        return cluster::status(context, &asked.to, asked.output.format);
    }
    let client = context.client();
    let status = block_on(async { Ok(client.status().await?) })?;
    let text = match (asked.unguarded, asked.output.format) {
        (false, ObjectFormat::Table) => render::status(&status, context.screen.data_in_color()),
        (false, ObjectFormat::Json) => json::object(&status)?,
        (true, ObjectFormat::Table) => lists::unguarded(&status.unguarded),
        (true, ObjectFormat::Json) => json::list("unguarded", &status.unguarded)?,
    };
    context.screen.data(&text)?;
    Ok(if is_good(&status) { Answer::Yes } else { Answer::No })
}

fn is_good(status: &Info) -> bool {
    status.state == GOOD && status.problems.is_empty()
}

/// What the agents of nodes say of themselves.
fn of_nodes(context: &mut Context, asked: &Status) -> anyhow::Result<Answer> {
    block_on(async {
        let across = Across::open(context, &asked.to.way).await?;
        let chosen = across.chosen(|node| is_named(&asked.of.node_name, node)).await?;
        let command = across.command(["status", "--output=json"].map(str::to_owned));
        let screen = &mut context.screen;
        let mut roll = Roll::default();
        let mut told: Vec<(String, Info)> = Vec::new();
        for (node, said) in across.ask(&chosen, &command).await {
            // An agent that is not well says so with 1.
            match read(said, &[0, 1]) {
                Ok(status) => {
                    roll.answered();
                    told.push((node, status));
                }
                Err(missing) => roll.missing(screen, &node, &missing),
            }
        }
        let text = match asked.output.format {
            ObjectFormat::Table => render::of_nodes(&told, asked.unguarded, screen.data_in_color()),
            ObjectFormat::Json => json::list("nodes", &render::records(&told, asked.unguarded))?,
        };
        screen.data(&text)?;
        let answer = roll.close(screen)?;
        Ok(if told.iter().all(|(_, status)| is_good(status)) { answer } else { Answer::No })
    })
}
