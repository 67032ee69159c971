//! `cargo xtask setup`: finds or installs what building and testing need.
//!
//! Everything it makes lies in `.tools/`; the only things that touch the machine are Debian packages,
//! and those never at the price of a package that is already there.

mod apt;
mod kernels;
mod linker;
mod prometheus;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};

pub(crate) use kernels::{KERNELS, Kernel, find as find_kernel};
pub(crate) use prometheus::find as find_prometheus;

use crate::shell;
use crate::toolchain;

/// Find or install the eBPF toolchain and the test tools
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only say what is there and what is missing; exit 1 when something is
    #[arg(long)]
    check: bool,
    /// Only what `cargo build` needs, not the test tools
    #[arg(long)]
    build_only: bool,
}

/// How much must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The compiler and linker of the kernel programs.
    Build,
    /// The above and Prometheus.
    Telemetry,
    /// The compiler and linker, and the linter of that compiler.
    Lint,
    /// All of the above.
    Quick,
    /// The above, the emulator and two kernels.
    Test,
}

/// One thing that must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    Toolchain,
    Clippy,
    Prometheus,
    Runtimes,
    Emulator,
    Kernel(&'static str),
}

/// Container runtimes, with what the hand-made image is made of, and a program of each.
const RUNTIME_PACKAGES: [(&str, &str); 5] = [
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("docker.io", "dockerd"),
    ("podman", "podman"),
    ("busybox-static", "busybox"),
];

const RUST_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];
const LLVM_PACKAGES: [&str; 2] = ["llvm-22-dev", "libpolly-22-dev"];

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let scope = if arguments.build_only { Scope::Build } else { Scope::Test };
    if arguments.check {
        return Ok(check(&shell::root()?, scope));
    }
    ensure(&shell::root()?, scope)?;
    Ok(ExitCode::SUCCESS)
}

/// Everything of `scope` is there afterwards, or the error names the piece and the way to get it.
pub(crate) fn ensure(root: &Path, scope: Scope) -> Result<()> {
    obtain_all(root, pieces(scope))
}

/// The same for what `known`, which is there, does not have.
pub(crate) fn ensure_beyond(root: &Path, scope: Scope, known: Scope) -> Result<()> {
    let known = pieces(known);
    obtain_all(root, pieces(scope).into_iter().filter(|piece| !known.contains(piece)))
}

fn obtain_all(root: &Path, pieces: impl IntoIterator<Item = Piece>) -> Result<()> {
    let mut apt = apt::Apt::default();
    for piece in pieces {
        match state(root, piece) {
            Ok(found) => println!("setup: {}  {}", name(piece), shell::dim(&found)),
            Err(missing) => {
                println!("setup: {}: {missing}", name(piece));
                obtain(root, piece, &mut apt)?;
                match state(root, piece) {
                    Ok(found) => println!("setup: {}  {}", name(piece), shell::dim(&found)),
                    Err(still) => bail!("{} was installed but still: {still}", name(piece)),
                }
            }
        }
    }
    Ok(())
}

