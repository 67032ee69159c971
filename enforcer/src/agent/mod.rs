//! The agent. A stand-in until the room is built.

use crate::config::Config;

/// Runs the agent until it is told to stop.
#[expect(clippy::unused_async, reason = "the real one waits")]
pub async fn run(config: Config) -> anyhow::Result<()> {
    anyhow::bail!("this build has no agent yet (pins would be in {})", config.pins.display())
}

/// Removes pins and links, and tells what was removed.
pub fn uninstall(config: &Config) -> anyhow::Result<Vec<String>> {
    anyhow::bail!("this build has no agent yet (pins would be in {})", config.pins.display())
}
