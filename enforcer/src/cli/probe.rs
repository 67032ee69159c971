//! `enforcer probe`: asks the kernel itself, not the agent.

use super::Answer;
use super::args::{ObjectFormat, Output, Probe};
use super::context::Context;
use super::render::{json, probe as render};
use crate::kernel::probe;

pub(super) fn probe(context: &mut Context, arguments: &Probe) -> anyhow::Result<Answer> {
    let Probe { programs, output: Output { format } } = arguments;
    if *programs {
        return costs(context, *format);
    }
    let report = probe::probe();
    let text = match format {
        ObjectFormat::Table => render::report(&report, context.screen.data_in_color()),
        ObjectFormat::Json => json::object(&report)?,
    };
    context.screen.data(&text)?;
    Ok(if report.ok() { Answer::Yes } else { Answer::No })
}

fn costs(context: &mut Context, format: ObjectFormat) -> anyhow::Result<Answer> {
    let costs = probe::programs()?;
    let text = match format {
        ObjectFormat::Table => render::costs(&costs),
        ObjectFormat::Json => json::list("programs", &costs)?,
    };
    context.screen.data(&text)?;
    Ok(Answer::Yes)
}
