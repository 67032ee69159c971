//! `cargo xtask deb`: a Debian package of the static binary, the unit and what belongs to it.
//!
//! Written here and not by a packaging tool: it is three archives in a fourth, and the same files give the same bytes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};

use crate::archive::{ROOT, Tree};
use crate::release::{self, Build};
use crate::{image, shell};

/// Write a Debian package
///
/// `apt install ./FILE` installs it, `apt remove enforcer` stops the agent and takes out of the kernel what it has put there.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where to write it
    #[arg(long, value_name = "DIR", default_value = "target/debian")]
    out: PathBuf,
    /// Binary to pack instead of building one; it has to be static
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Build quickly, not as it is released
    #[arg(long)]
    debug: bool,
    /// Version of the package, when it is not that of the binary
    #[arg(long, value_name = "VERSION", default_value = env!("CARGO_PKG_VERSION"))]
    version: String,
}

/// Files that a person may change, which an upgrade leaves as they are.
const CONFIGURATION: [&str; 2] = ["etc/enforcer/enforcer.yaml", "etc/enforcer/workloads.yaml"];

/// Files of the checkout, and where they go.
const FILES: [(&str, &str); 9] = [
    ("deploy/systemd/enforcer.service", "usr/lib/systemd/system/enforcer.service"),
    ("deploy/systemd/tmpfiles.conf", "usr/lib/tmpfiles.d/enforcer.conf"),
    ("deploy/systemd/sysusers.conf", "usr/lib/sysusers.d/enforcer.conf"),
    ("deploy/systemd/enforcer.yaml", CONFIGURATION[0]),
    ("deploy/systemd/workloads.yaml", CONFIGURATION[1]),
    ("docs/install.md", "usr/share/doc/enforcer/install.md"),
    ("CHANGELOG.md", "usr/share/doc/enforcer/changelog"),
    ("LICENSE-MIT", "usr/share/doc/enforcer/LICENSE-MIT"),
    ("LICENSE-APACHE", "usr/share/doc/enforcer/LICENSE-APACHE"),
];

/// Run by dpkg, in the order of an installation's life.
const SCRIPTS: [(&str, &str); 3] = [
    ("postinst", include_str!("postinst.sh")),
    ("prerm", include_str!("prerm.sh")),
    ("postrm", include_str!("postrm.sh")),
];

const COPYRIGHT: &str = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n\
    Files: *\nCopyright: The enforcer authors\nLicense: MIT or Apache-2.0\n\
    \x20Both are in this directory; sbom.cdx.json names those of what is linked.\n";

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let root = shell::root()?;
    let path = match &arguments.binary {
        Some(binary) => binary.clone(),
        None => release::build(&root, if arguments.debug { Build::Debug } else { Build::Release })?,
    };
    let binary = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    release::require_static(&binary)?;
    let time = release::time(&root)?;
    let mut tree = files(&root, binary)?;
    tree.file("usr/share/doc/enforcer/sbom.cdx.json", 0o644, ROOT, image::components(&root, time)?);
    told_by_the_binary(&path, &mut tree)?;
    tree.complete();
    let package = package(&tree, &arguments.version, time)?;
    let out = root.join(&arguments.out);
    fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    let file = out.join(format!("enforcer_{}_{}.deb", arguments.version, architecture()));
    fs::write(&file, &package).with_context(|| format!("cannot write {}", file.display()))?;
    println!("{}: {} bytes", file.display(), package.len());
    Ok(ExitCode::SUCCESS)
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// What the package installs, but for what the binary tells of itself.
pub(crate) fn files(root: &Path, binary: Vec<u8>) -> Result<Tree> {
    let mut tree = Tree::default();
    tree.file("usr/bin/enforcer", 0o755, ROOT, binary);
    for (from, to) in FILES {
        let text = fs::read(root.join(from)).with_context(|| format!("cannot read {from}"))?;
        tree.file(to, 0o644, ROOT, text);
    }
    tree.file("usr/share/doc/enforcer/copyright", 0o644, ROOT, COPYRIGHT);
    tree.directory("etc/enforcer/policies.d", 0o755, ROOT);
    Ok(tree)
}

