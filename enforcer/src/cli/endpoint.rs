//! `enforcer endpoint`

use super::Answer;
use super::args::{Endpoint, ObjectFormat, Output};
use super::context::{Context, block_on};
use super::render::{json, lists};

pub(super) fn endpoint(context: &mut Context, verb: &Endpoint) -> anyhow::Result<Answer> {
    let Endpoint::List(Output { format }) = verb;
    let client = context.client();
    let endpoints = block_on(async { Ok(client.endpoints().await?) })?;
    let text = match format {
        ObjectFormat::Table => lists::endpoints(&endpoints),
        ObjectFormat::Json => json::list("endpoints", &endpoints)?,
    };
    context.screen.data(&text)?;
    Ok(Answer::Yes)
}
