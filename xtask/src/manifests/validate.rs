//! The manifests against the schemas of real Kubernetes versions, by `kubernetes-validate` of the Python index, which has them inside.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::shell;

/// Released with the schemas of 1.25 to 1.37.
const TOOL: &str = "kubernetes-validate==1.37.0";
/// The oldest that knows every field used, one in between, and the one that is tried by hand.
const VERSIONS: [&str; 3] = ["1.31", "1.34", "1.36"];

/// Files of other kinds: they are no objects of a cluster.
const OTHER: [&str; 3] = ["kustomization.yaml", ".patch.yaml", "listen.yaml"];

/// What came of it.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// So many objects are valid in each version.
    Valid(usize),
    /// The tool can't be had here, and why.
    Skipped(String),
}

/// Validates these files, strictly: a field that a version does not know is an error.
pub(crate) fn validate(root: &Path, files: impl Iterator<Item = String>) -> Result<Outcome> {
    let files: Vec<PathBuf> = files
        .filter(|name| name.starts_with("deploy/kubernetes/") && !OTHER.iter().any(|end| name.ends_with(end)))
        // A page of JSON in a string each, which takes its reader long.
        .filter(|name| !name.ends_with("/patch.yaml") && !name.contains("/dashboards/"))
        .chain(["deploy/kubernetes/crds.yaml".to_owned()])
        .map(|name| root.join(name))
        .collect();
    let tool = match tool(root) {
        Ok(tool) => tool,
        Err(error) => return Ok(Outcome::Skipped(format!("{error:#}"))),
    };
    let mut valid = 0;
    for version in VERSIONS {
        let output = Command::new(&tool)
            .args(["--strict", "--kubernetes-version", version])
            .args(&files)
            .output()
            .context("cannot start kubernetes-validate")?;
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        valid = text.lines().filter(|line| line.contains(" passed for resource ")).count();
        if !output.status.success() || valid == 0 {
            bail!("Kubernetes {version} would refuse these manifests:\n{text}");
        }
    }
    Ok(Outcome::Valid(valid))
}

/// The tool, in an environment of its own below `target`.
fn tool(root: &Path) -> Result<PathBuf> {
    let home = root.join("target/kubernetes-validate");
    let tool = home.join("bin/kubernetes-validate");
    if !tool.exists() {
        let quietly = |command: &mut Command, what: &str| -> Result<()> {
            let output =
                command.stdin(Stdio::null()).output().with_context(|| format!("{what} can't be started"))?;
            let said = String::from_utf8_lossy(&output.stderr);
            let last = said.trim().lines().last().unwrap_or_default();
            if output.status.success() { Ok(()) } else { bail!("{what} failed: {last}") }
        };
        quietly(Command::new("python3").args(["-m", "venv"]).arg(&home), "python3 -m venv")?;
        let arguments = [
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--retries",
            "1",
            "--timeout",
            "10",
            TOOL,
        ];
        quietly(Command::new(home.join("bin/python")).args(arguments), "pip install")?;
    }
    Ok(tool)
}

pub(super) fn say(outcome: &Outcome) {
    match outcome {
        Outcome::Valid(objects) => {
            println!("{objects} objects are valid in Kubernetes {}", VERSIONS.join(", "));
        }
        Outcome::Skipped(reason) => println!("{}", shell::dim(&format!("not validated: {reason}"))),
    }
}