/// Man pages and completions, which come from the types of the command line.
fn told_by_the_binary(binary: &Path, tree: &mut Tree) -> Result<()> {
    let folder = std::env::temp_dir().join(format!("enforcer-man-{}", std::process::id()));
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let written = man_pages(binary, &folder, tree);
    fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    written?;
    for (name, to) in [
        ("bash", "usr/share/bash-completion/completions/enforcer"),
        ("zsh", "usr/share/zsh/vendor-completions/_enforcer"),
        ("fish", "usr/share/fish/vendor_completions.d/enforcer.fish"),
    ] {
        let text = shell::capture(Command::new(binary).args(["completion", name]), "asking for completions")?;
        tree.file(to, 0o644, ROOT, text);
    }
    Ok(())
}

fn man_pages(binary: &Path, folder: &Path, tree: &mut Tree) -> Result<()> {
    shell::capture(Command::new(binary).args(["man", "--out"]).arg(folder), "asking for the man pages")?;
    for entry in fs::read_dir(folder).context("cannot list the man pages")? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let text = fs::read(entry.path()).with_context(|| format!("cannot read {name}"))?;
        tree.file(&format!("usr/share/man/man1/{name}"), 0o644, ROOT, text);
    }
    Ok(())
}

/// The package: its format's version, what dpkg has to know, and the files.
fn package(tree: &Tree, version: &str, time: u64) -> Result<Vec<u8>> {
    let mut about = Tree::default();
    about.file("control", 0o644, ROOT, control(tree, version));
    let configuration: String =
        CONFIGURATION.iter().fold(String::new(), |text, path| text + "/" + path + "\n");
    about.file("conffiles", 0o644, ROOT, configuration);
    for (name, text) in SCRIPTS {
        about.file(name, 0o755, ROOT, text);
    }
    let mut package = b"!<arch>\n".to_vec();
    member(&mut package, "debian-binary", b"2.0\n", time);
    member(&mut package, "control.tar", &about.tar(time)?, time);
    member(&mut package, "data.tar", &tree.tar(time)?, time);
    Ok(package)
}

fn control(tree: &Tree, version: &str) -> String {
    let bytes: usize = tree.entries().filter_map(|(_, entry)| entry.content.as_ref()).map(Vec::len).sum();
    format!(
        "Package: enforcer\nVersion: {version}\nArchitecture: {}\nMaintainer: The enforcer maintainers\n\
         Installed-Size: {}\nSection: net\nPriority: optional\n\
         Description: identity-based network enforcement for workloads\n\
         \x20Decides in the kernel, by eBPF programs on cgroup and socket hooks, which workload may\n\
         \x20talk with which, by label. The agent loads policies and tells the kernel who is who; what\n\
         \x20it has loaded is enforced whether it runs or not.\n",
        architecture(),
        bytes.div_ceil(1024)
    )
}

