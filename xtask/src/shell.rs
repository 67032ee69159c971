//! Other programs: how they are started, shown and given the rights they need.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::toolchain;

/// The top of the checkout this binary was built from.
pub(crate) fn root() -> Result<PathBuf> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = manifest.join("..");
    root.canonicalize().with_context(|| {
        format!("the checkout at {} has moved; run `cargo clean -p xtask` in its new place", root.display())
    })
}

/// The user's own cargo with the user's own settings, less what `cargo run` told this process about itself.
pub(crate) fn cargo(root: &Path) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in env::vars_os() {
        let own = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"];
        if name.to_str().is_some_and(|name| own.iter().any(|prefix| name.starts_with(prefix))) {
            command.env_remove(&name);
        }
    }
    command.env_remove("LD_LIBRARY_PATH").current_dir(root);
    command
}

/// A command that runs as root: directly when we are, through sudo otherwise.
///
/// Only the step that needs root gets it. Compiling as root would leave files in `target/` and in
/// the user's cargo home that the user could no longer replace.
pub(crate) fn as_root(program: impl AsRef<OsStr>, environment: &[(&str, &OsStr)]) -> Result<Command> {
    if nix::unistd::geteuid().is_root() {
        let mut command = Command::new(program);
        command.envs(environment.iter().copied());
        return Ok(command);
    }
    let Some(sudo) = toolchain::in_path("sudo") else {
        bail!(
            "{} needs root, and sudo is not installed; run `cargo xtask` from a root shell (`su -`) instead",
            Path::new(program.as_ref()).display()
        );
    };
    let mut command = Command::new(sudo);
    // sudo resets PATH and most variables; `env` puts back those that matter here.
    command.args(["-E", "env"]);
    let inherited = ["PATH", "HOME", "RUSTUP_HOME", "CARGO_HOME", "NO_COLOR"];
    for name in inherited {
        if let Some(value) = env::var_os(name) {
            command.arg(assignment(name, &value));
        }
    }
    for (name, value) in environment {
        command.arg(assignment(name, value));
    }
    command.arg(program);
    Ok(command)
}

fn assignment(name: &str, value: &OsStr) -> OsString {
    let mut text = OsString::from(name);
    text.push("=");
    text.push(value);
    text
}

/// Asks for the password now rather than minutes into a run, where nobody sits any more.
pub(crate) fn warm_sudo() -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let Some(sudo) = toolchain::in_path("sudo") else {
        bail!(
            "this loads programs into the kernel, which needs root; sudo is not installed: use a root shell"
        );
    };
    let status = Command::new(sudo).arg("-v").status().context("cannot start sudo")?;
    if status.success() { Ok(()) } else { bail!("sudo refused; this step needs root") }
}

/// Runs a command with its output on our own, and names it when it cannot start.
pub(crate) fn status(command: &mut Command) -> Result<ExitStatus> {
    command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot start {}", Path::new(command.get_program()).display()))
}

/// Like [`status`], where failure ends the step; `hint` is the next thing to try.
pub(crate) fn require(command: &mut Command, what: &str, hint: &str) -> Result<()> {
    let status = status(command)?;
    if status.success() { Ok(()) } else { bail!("{what} failed ({status}); {hint}") }
}

/// Standard output of a command that must succeed; its errors go to ours.
pub(crate) fn capture(command: &mut Command, what: &str) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start {}", Path::new(command.get_program()).display()))?;
    if !output.status.success() {
        bail!("{what} failed ({})", output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The child's exit code as ours; a signal counts as failure of the system.
pub(crate) fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(2);
    ExitCode::from(code)
}

/// A heading of one step.
pub(crate) fn heading(text: &str) {
    println!("{}", bold(&format!("== {text}")));
}

pub(crate) fn bold(text: &str) -> String {
    styled(text, "1")
}

pub(crate) fn dim(text: &str) -> String {
    styled(text, "2")
}

fn styled(text: &str, code: &str) -> String {
    if std::io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none() {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}
