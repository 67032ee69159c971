//! Finds the compiler and linker for the kernel programs and builds the eBPF object with them.
//!
//! Standard library only: `enforcer/build.rs` includes this very file, so that `cargo build` and
//! `cargo xtask ebpf` can never disagree about toolchain, flags or target folder.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The LLVM that `.tools/bin/bpf-linker` is built against; it reads bitcode of this and older ones.
pub(crate) const LINKER_LLVM: u32 = 22;
/// Forces one toolchain (`nightly` or `debian`) where both would do.
pub(crate) const TOOLCHAIN_ENV: &str = "ENFORCER_EBPF_TOOLCHAIN";

const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_CLIPPY: &str = "/usr/bin/cargo-clippy";
const DEBIAN_SOURCE: &str = "/usr/lib/rustlib/src/rust";
/// `enforcer-ebpf` is edition 2024.
const OLDEST_RUSTC_MINOR: u32 = 85;

/// Where a usable compiler came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// `rustup`'s nightly with its `rust-src` component.
    Nightly,
    /// Debian's `rustc-web`, `cargo-web` and `rust-web-src`.
    Debian,
}

/// A compiler with the sources of `core`, and a linker that understands its bitcode.
#[derive(Debug, Clone)]
pub(crate) struct Toolchain {
    pub(crate) origin: Origin,
    pub(crate) rustc_version: String,
    pub(crate) linker: PathBuf,
}

/// Why neither toolchain can be used.
#[derive(Debug, Clone)]
pub(crate) struct Missing {
    pub(crate) nightly: String,
    pub(crate) debian: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "no toolchain for the kernel programs\n  rustup nightly: {}\n  Debian packages: {}\n  next: cargo xtask setup",
            self.nightly, self.debian
        )
    }
}

/// For which machine the object is built.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target<'a> {
    /// `x86_64`, `aarch64`, ...: the layout of `pt_regs` and friends depends on it.
    pub(crate) arch: &'a str,
    pub(crate) big_endian: bool,
}

impl Target<'_> {
    fn triple(self) -> &'static str {
        if self.big_endian { "bpfeb-unknown-none" } else { "bpfel-unknown-none" }
    }

    fn bpf_arch(self) -> String {
        // The kernel's name has no extension letters: riscv64gc is riscv64.
        if self.arch.starts_with("riscv64") { "riscv64".to_owned() } else { self.arch.to_owned() }
    }
}

/// The first usable toolchain: the user's nightly, then Debian's packages.
pub(crate) fn find(root: &Path) -> Result<Toolchain, Missing> {
    let forced = env::var(TOOLCHAIN_ENV).unwrap_or_default();
    let nightly = match forced.as_str() {
        "debian" => Err(format!("not asked for ({TOOLCHAIN_ENV}=debian)")),
        _ => nightly(root),
    };
    let nightly = match nightly {
        Ok(found) => return Ok(found),
        Err(why) => why,
    };
    let debian = match forced.as_str() {
        "nightly" => Err(format!("not asked for ({TOOLCHAIN_ENV}=nightly)")),
        _ => debian(root),
    };
    debian.map_err(|debian| Missing { nightly, debian })
}

fn nightly(root: &Path) -> Result<Toolchain, String> {
    let found = nightly_rust()?;
    // A linker of the user's own first: whoever keeps a nightly for eBPF keeps its linker in step.
    let linker = match in_path("bpf-linker") {
        Some(linker) => linker,
        None if found.llvm <= LINKER_LLVM => local_linker(root)?,
        None => {
            return Err(format!(
                "bpf-linker is not in PATH, and this nightly's LLVM {} is too new for the local one; \
                 `cargo install bpf-linker` gets it",
                found.llvm
            ));
        }
    };
    Ok(Toolchain { origin: Origin::Nightly, rustc_version: found.release, linker })
}

/// The user's nightly, if it carries the sources of `core`.
pub(crate) fn nightly_rust() -> Result<Rustc, String> {
    let rustup = in_path("rustup").ok_or("rustup is not in PATH")?;
    let ask = |args: &[&str]| {
        let mut command = Command::new(&rustup);
        scrub(&mut command);
        // Without this, asking for a toolchain that is not there would download it.
        command.env("RUSTUP_AUTO_INSTALL", "0").args(["run", "nightly", "rustc"]).args(args);
        answer(&mut command)
    };
    let sysroot = ask(&["--print", "sysroot"])
        .ok_or("not installed; `rustup toolchain install nightly -c rust-src` gets it")?;
    if !Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/Cargo.lock").is_file() {
        return Err("has no rust-src; `rustup component add rust-src --toolchain nightly` gets it".to_owned());
    }
    ask(&["-vV"]).and_then(|text| Rustc::parse(&text)).ok_or_else(|| "its rustc does not start".to_owned())
}

