//! The log of the agent, on stderr: what is worth knowing once, never a line per packet.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people; coloured on a terminal.
    Text,
    /// One JSON object per line.
    Json,
}

/// Libraries are quiet unless something is wrong or everything is asked for. What the client of a cluster says of each request
/// that fails is told as a problem, once.
fn filter(level: LevelFilter) -> EnvFilter {
    let is_all = level == LevelFilter::TRACE;
    let others = if is_all { level } else { level.min(LevelFilter::WARN) };
    let client = if is_all { level } else { LevelFilter::OFF };
    EnvFilter::new(format!("{others},kube_client={client},kube_runtime={client},enforcer={level}"))
}

/// Begins to log. Fails if the process logs already.
pub fn start(format: Format, level: LevelFilter) -> Result<(), tracing_subscriber::util::TryInitError> {
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let layer = fmt::layer().with_writer(std::io::stderr).with_target(false).with_ansi(terminal && !no_color);
    let layer = match format {
        Format::Text => layer.boxed(),
        Format::Json => layer.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(filter(level))).try_init()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_quiet() {
        for (level, expected) in [
            (LevelFilter::ERROR, ["enforcer=error", "kube_client=off", "kube_runtime=off", "error"]),
            (LevelFilter::INFO, ["enforcer=info", "kube_client=off", "kube_runtime=off", "warn"]),
            (LevelFilter::TRACE, ["enforcer=trace", "kube_client=trace", "kube_runtime=trace", "trace"]),
        ] {
            let text = filter(level).to_string();
            let mut found: Vec<&str> = text.split(',').collect();
            found.sort_unstable();
            let mut expected = expected.to_vec();
            expected.sort_unstable();
            assert_eq!(found, expected);
        }
    }
}
