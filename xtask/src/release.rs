//! What is released: the static binary, and the facts that go into every package of it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::shell;

/// How the binary is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Build {
    /// Soon.
    Debug,
    /// As it is released.
    Release,
}

/// Builds `enforcer` with everything in it, the C library included, so that it runs wherever there is a kernel.
///
/// In a target directory of its own: other flags would have the usual one built anew.
pub(crate) fn build(root: &Path, build: Build) -> Result<PathBuf> {
    let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let target = root.join("target/static");
    let mut cargo = shell::cargo(root);
    cargo.args(["build", "--locked", "--package", "enforcer", "--bin", "enforcer", "--target", &host]);
    cargo.arg("--target-dir").arg(&target);
    // With --target the flags are the binary's alone: build scripts and macros stay as they are. Paths of the machine that
    // builds are left out of the binary, or two machines would never build the same one.
    let flags = format!("-C target-feature=+crt-static{}", remap(root));
    cargo.env("RUSTFLAGS", flags);
    if build == Build::Release {
        cargo.arg("--release");
    }
    let hint = "the C library has to be there as an archive too: `apt-get install libc6-dev`";
    shell::require(&mut cargo, "building the static binary", hint)?;
    let profile = if build == Build::Release { "release" } else { "debug" };
    Ok(target.join(host).join(profile).join("enforcer"))
}

fn remap(root: &Path) -> String {
    let cargo_home = std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| {
        let home = std::env::var_os("HOME")?;
        Some(Path::new(&home).join(".cargo"))
    });
    let homes = cargo_home.map(|home| (home, "/cargo"));
    [(root.to_owned(), "/enforcer")]
        .into_iter()
        .chain(homes)
        .fold(String::new(), |text, (from, to)| format!("{text} --remap-path-prefix={}={to}", from.display()))
}

/// Refuses a binary that needs an interpreter or libraries, by its own program headers.
pub(crate) fn require_static(binary: &[u8]) -> Result<()> {
    /// `PT_DYNAMIC` of a position-independent program is no need of libraries; `PT_INTERP` is.
    const PT_INTERP: u32 = 3;
    let headers = program_headers(binary).context("this is not a 64-bit ELF program of this machine")?;
    if headers.contains(&PT_INTERP) {
        bail!("this binary needs the dynamic linker, and the image has none; build it with +crt-static");
    }
    Ok(())
}

/// Kinds of the program headers (elf(5), little-endian, 64 bits).
fn program_headers(binary: &[u8]) -> Option<Vec<u32>> {
    let half = |at: usize| Some(u16::from_le_bytes(binary.get(at..at + 2)?.try_into().ok()?));
    let word = |at: usize| Some(u32::from_le_bytes(binary.get(at..at + 4)?.try_into().ok()?));
    let long = |at: usize| Some(u64::from_le_bytes(binary.get(at..at + 8)?.try_into().ok()?));
    if !binary.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let (start, size, count) = (usize::try_from(long(32)?).ok()?, usize::from(half(54)?), half(56)?);
    (0..usize::from(count)).map(|index| word(start.checked_add(index * size)?)).collect()
}

/// The one time of everything in a package: `SOURCE_DATE_EPOCH`, or that of the commit. Seconds since 1970.
pub(crate) fn time(root: &Path) -> Result<u64> {
    let given = std::env::var("SOURCE_DATE_EPOCH").ok();
    let text = match given {
        Some(text) => text,
        None => git(root, &["log", "-1", "--format=%ct"])
            .context("without git, SOURCE_DATE_EPOCH has to say the time of the sources")?,
    };
    text.trim().parse().with_context(|| format!("`{}` is no number of seconds since 1970", text.trim()))
}

/// The commit that is built.
pub(crate) fn revision(root: &Path) -> Result<String> {
    match std::env::var("SOURCE_REVISION") {
        Ok(revision) => Ok(revision),
        Err(_) => Ok(git(root, &["rev-parse", "HEAD"])?.trim().to_owned()),
    }
}

fn git(root: &Path, arguments: &[&str]) -> Result<String> {
    shell::capture(Command::new("git").arg("-C").arg(root).args(arguments), "asking git")
}

/// `2023-11-14T22:13:20Z`, from seconds since 1970.
pub(crate) fn timestamp(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days from 1 March of year 0 (Howard Hinnant, "chrono-compatible low-level date algorithms").
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_700_000_000, "2023-11-14T22:13:20Z"),
            (4_102_444_799, "2099-12-31T23:59:59Z"),
        ] {
            assert_eq!(timestamp(seconds), text);
        }
    }

    /// An ELF header with one program header of this kind behind it.
    fn program(kind: u32) -> Vec<u8> {
        let mut bytes = vec![0; 64 + 56];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[32] = 64;
        bytes[54] = 56;
        bytes[56] = 1;
        bytes[64..68].copy_from_slice(&kind.to_le_bytes());
        bytes
    }

    #[test]
    fn a_program_that_needs_a_linker_is_refused() {
        require_static(&program(1)).unwrap();
        assert!(require_static(&program(3)).unwrap_err().to_string().contains("+crt-static"));
        assert!(require_static(b"#!/bin/sh").is_err());
        // The tests are linked with the linker.
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(cfg!(target_feature = "crt-static") || require_static(&own).is_err());
    }
}
