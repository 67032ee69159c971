//! `enforcer metrics`

use super::Answer;
use super::args::{self, ObjectFormat, Output};
use super::context::Context;
use super::render::metrics;

pub(super) fn metrics(context: &mut Context, verb: &args::Metrics) -> anyhow::Result<Answer> {
    let args::Metrics::List(Output { format }) = verb;
    let text = match format {
        ObjectFormat::Table => metrics::list(),
        ObjectFormat::Json => metrics::json()?,
    };
    context.screen.data(&text)?;
    Ok(Answer::Yes)
}