/// A member of an ar(5) archive; each begins at an even place.
fn member(archive: &mut Vec<u8>, name: &str, content: &[u8], time: u64) {
    let size = content.len();
    archive.extend_from_slice(format!("{name:<16}{time:<12}0     0     100644  {size:<10}`\n").as_bytes());
    archive.extend_from_slice(content);
    if size % 2 == 1 {
        archive.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_begin_at_even_places() {
        let mut archive = b"!<arch>\n".to_vec();
        member(&mut archive, "a", b"odd", 7);
        member(&mut archive, "b", b"", 7);
        assert_eq!(archive.len(), 8 + 60 + 4 + 60);
        assert_eq!(&archive[8..10], b"a ");
        assert_eq!(&archive[8 + 60 + 4 - 1..][..2], b"\nb");
    }

    /// dpkg itself reads it, where there is one.
    #[test]
    fn dpkg_reads_the_package() {
        let root = shell::root().unwrap();
        let mut tree = files(&root, b"\x7fELF".to_vec()).unwrap();
        tree.complete();
        let bytes = package(&tree, "1.2.3", 1_700_000_000).unwrap();
        assert_eq!(bytes, package(&tree, "1.2.3", 1_700_000_000).unwrap());
        let file = std::env::temp_dir().join(format!("enforcer-test-{}.deb", std::process::id()));
        fs::write(&file, &bytes).unwrap();
        let ask = |arguments: &[&str]| {
            let output = Command::new("dpkg-deb").args(arguments).arg(&file).output().ok()?;
            assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
            Some(String::from_utf8(output.stdout).unwrap())
        };
        let told = ask(&["--field"]).zip(ask(&["--contents"]));
        fs::remove_file(&file).unwrap();
        let Some((fields, contents)) = told else { return };
        assert!(fields.contains("Package: enforcer\nVersion: 1.2.3\n"), "{fields}");
        for path in CONFIGURATION.into_iter().chain(FILES.map(|(_, to)| to)).chain(["usr/bin/enforcer"]) {
            assert!(contents.lines().any(|line| line.ends_with(&format!(" {path}"))), "{path} in {contents}");
        }
        assert!(
            contents.lines().all(|line| line.contains(" root/root ") || line.contains(" 0/0 ")),
            "{contents}"
        );
    }

    fn dpkg(root: &Path, arguments: &[&str]) -> String {
        let output = Command::new("dpkg")
            .arg(format!("--root={}", root.display()))
            .args(["--force-script-chrootless", "--force-not-root", "--force-confold", "--log=/dev/null"])
            .args(arguments)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{arguments:?}: {said}");
        said
    }

    /// In a root of its own, where no script touches the running system.
    #[test]
    fn an_upgrade_keeps_what_was_changed_and_a_purge_keeps_nothing() {
        if !Path::new("/usr/bin/dpkg").exists() {
            return;
        }
        let mut tree = files(&shell::root().unwrap(), b"\x7fELF".to_vec()).unwrap();
        // Only root may give files away.
        let owner = (nix::unistd::geteuid().as_raw().into(), nix::unistd::getegid().as_raw().into());
        tree.complete();
        tree.owned_by(owner);
        let folder = std::env::temp_dir().join(format!("enforcer-dpkg-{}", std::process::id()));
        let root = folder.join("root");
        fs::create_dir_all(root.join("var/lib/dpkg/info")).unwrap();
        fs::create_dir_all(root.join("var/lib/dpkg/updates")).unwrap();
        fs::write(root.join("var/lib/dpkg/status"), "").unwrap();
        let install = |version: &str| {
            let file = folder.join(format!("{version}.deb"));
            fs::write(&file, package(&tree, version, 1_700_000_000).unwrap()).unwrap();
            dpkg(&root, &["--install", file.to_str().unwrap()]);
        };
        install("1.0");
        let settings = root.join(CONFIGURATION[0]);
        assert!(fs::read_to_string(&settings).unwrap().contains("mode: audit"));
        fs::write(&settings, "mode: enforce\n").unwrap();
        fs::create_dir_all(root.join("var/lib/enforcer/audit")).unwrap();
        install("1.1");
        assert_eq!(fs::read_to_string(&settings).unwrap(), "mode: enforce\n");
        dpkg(&root, &["--remove", "enforcer"]);
        assert!(settings.exists() && root.join("var/lib/enforcer/audit").exists());
        assert!(!root.join("usr/bin/enforcer").exists());
        dpkg(&root, &["--purge", "enforcer"]);
        assert!(!root.join("etc/enforcer").exists() && !root.join("var/lib/enforcer").exists());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn scripts_are_shell_and_end_at_the_first_failure() {
        for (name, text) in SCRIPTS {
            assert!(text.starts_with("#!/bin/sh\nset -e\n"), "{name}");
            let checked = Command::new("/bin/sh").args(["-n", "-c", text]).status().unwrap();
            assert!(checked.success(), "{name}");
        }
    }
}
