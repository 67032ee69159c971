//! `enforcer flows`

use anyhow::anyhow;

use super::Answer;
use super::args::{FlowHistory, Flows, ObjectFormat};
use super::context::{Context, block_on, now};
use super::observe::moment;
use super::render::{history as render, json};
use crate::domain::history::HistoryQuery;
use crate::domain::timestamp::Timestamp;
use crate::telemetry::history::query::query;

pub(super) fn flows(context: &mut Context, verb: Flows) -> anyhow::Result<Answer> {
    let Flows::History(asked) = verb;
    let (database, format) = (asked.database.clone(), asked.output.format);
    let wish = wish(*asked, now())?;
    let history = if let Some(path) = database {
        query(&path, &wish).map_err(|problem| anyhow!(problem))?
    } else {
        let client = context.client();
        block_on(async { Ok(client.history(&wish).await?) })?
    };
    let text = match format {
        ObjectFormat::Table => render::table(&history.edges, context.screen.data_in_color()),
        ObjectFormat::Json => json::object(&history)?,
    };
    context.screen.data(&text)?;
    if history.more {
        let shown = history.edges.len();
        context
            .screen
            .warn(&format!("only the newest {shown} edges are shown: narrow the filters, or raise --last"));
    }
    Ok(Answer::Yes)
}

fn wish(asked: FlowHistory, now: Timestamp) -> anyhow::Result<HistoryQuery> {
    let FlowHistory { since, until, last, per_minute, database: _, output: _, filters } = asked;
    let time = |flag, text: Option<String>| text.map(|text| moment(flag, &text, now)).transpose();
    let mut filter = filters.0;
    if let Some(since) = time("--since", since)? {
        filter.since(since);
    }
    Ok(HistoryQuery { filter, until: time("--until", until)?, per_minute, last })
}
