//! `enforcer quarantine`

use super::Answer;
use super::args::{ObjectFormat, Output, Quarantine};
use super::context::{Context, block_on};
use super::render::{json, quarantine as render};
use crate::domain::command::QuarantineInfo;

pub(super) fn quarantine(context: &mut Context, verb: Quarantine) -> anyhow::Result<Answer> {
    let client = context.client();
    match verb {
        Quarantine::Add { workload, lasts, allow_from, output } => {
            let info = block_on(async { Ok(client.quarantine(workload, lasts, allow_from).await?) })?;
            one(context, &info, output, render::added)
        }
        Quarantine::Release { workload, output } => {
            let info = block_on(async { Ok(client.release(&workload).await?) })?;
            one(context, &info, output, render::released)
        }
        Quarantine::List(output) => {
            let list = block_on(async { Ok(client.quarantines().await?) })?;
            let text = match output.format {
                ObjectFormat::Table => render::list(&list),
                ObjectFormat::Json => json::list("quarantines", &list)?,
            };
            context.screen.data(&text)?;
            Ok(Answer::Yes)
        }
    }
}

fn one(
    context: &mut Context,
    info: &QuarantineInfo,
    output: Output,
    words: fn(&QuarantineInfo) -> String,
) -> anyhow::Result<Answer> {
    let text = match output.format {
        ObjectFormat::Table => words(info),
        ObjectFormat::Json => json::object(info)?,
    };
    context.screen.data(&text)?;
    Ok(Answer::Yes)
}
