//! `enforcer canary`: the process that an agent starts to see it refused.

use std::path::Path;

use super::Answer;
use crate::kernel::canary::child;

pub(super) fn run(directory: &Path) -> anyhow::Result<Answer> {
    child::run(directory)?;
    Ok(Answer::Yes)
}
