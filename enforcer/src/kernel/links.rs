//! Attachment: one pinned link per hook, on one directory, replaced in place.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use aya::Ebpf;
use aya::programs::links::{FdLink, LinkError};
use aya::programs::{CgroupAttachMode, CgroupSock, CgroupSockAddr, Program, ProgramError};
use enforcer_common::hook::Hook;

use super::error::Error;
use super::{Settings, sys};

/// Loads (verifies) the program of every hook.
pub(super) fn load_programs(ebpf: &mut Ebpf) -> Result<(), Error> {
    for hook in Hook::ALL {
        let program = program(ebpf, *hook)?;
        let loaded = match program {
            Program::CgroupSock(program) => program.load(),
            Program::CgroupSockAddr(program) => program.load(),
            _ => return Err(Error::MissingProgram(hook.program())),
        };
        loaded.map_err(refused(*hook))?;
    }
    Ok(())
}

/// Refuses a pinned link of another directory than the one to attach to.
pub(super) fn refuse_other_cgroup(hook: Hook, settings: &Settings) -> Result<(), Error> {
    let pin = pin(hook, settings);
    if !pin.exists() {
        return Ok(());
    }
    let info = sys::cgroup_link_info(sys::open_pin(&pin)?.as_fd(), &pin)?;
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
    if pin.exists() {
        let link = sys::open_pin(&pin)?;
        let info = sys::cgroup_link_info(link.as_fd(), &pin)?;
        if info.cgroup != 0 {
            if info.cgroup != directory_id(settings)? {
                return Err(Error::OtherCgroup { link: pin, attach: settings.attach.clone() });
            }
            let program = program(ebpf, hook)?;
            let fd = program.fd().map_err(refused(hook))?;
            sys::replace_program(link.as_fd(), fd.as_fd(), &pin)?;
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
    let link = new_link(program(ebpf, hook)?, &directory).map_err(refused(hook))?;
    // Held until there is another handle on the same link.
    let _pinned = link.pin(&pin).map_err(|error| Error::Io {
        operation: "pin the link",
        path: pin.clone(),
        source: std::io::Error::other(error),
    })?;
    sys::open_pin(&pin)
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
    let info = match sys::cgroup_link_info(link.as_fd(), &pin) {
        Ok(info) => info,
        Err(error) => return Some(format!("hook {name} cannot be inspected: {error}")),
    };
    if info.cgroup == 0 {
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

/// Attaches with a link. `Single` because links are shared by nature and the kernel refuses the other modes' flags.
fn new_link(program: &mut Program, directory: &File) -> Result<FdLink, ProgramError> {
    match program {
        Program::CgroupSock(program) => {
            let id = CgroupSock::attach(program, directory, CgroupAttachMode::Single)?;
            FdLink::try_from(program.take_link(id)?).map_err(link_error)
        }
        Program::CgroupSockAddr(program) => {
            let id = CgroupSockAddr::attach(program, directory, CgroupAttachMode::Single)?;
            FdLink::try_from(program.take_link(id)?).map_err(link_error)
        }
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

fn link_error(error: LinkError) -> ProgramError {
    match error {
        LinkError::SyscallError(error) => ProgramError::SyscallError(error),
        other => ProgramError::IOError(std::io::Error::other(other)),
    }
}

fn directory_id(settings: &Settings) -> Result<u64, Error> {
    std::fs::metadata(&settings.attach).map(|metadata| metadata.ino()).map_err(|source| Error::Io {
        operation: "inspect",
        path: settings.attach.clone(),
        source,
    })
}
