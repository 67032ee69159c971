//! `cargo xtask image`: one file that containerd, Docker and Podman load without a registry.
//!
//! The image holds one static binary and what tells about it; there is no shell, no package manager and no library. The
//! same sources give the same bytes: everything is sorted, and all times are the one of the commit, or of
//! `SOURCE_DATE_EPOCH`.

mod layout;
mod sbom;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use self::layout::Image;
use crate::archive::{Owner, ROOT, Tree};
use crate::release::{self, Build};
use crate::shell;

/// Write an OCI image with the static binary, to be loaded by ctr, docker or podman; and its list of components
///
/// `ctr -n k8s.io images import FILE`, `docker load -i FILE` and `podman load -i FILE` take it. The binary is built as it is
/// released, into a target directory of its own.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where to write the image
    #[arg(long, value_name = "FILE", default_value = "target/image/enforcer.tar")]
    out: PathBuf,
    /// Name of the image; `localhost/` is never fetched from anywhere
    #[arg(long, value_name = "NAME", default_value = DEFAULT_NAME)]
    name: String,
    /// Binary to pack instead of building one; it has to be static
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Build quickly, not as it is released
    #[arg(long)]
    debug: bool,
}

/// Nobody else can own this name, so that a node without the image never gets somebody else's.
pub(crate) const DEFAULT_NAME: &str = concat!("localhost/enforcer:", env!("CARGO_PKG_VERSION"));

/// Who owns the files: nobody that a process of the image ever is, so that none of them can change them.
const OWNER: Owner = (65_532, 65_532);

/// Builds the image for tests, quickly or of a binary that is there, and returns where it is.
pub(crate) fn build(root: &Path, binary: Option<&Path>) -> Result<PathBuf> {
    let out = root.join("target/image/debug.tar");
    let binary = binary.map(Path::to_owned);
    run(&Arguments { out: out.clone(), name: DEFAULT_NAME.to_owned(), binary, debug: true })?;
    Ok(out)
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let root = shell::root()?;
    let binary = match &arguments.binary {
        Some(binary) => binary.clone(),
        None => release::build(&root, if arguments.debug { Build::Debug } else { Build::Release })?,
    };
    let binary = fs::read(&binary).with_context(|| format!("cannot read {}", binary.display()))?;
    release::require_static(&binary)?;
    let time = release::time(&root)?;
    let sbom = components(&root, time)?;
    let image = Image {
        name: &arguments.name,
        version: env!("CARGO_PKG_VERSION"),
        revision: &release::revision(&root)?,
        time,
        layer: files(&root, &binary, &sbom)?.tar(time)?,
    };
    let bytes = image.archive()?;
    let out = root.join(&arguments.out);
    if let Some(folder) = out.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let list = out.with_extension("cdx.json");
    for (file, content) in [(&out, &*bytes), (&list, sbom.as_bytes())] {
        fs::write(file, content).with_context(|| format!("cannot write {}", file.display()))?;
    }
    println!("{}: {}, {} bytes, {}", out.display(), arguments.name, bytes.len(), layout::digest(&bytes));
    println!("{}: {} components", list.display(), sbom::count(&sbom)?);
    Ok(ExitCode::SUCCESS)
}

/// The list of what is in the binary, for other packages of it.
pub(crate) fn components(root: &Path, time: u64) -> Result<String> {
    sbom::write(root, time)
}

/// What is in the image.
fn files(root: &Path, binary: &[u8], sbom: &str) -> Result<Tree> {
    let mut tree = Tree::default();
    tree.file("usr/bin/enforcer", 0o555, OWNER, binary);
    for (path, text) in [
        (
            "etc/passwd",
            "root:x:0:0:root:/:/sbin/nologin\nenforcer:x:65532:65532:owner of the files:/:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n",
        ),
        ("etc/group", "root:x:0:\nenforcer:x:65532:\nnogroup:x:65534:\n"),
        // Without it the C library asks for sources of names that are not there.
        ("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
        ("usr/share/doc/enforcer/sbom.cdx.json", sbom),
    ] {
        tree.file(path, 0o444, OWNER, text);
    }
    for name in ["LICENSE-APACHE", "LICENSE-MIT"] {
        let text = fs::read(root.join(name)).with_context(|| format!("cannot read {name}"))?;
        tree.file(&format!("usr/share/doc/enforcer/{name}"), 0o444, OWNER, text);
    }
    // Where the host's directories are mounted.
    for path in ["dev", "etc/enforcer", "host/run", "proc", "run/enforcer", "sys", "var/lib/enforcer"] {
        tree.directory(path, 0o755, ROOT);
    }
    tree.complete();
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_program_and_no_shell() {
        let tree = files(&shell::root().unwrap(), b"\x7fELF", "{}").unwrap();
        let programs: Vec<&str> = tree
            .entries()
            .filter(|(_, entry)| entry.content.is_some() && entry.mode & 0o111 != 0)
            .map(|(path, _)| path)
            .collect();
        assert_eq!(programs, ["usr/bin/enforcer"]);
    }

    #[test]
    fn nobody_who_runs_there_owns_or_may_write_a_file() {
        let tree = files(&shell::root().unwrap(), b"", "{}").unwrap();
        for (path, entry) in tree.entries().filter(|(_, entry)| entry.content.is_some()) {
            assert_eq!((entry.owner, entry.mode & 0o222), (OWNER, 0), "{path}");
        }
    }
}
