//! `enforcer status`

use super::args::{ObjectFormat, Status};
use super::context::{Context, block_on};
use super::render::{json, lists, status as render};
use super::{Answer, cluster};

/// The only state in which everything asked for is enforced.
const GOOD: &str = "enforcing";

pub(super) fn status(context: &mut Context, asked: &Status) -> anyhow::Result<Answer> {
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
    Ok(if status.state == GOOD && status.problems.is_empty() { Answer::Yes } else { Answer::No })
}
