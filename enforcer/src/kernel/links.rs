//! Attachment: one pinned link per hook, on one directory, replaced in place.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use aya::programs::links::FdLink;
use aya::programs::{Program, ProgramError};
use aya::{Btf, Ebpf};
use enforcer_common::hook::Hook;

use super::error::Error;
use super::{Settings, lsm, sys};

/// Loads (verifies) the program of every hook. Gives those that this kernel does without, with the reason.
pub(super) fn load_programs(ebpf: &mut Ebpf) -> Result<BTreeMap<Hook, String>, Error> {
    let mut absent = BTreeMap::new();
    for hook in Hook::ALL {
        if !is_cgroup(*hook)
            && let Some(reason) = lsm::refusal()
        {
            absent.insert(*hook, reason);
            continue;
        }
        match load(program(ebpf, *hook)?) {
            Ok(()) => {}
            Err(error) if hook.is_optional() => {
                absent.insert(*hook, reason(&error));
            }
            Err(error) => return Err(refused(*hook)(error)),
        }
    }
    Ok(absent)
}

/// A descriptor of a program, loaded if it is not yet.
pub(super) fn descriptor(ebpf: &mut Ebpf, name: &'static str) -> Result<OwnedFd, Error> {
    let refused = |source: ProgramError| Error::Program { program: name, source: Box::new(source) };
    let program = ebpf.program_mut(name).ok_or(Error::MissingProgram(name))?;
    if program.fd().is_err() {
        load(program).map_err(refused)?;
    }
    let fd = program.fd().map_err(refused)?.as_fd().try_clone_to_owned();
    fd.map_err(|source| Error::Io { operation: "copy the descriptor of", path: name.into(), source })
}

