//! A machine whose first process is the distribution's own systemd, with nothing but cgroup v2: the product installed as its Debian
//! package does, started at boot, and tried by the same statements as under the service manager on this kernel.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::image::{self, Image};
use super::qemu::Machine;
use super::{Outcome, say};
use crate::suite::{Binaries, Tally};
use crate::{deb, setup, shell, toolchain};

/// What the scripts call, from the path.
const PROGRAMS: [&str; 27] = [
    "awk",
    "bash",
    "cat",
    "chmod",
    "cp",
    "echo",
    "grep",
    "head",
    "journalctl",
    "ls",
    "mkdir",
    "mv",
    "rm",
    "sed",
    "setpriv",
    "sh",
    "sleep",
    "sort",
    "stat",
    "systemctl",
    "systemd-socket-activate",
    "systemd-sysusers",
    "systemd-tmpfiles",
    "touch",
    "tr",
    "true",
    "uname",
];
/// Programs of the manager itself.
const MANAGER: &str = "/usr/lib/systemd";
const MANAGER_PROGRAMS: [&str; 3] = ["systemd", "systemd-journald", "systemd-shutdown"];
/// Units besides all targets. There is no udev, no D-Bus and nobody who logs in.
const UNITS: [&str; 9] = [
    "systemd-journald.service",
    "systemd-journald.socket",
    "systemd-journald-dev-log.socket",
    "systemd-sysusers.service",
    "systemd-tmpfiles-setup.service",
    "systemd-poweroff.service",
    "systemd-reboot.service",
    "-.slice",
    "system.slice",
];
/// Accounts that every host has; the product's group is made by its own file.
const PASSWD: &str =
    "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";
const GROUP: &str = "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n";
/// A policy that is a file, and so known from the first moment on.
const BOOT: &str = "apiVersion: enforcer.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: boot, namespace: boot}\n\
                    spec: {subject: {matchLabels: {app: boot}}, ingress: []}\n";
/// The statements, and what they need.
const STAGE: &str = "tests/suite/systemd";
/// Each emulated second is a long one: loading the programs alone takes 15.
const LIMIT: Duration = Duration::from_mins(15);
/// Seconds that the statements wait for something.
const PATIENCE: &str = "180";
/// How a line begins that tells something.
const TOLD: &str = "told: ";

/// Why there can be no such machine here, if so.
pub(crate) fn missing() -> Option<String> {
    if !cfg!(target_arch = "x86_64") {
        return Some("the kernels of the matrix are Debian's for x86-64".to_owned());
    }
    if !Path::new(MANAGER).join("systemd").is_file() {
        return Some(
            "there is no systemd on this machine, and its own files are what the other one is made of"
                .to_owned(),
        );
    }
    let missing: Vec<&str> =
        PROGRAMS.into_iter().filter(|program| toolchain::in_path(program).is_none()).collect();
    (!missing.is_empty()).then(|| format!("{} are not on this machine", missing.join(", ")))
}

/// Boots it with a kernel of the matrix and returns the file with what its scripts told.
pub(crate) fn run(root: &Path, name: &str, binaries: &Binaries, product: &Path) -> Result<PathBuf> {
    let kernel =
        setup::find_kernel(root, name).map_err(|missing| anyhow::anyhow!("kernel {name}: {missing}"))?;
    let folder = root.join("target/vm");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let first_files = folder.join(format!("host-{name}-{}.cpio", std::process::id()));
    write(root, &first_files, &kernel.modules, binaries, product)?;
    // Nothing of the older trees, in case somebody asks for them.
    let append = ["cgroup_no_v1=all", "systemd.unified_cgroup_hierarchy=1", "systemd.show_status=no"];
    let machine = Machine {
        image: &kernel.image,
        first_files: &first_files,
        cpus: super::CPUS,
        append: &append.map(str::to_owned),
        timeout: LIMIT,
    };
    println!("[host {name}] starting {}", kernel.release);
    let mut told = String::new();
    let report = machine.run(|line| match line.strip_prefix(TOLD) {
        Some(statement) => {
            told.push_str(statement);
            told.push('\n');
        }
        None => println!("[host {name}] {line}"),
    });
    fs::remove_file(&first_files).with_context(|| format!("cannot remove {}", first_files.display()))?;
    let outcome = Outcome { report: report?, tally: Tally::default(), cells: Vec::new() };
    let file = folder.join(format!("host-{name}.told"));
    fs::write(&file, told).with_context(|| format!("cannot write {}", file.display()))?;
    if say(&format!("host {name}"), &outcome) != 0 {
        bail!("the machine did not come to its end; what it told until then is in {}", file.display());
    }
    Ok(file)
}