fn check(root: &Path, scope: Scope) -> ExitCode {
    let mut complete = true;
    for piece in pieces(scope) {
        match state(root, piece) {
            Ok(found) => println!("found    {}  {}", name(piece), shell::dim(&found)),
            Err(missing) => {
                complete = false;
                println!("missing  {}: {missing}", name(piece));
            }
        }
    }
    if !complete {
        println!("next: cargo xtask setup");
    }
    if complete { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

fn pieces(scope: Scope) -> Vec<Piece> {
    let mut pieces = vec![Piece::Toolchain];
    if matches!(scope, Scope::Lint | Scope::Quick | Scope::Test) {
        pieces.push(Piece::Clippy);
    }
    if matches!(scope, Scope::Telemetry | Scope::Quick | Scope::Test) {
        pieces.push(Piece::Prometheus);
    }
    if scope == Scope::Test {
        pieces.push(Piece::Runtimes);
    }
    // The kernels are Debian's for x86-64; elsewhere `test` says that it skips the machines.
    if scope == Scope::Test && cfg!(target_arch = "x86_64") {
        pieces.push(Piece::Emulator);
        pieces.extend(KERNELS.iter().map(|kernel| Piece::Kernel(kernel.name)));
    }
    pieces
}

fn name(piece: Piece) -> String {
    match piece {
        Piece::Toolchain => "eBPF toolchain".to_owned(),
        Piece::Clippy => "its clippy".to_owned(),
        Piece::Prometheus => "Prometheus".to_owned(),
        Piece::Runtimes => "container runtimes".to_owned(),
        Piece::Emulator => "QEMU".to_owned(),
        Piece::Kernel(version) => format!("kernel {version}"),
    }
}

/// What was found, or what is missing, in words.
fn state(root: &Path, piece: Piece) -> Result<String, String> {
    match piece {
        Piece::Toolchain => toolchain::find(root)
            .map(|found| found.describe())
            .map_err(|missing| format!("nightly {}; Debian's {}", missing.nightly, missing.debian)),
        Piece::Clippy => match toolchain::find(root) {
            Ok(found) if found.has_clippy() => Ok("same version".to_owned()),
            Ok(_) => Err("not there".to_owned()),
            Err(_) => Err("no toolchain yet".to_owned()),
        },
        Piece::Prometheus => prometheus::find(root).map(|found| found.server.display().to_string()),
        Piece::Runtimes => match missing_runtimes().as_slice() {
            [] => Ok("containerd, runc, Docker, Podman".to_owned()),
            missing => Err(format!("{} are not there", missing.join(", "))),
        },
        Piece::Emulator => toolchain::in_path("qemu-system-x86_64")
            .map(|path| path.display().to_string())
            .ok_or_else(|| "qemu-system-x86_64 is not in PATH".to_owned()),
        Piece::Kernel(version) => kernels::find(root, version).map(|kernel| kernel.release),
    }
}

fn obtain(root: &Path, piece: Piece, apt: &mut apt::Apt) -> Result<()> {
    match piece {
        Piece::Toolchain => toolchain_from_debian(root, apt),
        Piece::Clippy => match toolchain::find(root).map(|found| found.origin) {
            Ok(toolchain::Origin::Nightly) => {
                bail!("the nightly has no clippy; `rustup component add clippy --toolchain nightly` gets it")
            }
            _ => apt.install(&["rust-web-clippy"], "the linter for the kernel programs"),
        },
        Piece::Prometheus => prometheus::obtain(root, apt),
        // What is there already may come from elsewhere, and then stays.
        Piece::Runtimes => apt.install(&missing_runtimes(), "real containers for the live suite"),
        Piece::Emulator => apt.install(&["qemu-system-x86"], "the emulator for the other kernels"),
        Piece::Kernel(version) => kernels::obtain(root, version, apt),
    }
}

fn missing_runtimes() -> Vec<&'static str> {
    let missing = RUNTIME_PACKAGES.into_iter().filter(|(_, program)| toolchain::in_path(program).is_none());
    missing.map(|(package, _)| package).collect()
}

fn toolchain_from_debian(root: &Path, apt: &mut apt::Apt) -> Result<()> {
    if std::env::var(toolchain::TOOLCHAIN_ENV).is_ok_and(|forced| forced == "nightly") {
        bail!(
            "{}=nightly is set, and setup never changes the user's toolchains; \
             `rustup toolchain install nightly -c rust-src -c clippy` and `cargo install bpf-linker` get both",
            toolchain::TOOLCHAIN_ENV
        );
    }
    // A nightly that lacks only the linker is completed rather than doubled.
    let has_nightly = toolchain::nightly_rust().is_ok_and(|found| found.llvm <= toolchain::LINKER_LLVM);
    if !has_nightly && toolchain::debian_rust().is_err() {
        apt.install(&RUST_PACKAGES, "a compiler with the sources of core")?;
    }
    if toolchain::local_linker(root).is_err() {
        if !linker::has_llvm() {
            apt.install(&LLVM_PACKAGES, "LLVM for the linker of the kernel programs")?;
        }
        linker::build(root)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_needs_no_test_tools() {
        assert_eq!(pieces(Scope::Build), [Piece::Toolchain]);
        assert_eq!(pieces(Scope::Lint), [Piece::Toolchain, Piece::Clippy]);
        assert_eq!(pieces(Scope::Telemetry), [Piece::Toolchain, Piece::Prometheus]);
        assert_eq!(pieces(Scope::Quick), [Piece::Toolchain, Piece::Clippy, Piece::Prometheus]);
    }
}