fn debian(root: &Path) -> Result<Toolchain, String> {
    let found = debian_rust()?;
    Ok(Toolchain { origin: Origin::Debian, rustc_version: found.release, linker: local_linker(root)? })
}

/// Debian's compiler with sources, new enough for us and old enough for the linker.
pub(crate) fn debian_rust() -> Result<Rustc, String> {
    let mut command = Command::new(DEBIAN_RUSTC);
    scrub(&mut command);
    let found = answer(command.arg("-vV"))
        .and_then(|text| Rustc::parse(&text))
        .ok_or(format!("{DEBIAN_RUSTC} is not there (package rustc-web)"))?;
    if found.minor < OLDEST_RUSTC_MINOR {
        return Err(format!(
            "{DEBIAN_RUSTC} is {}, edition 2024 needs 1.{OLDEST_RUSTC_MINOR} (package rustc-web)",
            found.release
        ));
    }
    if found.llvm > LINKER_LLVM {
        return Err(format!(
            "{DEBIAN_RUSTC} uses LLVM {}, newer than the {LINKER_LLVM} of the linker this project builds",
            found.llvm
        ));
    }
    if !Path::new(DEBIAN_CARGO).is_file() {
        return Err(format!("{DEBIAN_CARGO} is not there (package cargo-web)"));
    }
    if !Path::new(DEBIAN_SOURCE).join("library/Cargo.lock").is_file() {
        return Err(format!("{DEBIAN_SOURCE} is not there (package rust-web-src)"));
    }
    Ok(found)
}

/// The project's own linker; it is run once because a removed libLLVM leaves a file that cannot start.
pub(crate) fn local_linker(root: &Path) -> Result<PathBuf, String> {
    let path = local_linker_path(root);
    if !path.is_file() {
        return Err("bpf-linker is not built yet (.tools/bin/bpf-linker)".to_owned());
    }
    match answer(Command::new(&path).arg("--version")) {
        Some(_) => Ok(path),
        None => Err(".tools/bin/bpf-linker does not start (is libLLVM still installed?)".to_owned()),
    }
}

pub(crate) fn local_linker_path(root: &Path) -> PathBuf {
    root.join(".tools/bin/bpf-linker")
}

/// What `rustc -vV` says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rustc {
    pub(crate) release: String,
    pub(crate) minor: u32,
    pub(crate) llvm: u32,
}

impl Rustc {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let release = field("release:")?;
        let minor = release.split('.').nth(1)?.parse().ok()?;
        let llvm = field("LLVM version:")?.split('.').next()?.parse().ok()?;
        Some(Self { release: release.to_owned(), minor, llvm })
    }
}

impl Toolchain {
    /// One line for people.
    pub(crate) fn describe(&self) -> String {
        let origin = match self.origin {
            Origin::Nightly => "rustup nightly",
            Origin::Debian => "Debian's rustc-web",
        };
        format!("{origin} {}, linker {}", self.rustc_version, self.linker.display())
    }

    /// `cargo VERB` over the eBPF crate with everything set but the verb's own arguments.
    pub(crate) fn cargo(&self, root: &Path, target: Target<'_>, verb: &str) -> Command {
        let mut command = match self.origin {
            Origin::Nightly => {
                let mut command = Command::new("rustup");
                command.args(["run", "nightly", "cargo", verb]);
                command
            }
            // Called by its path: `cargo clippy` would find rustup's proxy first.
            Origin::Debian if verb == "clippy" => {
                let mut command = Command::new(DEBIAN_CLIPPY);
                command.arg(verb);
                command
            }
            Origin::Debian => {
                let mut command = Command::new(DEBIAN_CARGO);
                command.arg(verb);
                command
            }
        };
        scrub(&mut command);
        if self.origin == Origin::Debian {
            // A stable compiler: the unstable `build-std` must be unlocked. The outer cargo's
            // libraries would be loaded in place of Debian's.
            command.env("RUSTC_BOOTSTRAP", "1").env("RUSTC", DEBIAN_RUSTC).env("CARGO", DEBIAN_CARGO);
            command.env_remove("LD_LIBRARY_PATH");
        }
        // Encoded, because a path may hold spaces. Debug information and `--btf` together make the
        // linker write BTF, without which maps declared through BTF cannot be loaded.
        let mut flags = OsString::from(format!("--cfg=bpf_target_arch=\"{}\"", target.bpf_arch()));
        flags.push("\x1f-Cdebuginfo=2\x1f-Clink-arg=--btf\x1f-Clinker=");
        flags.push(&self.linker);
        // The verifier quotes source lines by file name: one that is the same in every checkout.
        flags.push("\x1f--remap-path-prefix=");
        flags.push(root);
        flags.push("=.");
        command
            .env("CARGO_ENCODED_RUSTFLAGS", flags)
            .current_dir(root.join("enforcer-ebpf"))
            .args(["--release", "-Z", "build-std=core", "--target", target.triple(), "--target-dir"])
            .arg(target_dir(root));
        command
    }

