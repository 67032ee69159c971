//! `enforcer identity`

use super::Answer;
use super::args::{Identity, ObjectFormat, Output};
use super::context::{Context, block_on};
use super::render::{json, lists};

pub(super) fn identity(context: &mut Context, verb: &Identity) -> anyhow::Result<Answer> {
    let Identity::List(Output { format }) = verb;
    let client = context.client();
    let identities = block_on(async { Ok(client.identities().await?) })?;
    let text = match format {
        ObjectFormat::Table => lists::identities(&identities),
        ObjectFormat::Json => json::list("identities", &identities)?,
    };
    context.screen.data(&text)?;
    Ok(Answer::Yes)
}