fn write(root: &Path, target: &Path, modules: &Path, binaries: &Binaries, product: &Path) -> Result<()> {
    let file = File::create(target).with_context(|| format!("cannot create {}", target.display()))?;
    let mut image = Image::new(BufWriter::new(file));
    for folder in [
        "dev", "etc", "home", "proc", "root", "run", "sys", "sysroot", "tmp", "usr/bin", "usr/lib", "var/tmp",
    ] {
        image.folder(folder)?;
    }
    for (name, to) in [
        ("bin", "usr/bin"),
        ("sbin", "usr/bin"),
        ("usr/sbin", "bin"),
        ("lib", "usr/lib"),
        ("lib64", "usr/lib64"),
    ] {
        image.link(name, to)?;
    }
    image.archive.device("dev/console", 5, 1)?;
    image.program("init", &image::stripped(&binaries.init, target)?)?;
    image.tree(modules, "modules")?;
    programs(&mut image, &[&binaries.init, product])?;
    accounts(&mut image)?;
    units(&mut image)?;
    package(&mut image, root, product, target)?;
    stage(&mut image, root)?;
    enable(&mut image, root, target)?;
    image.archive.finish()?;
    Ok(())
}

/// The programs, each where the path has it, and the libraries of all of them.
fn programs<W: Write>(image: &mut Image<W>, more: &[&Path]) -> Result<()> {
    let mut libraries: BTreeSet<PathBuf> = BTreeSet::new();
    let mut all: Vec<(String, PathBuf)> = Vec::new();
    for name in PROGRAMS {
        let path = toolchain::in_path(name).with_context(|| format!("{name} is not on this machine"))?;
        all.push((format!("usr/bin/{name}"), path));
    }
    for name in MANAGER_PROGRAMS {
        let path = Path::new(MANAGER).join(name);
        all.push((format!("usr/lib/systemd/{name}"), path));
    }
    for (name, path) in &all {
        image.program(name, &image::read(path)?)?;
    }
    for path in all.iter().map(|(_, path)| path.as_path()).chain(more.iter().copied()) {
        for library in image::libraries_of(path)? {
            libraries.insert(place(Path::new(&library))?);
        }
    }
    for library in libraries {
        image.program(image::inside(&library.display().to_string()), &image::read(&library)?)?;
    }
    Ok(())
}

/// A file's name with the links in its folder followed: `/lib/x` lies in `/usr/lib`.
fn place(file: &Path) -> Result<PathBuf> {
    let folder = file.parent().unwrap_or(Path::new("/"));
    let folder = folder.canonicalize().with_context(|| format!("cannot find {}", folder.display()))?;
    Ok(folder.join(file.file_name().unwrap_or_default()))
}

fn accounts<W: Write>(image: &mut Image<W>) -> Result<()> {
    for (name, text) in [
        ("etc/passwd", PASSWD),
        ("etc/group", GROUP),
        ("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"),
        ("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
        ("etc/hostname", "host\n"),
        // With one, this is no first boot, at which presets would be applied.
        ("etc/machine-id", "0123456789abcdef0123456789abcdef\n"),
        ("etc/os-release", "ID=debian\nNAME=Debian\n"),
        ("etc/fstab", ""),
    ] {
        image.file(name, text.as_bytes())?;
    }
    Ok(())
}

/// All targets and the services of the list, with what wants them.
fn units<W: Write>(image: &mut Image<W>) -> Result<()> {
    let folder = Path::new(MANAGER).join("system");
    let is_taken = |name: &str| name.ends_with(".target") || UNITS.contains(&name);
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if is_taken(&name) {
            copy(image, &path, &format!("usr/lib/systemd/system/{name}"))?;
        } else if path.is_dir() && (name.ends_with(".target.wants") || name.ends_with(".target.requires")) {
            for wanted in fs::read_dir(&path)? {
                let wanted = wanted?.path();
                let inner = wanted.file_name().unwrap_or_default().to_string_lossy().into_owned();
                if is_taken(&inner) {
                    copy(image, &wanted, &format!("usr/lib/systemd/system/{name}/{inner}"))?;
                }
            }
        }
    }
    Ok(())
}