    /// Whether the toolchain has a linter of its own version.
    pub(crate) fn has_clippy(&self) -> bool {
        match self.origin {
            Origin::Debian => Path::new(DEBIAN_CLIPPY).is_file(),
            Origin::Nightly => {
                let mut command = Command::new("rustup");
                scrub(&mut command);
                answer(command.args(["run", "nightly", "cargo-clippy", "--version"])).is_some()
            }
        }
    }

    /// Builds the object and returns where it lies.
    pub(crate) fn build(&self, root: &Path, target: Target<'_>) -> Result<PathBuf, String> {
        let source = root.join("enforcer-ebpf/src/main.rs");
        if !source.is_file() {
            return Err(format!("{} is not there: the checkout is incomplete", source.display()));
        }
        let mut command = self.cargo(root, target, "build");
        // A build script's standard output is read by cargo as directives.
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status();
        match status {
            Ok(status) if status.success() => {}
            Ok(status) => {
                return Err(format!(
                    "building enforcer-ebpf failed ({status}) with {}; the compiler's own words are above, \
                     `cargo xtask ebpf` shows them alone",
                    self.describe()
                ));
            }
            Err(error) => return Err(format!("cannot start {}: {error}", command.get_program().display())),
        }
        let object = target_dir(root).join(target.triple()).join("release/enforcer-ebpf");
        if object.is_file() { Ok(object) } else { Err(format!("{} was not written", object.display())) }
    }
}

/// Apart from the host's: an inner cargo must not wait for a lock that the outer one holds.
fn target_dir(root: &Path) -> PathBuf {
    root.join("target/ebpf")
}

/// Takes the marks of an outer cargo or rustup off a command, which would otherwise pick the host's
/// compiler, flags or target folder. What configures the network and the user's own folders stays.
pub(crate) fn scrub(command: &mut Command) {
    const KEPT: [&str; 6] =
        ["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR", "CARGO_SOURCE_", "CARGO_TERM_"];
    const OUTER: [&str; 12] = [
        "OUT_DIR",
        "TARGET",
        "HOST",
        "NUM_JOBS",
        "OPT_LEVEL",
        "PROFILE",
        "DEBUG",
        "MAKEFLAGS",
        "MFLAGS",
        "RUSTC",
        "RUSTDOC",
        "CLIPPY_ARGS",
    ];
    for (name, _) in env::vars_os() {
        let Some(text) = name.to_str() else { continue };
        let family = ["CARGO", "RUSTC_", "RUSTFLAGS", "RUSTDOC", "RUSTUP_TOOLCHAIN", "CLIPPY", "DEP_"];
        let is_outer = OUTER.contains(&text) || family.iter().any(|prefix| text.starts_with(prefix));
        if is_outer && !KEPT.iter().any(|kept| text.starts_with(kept)) {
            command.env_remove(&name);
        }
    }
}

/// The first executable of that name in `PATH`.
pub(crate) fn in_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(OsStr::new(name))).find(|file| file.is_file())
}

/// Standard output of a command that succeeded, silent otherwise.
fn answer(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_rustc_says() {
        let text = "rustc 1.96.0 (x)\nbinary: rustc\nrelease: 1.96.0-nightly\nLLVM version: 22.1.8\n";
        let read = Rustc::parse(text).unwrap();
        assert_eq!((read.minor, read.llvm, read.release.as_str()), (96, 22, "1.96.0-nightly"));
        assert_eq!(Rustc::parse("rustc 1.63.0"), None);
    }

    #[test]
    fn architecture_names_are_the_kernels() {
        let target = Target { arch: "riscv64gc", big_endian: false };
        assert_eq!((target.bpf_arch().as_str(), target.triple()), ("riscv64", "bpfel-unknown-none"));
    }
}
