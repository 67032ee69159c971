//! `enforcer status`

use super::Answer;
use super::args::{ObjectFormat, Output};
use super::context::{Context, block_on};
use super::render::{json, status as render};

/// The only state in which everything asked for is enforced.
const GOOD: &str = "enforcing";

pub(super) fn status(context: &mut Context, output: Output) -> anyhow::Result<Answer> {
    let client = context.client();
    let status = block_on(async { Ok(client.status().await?) })?;
    let text = match output.format {
        ObjectFormat::Table => render::status(&status, context.screen.data_in_color()),
        ObjectFormat::Json => json::object(&status)?,
    };
    context.screen.data(&text)?;
    Ok(if status.state == GOOD && status.problems.is_empty() { Answer::Yes } else { Answer::No })
}
