//! The eBPF linker, built from its published source against Debian's LLVM into `.tools/`.

use std::env;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::{shell, toolchain};

const VERSION: &str = "0.13.0";
const LLVM: &str = "/usr/lib/llvm-22";

pub(super) fn has_llvm() -> bool {
    // libPolly has its own package and is only missed when linking, minutes later.
    Path::new(LLVM).join("bin/llvm-config").is_file() && Path::new(LLVM).join("lib/libPolly.a").is_file()
}

pub(super) fn build(root: &Path) -> Result<()> {
    println!("setup: building bpf-linker {VERSION} into .tools/ (about two minutes on two cores)");
    let start = Instant::now();
    let mut path = vec![Path::new(LLVM).join("bin")];
    path.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    let path = env::join_paths(path).context("PATH cannot be extended")?;
    let mut command = shell::cargo(root);
    // The user's own flags and folders are for the user's own programs.
    command.env_remove("CARGO_TARGET_DIR").env_remove("RUSTFLAGS");
    command
        .env("LLVM_PREFIX", LLVM)
        .env("PATH", path)
        .args(["install", "bpf-linker", "--version", VERSION, "--locked", "--force"])
        .args(["--no-default-features", "--features", "llvm-22", "--root"])
        .arg(root.join(".tools"));
    shell::require(
        &mut command,
        "building bpf-linker",
        "it needs a C++ compiler (`apt-get install g++`) and the network; then run `cargo xtask setup` again",
    )?;
    println!("setup: bpf-linker built in {} s", start.elapsed().as_secs());
    if let Err(why) = toolchain::local_linker(root) {
        anyhow::bail!("bpf-linker was built but: {why}");
    }
    Ok(())
}
