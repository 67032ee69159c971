//! What a test machine consists of: the suite, the product, the libraries they load, and an init.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::cpio::Archive;
use crate::setup::Kernel;
use crate::shell;
use crate::suite::Binaries;

/// Mount points and folders that the kernel's own first file system does not have.
const FOLDERS: [&str; 9] = ["bin", "dev", "etc", "modules", "proc", "root", "run", "sys", "tmp"];

/// Writes the first file system of `kernel` to `target`, with `arguments` for the suite.
pub(super) fn write(
    root: &Path,
    target: &Path,
    kernel: &Kernel,
    binaries: &Binaries,
    arguments: &[String],
) -> Result<()> {
    let file = File::create(target).with_context(|| format!("cannot create {}", target.display()))?;
    let mut image = Image::new(BufWriter::new(file));
    for folder in FOLDERS {
        image.folder(folder)?;
    }
    image.archive.device("dev/console", 5, 1)?;
    image.file("etc/hosts", b"127.0.0.1 localhost\n::1 localhost\n")?;
    image.file("etc/live-args", arguments.join("\n").as_bytes())?;
    let programs =
        [("init", &binaries.init), ("bin/live", &binaries.live), ("bin/enforcer", &binaries.enforcer)];
    let mut libraries = BTreeSet::new();
    for (name, path) in programs {
        libraries.extend(libraries_of(path)?);
        let small = stripped(path, target)?;
        image.program(name, &small)?;
    }
    for library in libraries {
        image.program(inside(&library), &read(Path::new(&library))?)?;
    }
    image.tree(&root.join("policies"), "policies")?;
    image.tree(&root.join("tests/conformance"), "conformance")?;
    image.tree(&kernel.modules, "modules")?;
    image.archive.finish()?;
    Ok(())
}

/// A first file system that is written, each folder before what is in it.
#[derive(Debug)]
pub(super) struct Image<W> {
    pub(super) archive: Archive<W>,
    folders: BTreeSet<String>,
}

impl<W: Write> Image<W> {
    pub(super) fn new(out: W) -> Self {
        Self { archive: Archive::new(out), folders: BTreeSet::new() }
    }

    /// Creates a folder and those above it, once.
    pub(super) fn folder(&mut self, name: &str) -> Result<()> {
        let above = name.char_indices().filter(|(_, letter)| *letter == '/').map(|(at, _)| &name[..at]);
        for folder in above.chain([name]) {
            if !folder.is_empty() && self.folders.insert(folder.to_owned()) {
                self.archive.folder(folder)?;
            }
        }
        Ok(())
    }

    fn parent(&mut self, name: &str) -> Result<()> {
        name.rsplit_once('/').map_or(Ok(()), |(folder, _)| self.folder(folder))
    }

    pub(super) fn file(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.parent(name)?;
        Ok(self.archive.file(name, bytes)?)
    }

    pub(super) fn program(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.parent(name)?;
        Ok(self.archive.program(name, bytes)?)
    }

    pub(super) fn link(&mut self, name: &str, to: &str) -> Result<()> {
        self.parent(name)?;
        Ok(self.archive.link(name, to)?)
    }

    /// A folder with everything in it; one that is not there is an empty one.
    pub(super) fn tree(&mut self, from: &Path, to: &str) -> Result<()> {
        self.folder(to)?;
        if !from.is_dir() {
            return Ok(());
        }
        for entry in fs::read_dir(from).with_context(|| format!("cannot list {}", from.display()))? {
            let path = entry?.path();
            let name = format!("{to}/{}", path.file_name().unwrap_or_default().to_string_lossy());
            if path.is_dir() { self.tree(&path, &name)? } else { self.file(&name, &read(&path)?)? }
        }
        Ok(())
    }
}

pub(super) fn inside(path: &str) -> &str {
    path.trim_start_matches('/')
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The program without line tables: they triple the image, and names are enough for a backtrace.
pub(super) fn stripped(program: &Path, target: &Path) -> Result<Vec<u8>> {
    let copy: PathBuf = target.with_extension("stripped");
    let mut strip = Command::new("strip");
    strip.arg("--strip-debug").arg("-o").arg(&copy).arg(program);
    // Binutils come with every C compiler; without them the image is larger and just as good.
    let done = strip.status().is_ok_and(|status| status.success());
    let bytes = read(if done { &copy } else { program })?;
    if done {
        fs::remove_file(&copy).with_context(|| format!("cannot remove {}", copy.display()))?;
    }
    Ok(bytes)
}

pub(super) fn libraries_of(program: &Path) -> Result<Vec<String>> {
    let text = shell::capture(Command::new("ldd").arg(program), &format!("ldd {}", program.display()))?;
    Ok(parse_ldd(&text))
}

/// Lines read `name => /path (0x...)`, or `/path (0x...)` for the loader itself.
fn parse_ldd(text: &str) -> Vec<String> {
    let words = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(str::to_owned);
    text.lines().filter_map(words).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_ldd() {
        let text = "\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /lib/a/libc.so.6 (0x2)\n\t/lib64/ld.so.2 (0x3)\n";
        assert_eq!(parse_ldd(text), ["/lib/a/libc.so.6", "/lib64/ld.so.2"]);
    }

    #[test]
    fn folders_come_before_their_files_and_once() {
        let mut image = Image::new(Vec::new());
        image.file("a/b/c", b"1").unwrap();
        image.file("a/b/d", b"2").unwrap();
        let bytes = image.archive.finish().unwrap();
        let text = String::from_utf8_lossy(&bytes);
        let at = |name: &str| text.find(name).unwrap();
        assert!(at("a\0") < at("a/b\0") && at("a/b\0") < at("a/b/c\0"));
        assert_eq!(text.matches("a/b\0").count(), 1);
    }
}
