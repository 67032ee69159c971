//! `cargo xtask ebpf`: builds the kernel programs alone.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, anyhow, bail};

use crate::shell;
use crate::toolchain::{self, Target, Toolchain};

/// Build the eBPF object and print its path and size
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {}

pub(crate) fn run(_: &Arguments) -> Result<ExitCode> {
    let root = shell::root()?;
    let tools = find(&root)?;
    println!("{}", shell::dim(&tools.describe()));
    let object = build(&root, &tools)?;
    let bytes = std::fs::read(&object).with_context(|| format!("cannot read {}", object.display()))?;
    // Without BTF the object loads nowhere that matters; saying so here is cheaper than at load time.
    if !contains(&bytes, b".BTF.ext") {
        bail!("{} carries no BTF: the linker ignored --btf ({})", object.display(), tools.linker.display());
    }
    println!("{}  {} bytes, with BTF", object.display(), bytes.len());
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn find(root: &Path) -> Result<Toolchain> {
    toolchain::find(root).map_err(|missing| anyhow!("{missing}"))
}

pub(crate) fn build(root: &Path, tools: &Toolchain) -> Result<PathBuf> {
    tools.build(root, this_machine()).map_err(|message| anyhow!(message))
}

/// The programs run on the machine that builds them, unless a cross build of `enforcer` says otherwise.
pub(crate) fn this_machine() -> Target<'static> {
    Target { arch: std::env::consts::ARCH, big_endian: cfg!(target_endian = "big") }
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}
