//! Debian's packages: asked for by name, refused where they would displace others.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{shell, toolchain};

/// Where to get a toolchain without Debian's packages.
const ELSEWHERE: &str = "on this machine, get it by hand: `rustup toolchain install nightly -c rust-src -c clippy`, \
                         `cargo install bpf-linker`, and QEMU from the distribution";

/// Remembers that the lists are fresh, so that one run fetches them once.
#[derive(Debug, Default)]
pub(super) struct Apt {
    updated: bool,
}

impl Apt {
    /// Installs `packages`; `purpose` completes "this is for ...".
    pub(super) fn install(&mut self, packages: &[&str], purpose: &str) -> Result<()> {
        let list = packages.join(" ");
        self.update(&list)?;
        println!("setup: installing {list}: {purpose}");
        let mut command = root_apt(&list)?;
        // Debian's rustc-web conflicts with its rustc, cargo and rustup packages: whoever uses those
        // keeps them, and is told.
        command
            .args(["install", "--yes", "--quiet", "--no-install-recommends", "--no-remove"])
            .args(packages);
        shell::require(
            &mut command,
            &format!("apt-get install {list}"),
            &format!(
                "if it would have removed packages (Debian's own rustc, cargo or rustup), remove them yourself \
                 or use rustup's nightly; otherwise {ELSEWHERE}"
            ),
        )
    }

    /// Fetches the lists, once.
    pub(super) fn update(&mut self, wanted: &str) -> Result<()> {
        if toolchain::in_path("apt-get").is_none() || !Path::new("/etc/debian_version").is_file() {
            bail!("{wanted}: this is not a Debian machine, so setup cannot install it; {ELSEWHERE}");
        }
        if self.updated {
            return Ok(());
        }
        println!("setup: fetching the package lists (apt-get update)");
        let mut command = root_apt(wanted)?;
        command.args(["update", "--quiet"]);
        shell::require(
            &mut command,
            "apt-get update",
            "check the network and the sources in /etc/apt, then run `cargo xtask setup` again",
        )?;
        self.updated = true;
        Ok(())
    }
}

fn root_apt(wanted: &str) -> Result<Command> {
    shell::as_root("apt-get", &[("DEBIAN_FRONTEND", "noninteractive".as_ref())]).with_context(|| {
        format!("{wanted} is missing; as root: `apt-get update && apt-get install {wanted}`")
    })
}
