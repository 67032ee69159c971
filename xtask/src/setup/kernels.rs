//! The other kernels of the test matrix: Debian packages, unpacked into `.tools/kernels/`, never installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::apt::Apt;
use crate::shell;

/// A line of the matrix.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Line {
    pub(crate) name: &'static str,
    /// The package that always depends on the newest build of that line.
    package: &'static str,
}

pub(crate) const KERNELS: [Line; 2] = [
    Line { name: "6.1", package: "linux-image-cloud-amd64" },
    Line { name: "6.12", package: "linux-image-6.12-cloud-amd64" },
];

/// What the live suite uses and these kernels do not have built in, in loading order: each after what it needs.
const MODULES: [&str; 20] = [
    "inet_diag",
    "tcp_diag",
    "udp_diag",
    "veth",
    "dummy",
    // The ways round the hooks that only a kernel with these has.
    "libcrc32c",
    "udp_tunnel",
    "ip6_udp_tunnel",
    "sctp",
    "dccp",
    "dccp_ipv4",
    "dccp_ipv6",
    "l2tp_core",
    "l2tp_ip",
    "l2tp_ip6",
    "vsock",
    "vmw_vsock_virtio_transport_common",
    "vsock_loopback",
    "af_alg",
    "kcm",
];

/// An unpacked kernel.
#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    /// As `uname -r` will say.
    pub(crate) release: String,
    pub(crate) image: PathBuf,
    /// Folder of modules whose names sort in loading order.
    pub(crate) modules: PathBuf,
}

/// By which an unpacked kernel is known to have been unpacked for this list.
fn wanted() -> String {
    MODULES.join("\n")
}

/// The unpacked kernel of that line, or what is missing.
pub(crate) fn find(root: &Path, name: &str) -> Result<Kernel, String> {
    let folder = root.join(".tools/kernels").join(name);
    let missing = |_| format!("not unpacked yet (.tools/kernels/{name})");
    let release = fs::read_to_string(folder.join("release")).map_err(missing)?;
    if fs::read_to_string(folder.join("wanted")).unwrap_or_default() != wanted() {
        return Err(format!("unpacked with other modules (.tools/kernels/{name})"));
    }
    Ok(Kernel {
        release: release.trim().to_owned(),
        image: folder.join("vmlinuz"),
        modules: folder.join("modules"),
    })
}

/// Fetches and unpacks one line.
pub(super) fn obtain(root: &Path, name: &str, apt: &mut Apt) -> Result<()> {
    let Some(line) = KERNELS.iter().find(|line| line.name == name) else {
        bail!("no kernel line {name} in the matrix; there are 6.1 and 6.12");
    };
    let package = if let Ok(package) = real_package(line) {
        package
    } else {
        // The lists may be absent or older than the archive.
        apt.update(line.package)?;
        real_package(line)?
    };
    println!("setup: unpacking {package} into .tools/kernels/{name} (it is not installed)");
    let folder = root.join(".tools/kernels").join(name);
    let work = root.join(".tools/kernels").join(format!("{name}.partial"));
    recreate(&work)?;
    if download(&work, &package).is_err() {
        // A listed build that the archive has replaced since: the lists are stale.
        apt.update(line.package)?;
        download(&work, &real_package(line)?)?;
    }
    let tree = work.join("tree");
    for file in files(&work)?.iter().filter(|file| file.extension().is_some_and(|end| end == "deb")) {
        let mut unpack = Command::new("dpkg-deb");
        unpack.arg("-x").arg(file).arg(&tree);
        shell::require(&mut unpack, "unpacking the kernel package", "run `cargo xtask setup` again")?;
    }
    let kept = work.join("kept");
    keep(&tree, &kept)?;
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    fs::rename(&kept, &folder).with_context(|| format!("cannot move into {}", folder.display()))?;
    fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))
}

/// The package with the kernel in it, behind the line's own one. Debian names it after its build,
/// signed or, where no signature was made, with `-unsigned` at its end.
fn real_package(line: &Line) -> Result<String> {
    let text = shell::capture(
        Command::new("apt-cache").args(["depends", "--important", line.package]),
        "apt-cache depends",
    )?;
    match parse_depends(&text) {
        Some(package) => Ok(package),
        None => bail!(
            "the package lists know no kernel behind {}; `apt-get update`, or a source with Debian's kernels, helps",
            line.package
        ),
    }
}

fn parse_depends(text: &str) -> Option<String> {
    let names = text.lines().filter_map(|line| line.trim().strip_prefix("Depends:")).map(str::trim);
    let mut found = names.filter(|name| name.starts_with("linux-image-"));
    found.next().map(str::to_owned)
}

pub(super) fn download(folder: &Path, package: &str) -> Result<()> {
    let mut command = Command::new("apt-get");
    // Without the setting apt warns that its own user cannot write into a private folder.
    command.current_dir(folder).args(["--option", "APT::Sandbox::User=root", "download", package]);
    shell::require(
        &mut command,
        &format!("apt-get download {package}"),
        "check the network, then run setup again",
    )
}

fn keep(tree: &Path, kept: &Path) -> Result<()> {
    let boot = files(&tree.join("boot"))?;
    let Some((image, release)) = boot
        .iter()
        .find_map(|file| Some((file, file.file_name()?.to_str()?.strip_prefix("vmlinuz-")?.to_owned())))
    else {
        bail!("the kernel package has no boot/vmlinuz-*; Debian changed its layout, please report it");
    };
    let modules = kept.join("modules");
    fs::create_dir_all(&modules).with_context(|| format!("cannot create {}", modules.display()))?;
    copy(image, &kept.join("vmlinuz"))?;
    let mut all = Vec::new();
    walk(&tree.join("lib/modules"), &mut all)?;
    walk(&tree.join("usr/lib/modules"), &mut all)?;
    for (rank, wanted) in MODULES.iter().enumerate() {
        // Built in or dropped in some line: then there is nothing to load.
        let Some((file, end)) = all.iter().find_map(|file| {
            let name = file.file_name()?.to_str()?;
            let (stem, end) = name.split_once('.')?;
            (stem.replace('-', "_") == *wanted).then_some((file, end))
        }) else {
            continue;
        };
        copy(file, &modules.join(format!("{rank:02}-{wanted}.{end}")))?;
    }
    fs::write(kept.join("wanted"), wanted()).context("cannot write the list of modules")?;
    // Written last: its presence says that the folder is complete.
    fs::write(kept.join("release"), format!("{release}\n")).context("cannot write the kernel's release")
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

pub(super) fn recreate(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))
}

pub(super) fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    for path in files(folder)? {
        if path.is_symlink() {
            continue;
        }
        if path.is_dir() { walk(&path, found)? } else { found.push(path) }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_real_package_is_read_from_the_dependencies() {
        let text = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-56-cloud-amd64\n";
        assert_eq!(parse_depends(text).as_deref(), Some("linux-image-6.1.0-56-cloud-amd64"));
        let text = "x\n  Depends: <debconf-2.0>\n  Depends: linux-image-6.1.0-9-cloud-amd64-unsigned\n";
        assert_eq!(parse_depends(text).as_deref(), Some("linux-image-6.1.0-9-cloud-amd64-unsigned"));
        assert_eq!(parse_depends("x\n"), None);
    }
}
