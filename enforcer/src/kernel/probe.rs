//! What this kernel offers, found by trying, never by version number; and what our programs cost it.

use std::path::Path;
use std::time::Instant;

use aya::Ebpf;
use aya::maps::MapType;
use aya::programs::ProgramType;
use aya::sys::{is_map_supported, is_program_supported};
use serde::Serialize;

use enforcer_common::hook::Hook;

use super::error::Error;
use super::{links, load_object, sys};

/// What this kernel offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProbeReport {
    /// Release of the running kernel.
    pub kernel: String,
    /// Everything that was tried.
    pub features: Vec<Feature>,
}

/// One thing that was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Feature {
    /// What.
    pub name: String,
    /// Whether it is there.
    pub present: bool,
    /// Whether enforcer cannot do without.
    pub required: bool,
    /// What it is for, or what was found.
    pub detail: String,
}

/// What one program costs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProgramCost {
    /// Its name.
    pub program: String,
    /// Instructions the verifier walked through, all paths together.
    pub instructions_verified: u32,
    /// Bytes of the verified program.
    pub xlated_bytes: u32,
    /// Bytes of machine code.
    pub jited_bytes: u32,
    /// Microseconds from the system call to its return, verification and translation.
    pub load_microseconds: u64,
}

impl ProbeReport {
    /// Whether everything required is there.
    pub fn ok(&self) -> bool {
        self.features.iter().all(|feature| feature.present || !feature.required)
    }
}

/// Tries what enforcer uses, with the cgroup tree found elsewhere (or why it was not) and the directory for pins. Needs
/// the privileges that `enforcer run` needs.
pub fn probe(cgroup_root: Result<&Path, String>, pins: &Path) -> ProbeReport {
    let kernel = nix::sys::utsname::uname()
        .map_or_else(|_| "unknown".into(), |name| name.release().to_string_lossy().into_owned());
    let mut features = vec![cgroup_tree(cgroup_root), bpffs(pins.parent().unwrap_or(pins)), btf()];
    let programs = [
        (ProgramType::CgroupSock, true, "cgroup/sock_create", "records who creates a socket"),
        (ProgramType::CgroupSockAddr, true, "cgroup/connect, sendmsg", "refuses with an errno"),
        (ProgramType::CgroupSkb, true, "cgroup_skb", "judges packets"),
        (
            ProgramType::CgroupSockopt,
            true,
            "cgroup/setsockopt",
            "refuses options that forge addresses or routes",
        ),
        (ProgramType::SockOps, true, "sock_ops", "follows connections"),
        (
            ProgramType::Lsm(aya::programs::LsmAttachType::Mac),
            false,
            "BPF LSM",
            "refuses packet, vsock and other sockets that no other hook sees",
        ),
    ];
    features.extend(programs.map(|(kind, required, name, detail)| {
        feature(name, is_program_supported(kind).unwrap_or(false), required, detail)
    }));
    let maps = [
        (MapType::SkStorage, "socket storage", "remembers who created a socket"),
        (MapType::ArrayOfMaps, "array of maps", "switches policy tables with one write"),
        (MapType::LpmTrie, "prefix trie", "finds identities by address"),
        (MapType::PerCpuHash, "per-CPU hash", "counts exactly"),
        (MapType::RingBuf, "ring buffer", "carries events"),
    ];
    features.extend(
        maps.map(|(kind, name, detail)| feature(name, is_map_supported(kind).unwrap_or(false), true, detail)),
    );
    features.push(programs_load());
    ProbeReport { kernel, features }
}

/// Loads every program of the object, unpinned and unattached, and tells what that cost.
///
/// # Errors
/// The first program that the kernel refuses and that enforcer can't do without.
pub fn programs() -> Result<Vec<ProgramCost>, Error> {
    sys::ignore_memlock_limit();
    let mut ebpf = load_object(None)?;
    let mut names: Vec<String> = ebpf.programs().map(|(name, _)| name.to_owned()).collect();
    names.sort();
    let mut costs = Vec::new();
    for name in names {
        let optional = Hook::ALL.iter().any(|hook| hook.program() == name && hook.is_optional());
        match cost(&mut ebpf, name) {
            Ok(cost) => costs.push(cost),
            // `features` tells what is missing then.
            Err(_) if optional => {}
            Err(error) => return Err(error),
        }
    }
    Ok(costs)
}

fn cost(ebpf: &mut Ebpf, name: String) -> Result<ProgramCost, Error> {
    let program = ebpf.program_mut(&name).ok_or(Error::MissingProgram("of the object"))?;
    let start = Instant::now();
    let loaded = links::load(program);
    let load_microseconds = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
    let info = loaded
        .and_then(|()| program.info())
        .map_err(|source| Error::Program { program: "of the object", source: Box::new(source) })?;
    Ok(ProgramCost {
        program: name,
        instructions_verified: info.verified_instruction_count().unwrap_or(0),
        xlated_bytes: info.size_translated().unwrap_or(0),
        jited_bytes: info.size_jitted(),
        load_microseconds,
    })
}

fn feature(name: &str, present: bool, required: bool, detail: &str) -> Feature {
    Feature { name: name.into(), present, required, detail: detail.into() }
}

fn cgroup_tree(root: Result<&Path, String>) -> Feature {
    match root {
        Ok(root) => feature("cgroup v2", true, true, &format!("mounted at {}", root.display())),
        Err(reason) => feature("cgroup v2", false, true, &reason),
    }
}

fn bpffs(directory: &Path) -> Feature {
    let name = "BPF file system";
    match sys::require_bpffs(directory) {
        Ok(()) => {
            let detail =
                format!("mounted at {}; links and maps outlive the daemon there", directory.display());
            feature(name, true, true, &detail)
        }
        Err(error) => feature(name, false, true, &error.to_string()),
    }
}

fn btf() -> Feature {
    let present = Path::new("/sys/kernel/btf/vmlinux").exists();
    feature(
        "kernel BTF",
        present,
        false,
        "type information of the kernel, for LSM programs; not used by this version",
    )
}

fn programs_load() -> Feature {
    match programs() {
        Ok(costs) => {
            feature("enforcer's programs", true, true, &format!("{} programs pass the verifier", costs.len()))
        }
        Err(error) => feature("enforcer's programs", false, true, &error.to_string()),
    }
}
