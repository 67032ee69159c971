//! Debian's Prometheus, unpacked and not installed: the package would start a server on this machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::apt::Apt;
use super::kernels::{download, files, recreate};
use crate::{shell, toolchain};

/// Debian's name of it; `promtool` is in the same package.
const PACKAGE: &str = "prometheus";

/// The two programs.
#[derive(Debug, Clone)]
pub(crate) struct Prometheus {
    pub(crate) server: PathBuf,
    pub(crate) tool: PathBuf,
}

/// Those of the machine, or those that were unpacked here.
pub(crate) fn find(root: &Path) -> Result<Prometheus, String> {
    if let (Some(server), Some(tool)) = (toolchain::in_path("prometheus"), toolchain::in_path("promtool")) {
        return Ok(Prometheus { server, tool });
    }
    let folder = folder(root).join("usr/bin");
    let (server, tool) = (folder.join("prometheus"), folder.join("promtool"));
    if server.is_file() && tool.is_file() {
        return Ok(Prometheus { server, tool });
    }
    Err("neither in PATH nor unpacked yet (.tools/prometheus)".to_owned())
}

/// Fetches and unpacks the package.
pub(super) fn obtain(root: &Path, apt: &mut Apt) -> Result<()> {
    println!("setup: unpacking Debian's {PACKAGE} into .tools/prometheus (it is not installed)");
    let work = root.join(".tools/prometheus.partial");
    recreate(&work)?;
    if download(&work, PACKAGE).is_err() {
        // The lists may be absent or older than the archive.
        apt.update(PACKAGE)?;
        download(&work, PACKAGE)?;
    }
    let tree = work.join("tree");
    for file in files(&work)?.iter().filter(|file| file.extension().is_some_and(|end| end == "deb")) {
        let mut unpack = Command::new("dpkg-deb");
        unpack.arg("-x").arg(file).arg(&tree);
        shell::require(&mut unpack, "unpacking prometheus", "run `cargo xtask setup` again")?;
    }
    let folder = folder(root);
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    fs::rename(&tree, &folder).with_context(|| format!("cannot move into {}", folder.display()))?;
    fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))
}

fn folder(root: &Path) -> PathBuf {
    root.join(".tools/prometheus")
}