/// Loads one program.
pub(super) fn load(program: &mut Program) -> Result<(), ProgramError> {
    match program {
        Program::CgroupSock(program) => program.load(),
        Program::CgroupSockAddr(program) => program.load(),
        Program::CgroupSkb(program) => program.load(),
        Program::CgroupSockopt(program) => program.load(),
        Program::SockOps(program) => program.load(),
        Program::SchedClassifier(program) => program.load(),
        Program::Lsm(program) => {
            let btf = Btf::from_sys_fs().map_err(ProgramError::Btf)?;
            program.load(SOCKET_CREATE, &btf)
        }
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

/// The LSM's name of what [`Hook::SocketCreate`] hooks.
const SOCKET_CREATE: &str = "socket_create";

/// In a few words, why a program was refused.
pub(super) fn reason(error: &ProgramError) -> String {
    match error {
        ProgramError::LoadError { io_error, .. } => format!("loading it is refused: {io_error}"),
        other => other.to_string(),
    }
}

/// Refuses a pinned link of another directory than the one to attach to.
pub(super) fn refuse_other_cgroup(hook: Hook, settings: &Settings) -> Result<(), Error> {
    let pin = pin(hook, settings);
    if !pin.exists() {
        return Ok(());
    }
    if !is_cgroup(hook) {
        return Ok(());
    }
    let info = sys::link_info(sys::open_pin(&pin)?.as_fd(), &pin)?;
    // 0: its directory is gone.
    if info.cgroup == 0 || info.cgroup == directory_id(settings)? {
        return Ok(());
    }
    Err(Error::OtherCgroup { link: pin, attach: settings.attach.clone() })
}

/// Attaches a hook and pins its link, or puts our program into the link that is pinned already. Whoever holds the answer
/// keeps the hook attached, even if the pin is removed.
pub(super) fn attach(ebpf: &mut Ebpf, hook: Hook, settings: &Settings) -> Result<OwnedFd, Error> {
    let pin = pin(hook, settings);
    if !is_cgroup(hook) {
        // The kernel attaches a program of this kind once: where the pinned link runs it already, that link stays.
        if pin.exists() && problem(ebpf, hook, settings).is_none() {
            return sys::open_pin(&pin);
        }
        return attach_beside(program(ebpf, hook)?, hook, &pin);
    }
    if pin.exists() {
        let link = sys::open_pin(&pin)?;
        let info = sys::link_info(link.as_fd(), &pin)?;
        if info.cgroup != 0 {
            if info.cgroup != directory_id(settings)? {
                return Err(Error::OtherCgroup { link: pin, attach: settings.attach.clone() });
            }
            let program = program(ebpf, hook)?;
            let fd = program.fd().map_err(refused(hook))?;
            sys::replace_program(link.as_fd(), fd.as_fd(), &pin)?;
            fail_point!("program-replaced");
            return Ok(link);
        }
        // The directory of the old link is gone and the link with it: nothing is enforced by it any more.
        std::fs::remove_file(&pin).map_err(|source| Error::Io {
            operation: "remove the dead link",
            path: pin.clone(),
            source,
        })?;
    }
    let directory = File::open(&settings.attach).map_err(|source| Error::Io {
        operation: "open",
        path: settings.attach.clone(),
        source,
    })?;
    let program = program(ebpf, hook)?.fd().map_err(refused(hook))?;
    let link = sys::attach(program.as_fd(), directory.as_fd(), attach_type(hook), &settings.attach)?;
    fail_point!("link-made");
    // The link is held while it is being pinned.
    sys::pin(link.as_fd(), &pin)?;
    fail_point!("link-pinned");
    Ok(link)
}

/// The kernel's number of an attach point (`enum bpf_attach_type`, linux/bpf.h).
pub(super) fn attach_type(hook: Hook) -> u32 {
    match hook {
        Hook::Ingress => 0,
        Hook::Egress => 1,
        Hook::SockCreate => 2,
        Hook::SockOps => 3,
        Hook::Bind4 => 8,
        Hook::Bind6 => 9,
        Hook::Connect4 => 10,
        Hook::Connect6 => 11,
        Hook::PostBind4 => 12,
        Hook::PostBind6 => 13,
        Hook::Sendmsg4 => 14,
        Hook::Sendmsg6 => 15,
        Hook::Setsockopt => 22,
        Hook::SocketCreate => 27,
    }
}

/// Attaches a program whose links can't be given another one: the new link is there before the old one goes.
fn attach_beside(program: &mut Program, hook: Hook, pin: &Path) -> Result<OwnedFd, Error> {
    let failed = |operation, path: &Path, source| Error::Io { operation, path: path.to_path_buf(), source };
    let Program::Lsm(program) = program else { return Err(Error::MissingProgram(hook.program())) };
    let link = program.attach().and_then(|id| program.take_link(id)).map_err(refused(hook))?;
    // A BPF file system takes no names with a dot.
    let beside = pin.with_file_name(format!("link_{}_new", hook.program()));
    // Left by a start that was killed here.
    if let Err(error) = std::fs::remove_file(&beside)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(failed("remove", &beside, error));
    }
    let _pinned = FdLink::from(link)
        .pin(&beside)
        .map_err(|error| failed("pin the link", &beside, std::io::Error::other(error)))?;
    std::fs::rename(&beside, pin).map_err(|error| failed("put the new link in place of", pin, error))?;
    sys::open_pin(pin)
}

/// Whether a hook is attached to a directory of the cgroup tree; otherwise it is to the whole host.
pub(super) fn is_cgroup(hook: Hook) -> bool {
    !matches!(hook, Hook::SocketCreate)
}

/// Pins a link again whose pin was removed.
pub(super) fn pin_again(link: &OwnedFd, hook: Hook, settings: &Settings) -> Result<(), Error> {
    let pin = pin(hook, settings);
    if pin.exists() { Ok(()) } else { sys::pin(link.as_fd(), &pin) }
}

/// Whether the hook has a pinned link.
pub(super) fn is_pinned(hook: Hook, settings: &Settings) -> bool {
    pin(hook, settings).exists()
}

/// What is wrong with the link of a hook, in one sentence; `None` if it is attached with our program.
pub(super) fn problem(ebpf: &Ebpf, hook: Hook, settings: &Settings) -> Option<String> {
    let name = hook.program();
    let pin = pin(hook, settings);
    let link = match sys::open_pin(&pin) {
        Ok(link) => link,
        Err(error) => {
            return Some(format!(
                "hook {name} has no usable pin: {error}; restart enforcer to attach it again"
            ));
        }
    };
    let info = match sys::link_info(link.as_fd(), &pin) {
        Ok(info) => info,
        Err(error) => return Some(format!("hook {name} cannot be inspected: {error}")),
    };
    if is_cgroup(hook) && info.cgroup == 0 {
        return Some(format!(
            "hook {name} is detached: its directory is gone; restart enforcer to attach it again"
        ));
    }
    let ours = ebpf.program(name).and_then(|program| program.info().ok()).map(|info| info.id());
    (ours != Some(info.program))
        .then(|| format!("hook {name} runs another program than this enforcer's: is a second one running?"))
}

/// The pin of a hook's link.
pub(super) fn pin(hook: Hook, settings: &Settings) -> PathBuf {
    settings.pins.join(format!("link_{}", hook.program()))
}

fn program(ebpf: &mut Ebpf, hook: Hook) -> Result<&mut Program, Error> {
    ebpf.program_mut(hook.program()).ok_or(Error::MissingProgram(hook.program()))
}

fn refused(hook: Hook) -> impl Fn(ProgramError) -> Error {
    move |source| Error::Program { program: hook.program(), source: Box::new(source) }
}

fn directory_id(settings: &Settings) -> Result<u64, Error> {
    std::fs::metadata(&settings.attach).map(|metadata| metadata.ino()).map_err(|source| Error::Io {
        operation: "inspect",
        path: settings.attach.clone(),
        source,
    })
}
