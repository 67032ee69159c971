//! `promtool`

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

/// Runs it on files, or on a text at its standard input; what it says if it is not content.
pub(super) fn promtool(arguments: &[&str], input: Option<&str>) -> Result<(), String> {
    let program = std::env::var_os("ENFORCER_PROMTOOL").unwrap_or_else(|| "promtool".into());
    let mut command = Command::new(program);
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut child = command.spawn().map_err(|error| format!("cannot start promtool: {error}"))?;
    if let (Some(mut pipe), Some(text)) = (child.stdin.take(), input) {
        // It reads everything before it says anything.
        pipe.write_all(text.as_bytes()).map_err(|error| format!("promtool does not read: {error}"))?;
    }
    let output = child.wait_with_output().map_err(|error| format!("promtool: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    Err(String::from_utf8_lossy(&text).into_owned())
}

/// Writes a file of a folder with some text replaced, which must be in it.
pub(super) fn rewrite(from: &std::path::Path, to: &std::path::Path, pairs: &[(&str, &str)]) {
    let mut text = fs::read_to_string(from).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
    for (old, new) in pairs {
        assert!(text.contains(old), "{} says nothing of {old}", from.display());
        text = text.replace(old, new);
    }
    fs::write(to, text).unwrap_or_else(|error| panic!("{}: {error}", to.display()));
}
