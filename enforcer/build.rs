//! Builds the kernel programs from source and hands their object's path to the crate.
//!
//! `ENFORCER_EBPF_OBJECT` is set for `env!`. `ENFORCER_EBPF_OBJECT_PATH`, when the user sets it,
//! names an object built before, for packagers that build the two halves apart.

#[path = "../xtask/src/toolchain.rs"]
#[allow(dead_code, reason = "the project's commands use the rest of it")]
mod toolchain;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

const PREBUILT: &str = "ENFORCER_EBPF_OBJECT_PATH";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            for line in message.lines() {
                tell(&format!("error={line}"));
            }
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    for name in [PREBUILT, toolchain::TOOLCHAIN_ENV] {
        tell(&format!("rerun-if-env-changed={name}"));
    }
    let object = match env::var_os(PREBUILT) {
        Some(path) => {
            // Only for a foreign object: our own is younger than this run and would ask for the next.
            tell(&format!("rerun-if-changed={}", Path::new(&path).display()));
            PathBuf::from(path)
        }
        None => build()?,
    };
    let bytes = fs::read(&object).map_err(|error| {
        format!("cannot read the eBPF object {}: {error}; unset {PREBUILT} to build it", object.display())
    })?;
    let copy = Path::new(&variable("OUT_DIR")?).join("enforcer-ebpf.o");
    // An unchanged object keeps its time stamp: the crate is compiled again only for new programs.
    if fs::read(&copy).ok().as_ref() != Some(&bytes) {
        fs::write(&copy, &bytes).map_err(|error| format!("cannot write {}: {error}", copy.display()))?;
    }
    tell(&format!("rustc-env=ENFORCER_EBPF_OBJECT={}", copy.display()));
    Ok(())
}

fn build() -> Result<PathBuf, String> {
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")?).join("..");
    let root = root.canonicalize().map_err(|error| format!("cannot resolve {}: {error}", root.display()))?;
    let watched = [
        "enforcer-ebpf/src",
        "enforcer-ebpf/Cargo.toml",
        "enforcer-ebpf/Cargo.lock",
        "enforcer-common/src",
        "enforcer-common/Cargo.toml",
        "xtask/src/toolchain.rs",
    ];
    for path in watched {
        tell(&format!("rerun-if-changed={}", root.join(path).display()));
    }
    let tools = toolchain::find(&root).map_err(|missing| missing.to_string())?;
    tell(&format!("rerun-if-changed={}", tools.linker.display()));
    let arch = variable("CARGO_CFG_TARGET_ARCH")?;
    let big_endian = variable("CARGO_CFG_TARGET_ENDIAN")? == "big";
    tools.build(&root, toolchain::Target { arch: &arch, big_endian })
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|error| format!("{name}: {error}; this script is run by cargo"))
}

#[allow(clippy::print_stdout, reason = "this is how a build script speaks to cargo")]
fn tell(directive: &str) {
    println!("cargo::{directive}");
}