/// A file, or a link as a link.
fn copy<W: Write>(image: &mut Image<W>, path: &Path, name: &str) -> Result<()> {
    match fs::read_link(path) {
        Ok(to) => image.link(name, &to.display().to_string()),
        Err(_) => image.file(name, &image::read(path)?),
    }
}

/// What the Debian package installs; the configuration judges *and* refuses.
fn package<W: Write>(image: &mut Image<W>, root: &Path, product: &Path, target: &Path) -> Result<()> {
    let tree = deb::files(root, image::stripped(product, target)?)?;
    for (name, entry) in tree.entries() {
        match &entry.content {
            None => image.folder(name)?,
            Some(bytes) if entry.mode & 0o111 != 0 => image.program(name, bytes)?,
            Some(bytes) if name == "etc/enforcer/enforcer.yaml" => {
                let text = String::from_utf8_lossy(bytes).replace("\nmode: audit", "\nmode: enforce");
                image.file(name, text.as_bytes())?;
            }
            Some(bytes) => image.file(name, bytes)?,
        }
    }
    Ok(())
}

/// The scripts, and the units that run them.
fn stage<W: Write>(image: &mut Image<W>, root: &Path) -> Result<()> {
    let stage = root.join(STAGE);
    for entry in fs::read_dir(&stage).with_context(|| format!("cannot list {}", stage.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "sh") {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            image.file(&format!("try/{name}"), &image::read(&path)?)?;
        }
    }
    for (from, to) in [("policies/three-tier.yaml", "try/tiers.yaml"), ("docs/host.md", "try/host.md")] {
        image.file(to, &image::read(&root.join(from))?)?;
    }
    image.file("etc/enforcer/policies.d/boot.yaml", BOOT.as_bytes())?;
    image.tree(&stage.join("units"), "usr/lib/systemd/system")?;
    let more = format!("[Service]\nEnvironment=PATIENCE={PATIENCE}\nExecStartPost=/bin/bash /try/end.sh\n");
    image.file("usr/lib/systemd/system/try.service.d/machine.conf", more.as_bytes())
}

/// Has the manager's own tool enable what is to start at boot.
fn enable<W: Write>(image: &mut Image<W>, root: &Path, target: &Path) -> Result<()> {
    let folder = target.with_extension("root");
    let units = folder.join("usr/lib/systemd/system");
    fs::create_dir_all(&units).with_context(|| format!("cannot create {}", units.display()))?;
    let stage = root.join(STAGE).join("units");
    let enabled = [
        ("enforcer.service", root.join("deploy/systemd")),
        ("early.service", stage.clone()),
        ("last.service", stage.clone()),
        ("try.service", stage),
    ];
    for (name, from) in &enabled {
        fs::copy(from.join(name), units.join(name)).with_context(|| format!("cannot copy {name}"))?;
    }
    let mut command = Command::new("systemctl");
    command
        .arg(format!("--root={}", folder.display()))
        .args(["--quiet", "enable"])
        .args(enabled.map(|(name, _)| name));
    shell::require(&mut command, "systemctl enable", "it needs no running systemd")?;
    for wants in fs::read_dir(folder.join("etc/systemd/system")).context("nothing was enabled")? {
        let wants = wants?.path();
        for link in fs::read_dir(&wants).with_context(|| format!("cannot list {}", wants.display()))? {
            let link = link?.path();
            let name = link.strip_prefix(&folder).unwrap_or(&link).display().to_string();
            copy(image, &link, &name)?;
        }
    }
    fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))
}
