//! `enforcer probe`: asks the kernel itself, not the agent.

use super::Answer;
use super::args::{ObjectFormat, Output, Probe};
use super::context::Context;
use super::render::{json, probe as render};
use super::settings::SettingFlags;
use crate::config::cgroup_root;
use crate::kernel::probe;

pub(super) fn probe(context: &mut Context, arguments: &Probe) -> anyhow::Result<Answer> {
    let Probe { programs, output: Output { format } } = arguments;
    if *programs {
        return costs(context, *format);
    }
    // The configuration only says where to look; a broken one must not keep the kernel from being asked.
    let config = context.config(SettingFlags::default()).map(|loaded| loaded.config).unwrap_or_default();
    let root = cgroup_root(config.cgroup_root.as_deref()).map_err(|error| error.to_string());
    let report = probe::probe(root.as_deref().map_err(Clone::clone), &config.pins);
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
