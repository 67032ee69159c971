//! `enforcer preflight`: looks at a node before an agent is installed there.

use super::Answer;
use super::args::{ObjectFormat, Output};
use super::context::Context;
use super::render::{json, preflight as render};
use super::settings::SettingFlags;
use crate::config::cgroup_root;
use crate::kernel::preflight::{Asked, Node, judge};
use crate::kernel::probe::probe;

pub(super) fn preflight(context: &mut Context, output: Output) -> anyhow::Result<Answer> {
    // With a broken configuration no agent starts: that is the first thing to be told.
    let config = context.config(SettingFlags::default())?.config;
    let root = cgroup_root(config.cgroup_root.as_deref()).map_err(|error| error.to_string());
    let node = Node::look(Asked {
        cgroup_root: root.clone().ok(),
        pins: config.pins.clone(),
        socket: config.socket.clone(),
        state: config.state_dir.clone(),
        listen: config.metrics_listen,
        wanted: config.audit_total_size.0.saturating_add(config.history_size.0),
    });
    let found = judge(&node, &probe(root.as_deref().map_err(Clone::clone), &config.pins));
    let text = match output.format {
        ObjectFormat::Table => render::preflight(&found, context.screen.data_in_color()),
        ObjectFormat::Json => json::object(&found)?,
    };
    context.screen.data(&text)?;
    Ok(if found.ok() { Answer::Yes } else { Answer::No })
}
