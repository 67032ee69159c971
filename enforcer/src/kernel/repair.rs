//! Putting back what was taken away: pins, links, programs, tables, settings.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};

use enforcer_common::abi::config::Setting;
use enforcer_common::hook::Hook;

use super::error::Error;
use super::watch::{Published, Repair, Seen};
use super::{Kernel, links, maps, query, sys};

impl Kernel {
    /// Whether there is a place for pins. A directory that was removed is made again.
    pub(super) fn repair_place(&self, seen: &mut Seen) -> bool {
        let pins = &self.settings.pins;
        let parent = pins.parent().unwrap_or(Path::new("/"));
        if sys::require_bpffs(parent).is_err() {
            seen.problems.push(format!(
                "there is no BPF file system at {parent} any more; what is attached stays as long as this daemon lives, and \
                 ends with it: mount it again with `mount -t bpf bpf {parent}`",
                parent = parent.display(),
            ));
            return false;
        }
        match fs::create_dir(pins) {
            Ok(()) => {
                seen.pins_made = true;
                true
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => true,
            Err(error) => {
                seen.problems.push(format!("the directory of the pins can't be made again: {error}"));
                false
            }
        }
    }

    /// Every hook attached, with our program, and pinned.
    pub(super) fn repair_links(&mut self, pins: bool, seen: &mut Seen) {
        let mut gone = 0;
        for hook in Hook::ALL {
            let Some(link) = self.links.get(hook) else { continue };
            let pin = links::pin(*hook, &self.settings);
            let info = match sys::link_info(link.as_fd(), &pin) {
                Ok(info) => info,
                Err(error) => {
                    seen.problems.push(format!("hook {} can't be inspected: {error}", hook.program()));
                    continue;
                }
            };
            if info.kind == sys::CGROUP_LINK && info.cgroup == 0 {
                if self.settings.attach.is_dir() {
                    self.attach_again(*hook, seen);
                } else {
                    gone += 1;
                }
                continue;
            }
            if self.program_id(*hook).is_some_and(|ours| ours != info.program) {
                self.replace_again(*hook, &pin, seen);
            }
            if pins && let Some(link) = self.links.get(hook) {
                repin(link.as_fd(), &pin, &format!("hook {}", hook.program()), seen);
            }
        }
        if gone > 0 {
            seen.problems.push(format!(
                "cgroup {} is gone, and with it {gone} hooks that were attached to it: nothing is enforced; they are \
                 attached again as soon as it exists",
                self.settings.attach.display(),
            ));
        }
    }

    /// Every map pinned.
    pub(super) fn repair_maps(&self, seen: &mut Seen) {
        for (name, map) in &self.watch.maps {
            repin(map.as_fd(), &self.settings.pins.join(name), &format!("map {name}"), seen);
        }
    }

    /// The published table and the settings. What sockets remember of the time in between counts no more.
    pub(super) fn repair_content(&mut self, seen: &mut Seen) {
        let before = seen.repairs.len();
        let mut result = self.repair_table(seen).and_then(|()| self.repair_settings(seen));
        if seen.repairs.len() > before {
            result = result.and(self.new_epoch());
        }
        if let Err(error) = result {
            seen.problems
                .push(format!("what the kernel has can't be compared with what it was given: {error}"));
        }
    }

    fn repair_table(&mut self, seen: &mut Seen) -> Result<(), Error> {
        let Some(Published { generation, tables }) = &self.watch.published else { return Ok(()) };
        let Some(table) = tables.first() else { return Ok(()) };
        let found = maps::published_generation(&mut self.ebpf)?;
        if found == Some(*generation) {
            return Ok(());
        }
        maps::tables(&mut self.ebpf)?
            .set(0, table, 0)
            .map_err(Error::map("switch back to our table in", "TABLES"))?;
        let found = found.map_or_else(|| "none".to_owned(), |found| found.to_string());
        let said = format!(
            "the kernel judged by generation {found} of the policy tables instead of {generation}, which somebody else has \
             written; generation {generation} is in force again"
        );
        seen.repairs.push((Repair::Table, said));
        Ok(())
    }

    fn repair_settings(&mut self, seen: &mut Seen) -> Result<(), Error> {
        for (index, kept) in &self.watch.settings {
            let mut config = maps::config(&mut self.ebpf)?;
            let found = config.get(index, 0).map_err(Error::map("read", "CONFIG"))?;
            if found == *kept {
                continue;
            }
            // Epochs only rise: one that comes again would revive what sockets remember of it.
            let right = if *index == Setting::Epoch as u32 { found.max(*kept) } else { *kept };
            config.set(*index, right, 0).map_err(Error::map("write", "CONFIG"))?;
            let said = format!(
                "setting {index} of the kernel programs was {found} instead of {kept}, which somebody else has written; it \
                 is put right"
            );
            seen.repairs.push((Repair::Setting, said));
        }
        Ok(())
    }

    fn attach_again(&mut self, hook: Hook, seen: &mut Seen) {
        let name = hook.program();
        match links::attach(&mut self.ebpf, hook, &self.settings) {
            Ok(link) => {
                self.links.insert(hook, link);
                let attach = self.settings.attach.display();
                let said = format!("hook {name} was detached; it is attached to {attach} again");
                seen.repairs.push((Repair::Link, said));
            }
            Err(error) => {
                seen.problems.push(format!("hook {name} was detached and can't be attached again: {error}"));
            }
        }
    }

    fn replace_again(&self, hook: Hook, pin: &Path, seen: &mut Seen) {
        let name = hook.program();
        let program = self.ebpf.program(name).and_then(|program| program.fd().ok());
        let (Some(program), Some(link)) = (program, self.links.get(&hook)) else { return };
        match sys::replace_program(link.as_fd(), program.as_fd(), pin) {
            Ok(()) => {
                let said = format!(
                    "hook {name} ran another program than this enforcer's, which somebody else has put there; it runs \
                     ours again: is a second enforcer running?"
                );
                seen.repairs.push((Repair::Program, said));
            }
            Err(error) => seen.problems.push(format!(
                "hook {name} runs another program than this enforcer's, and ours can't be put back: {error}"
            )),
        }
    }

    /// Whether a hook that we hold runs our program.
    pub(super) fn runs_ours(&self, hook: Hook, link: BorrowedFd<'_>) -> bool {
        let info = sys::link_info(link, &PathBuf::new());
        info.is_ok_and(|info| {
            (info.kind != sys::CGROUP_LINK || info.cgroup != 0) && self.program_id(hook) == Some(info.program)
        })
    }

    fn program_id(&self, hook: Hook) -> Option<u32> {
        self.ebpf.program(hook.program())?.info().ok().map(|info| info.id())
    }
}

/// Pins an object again if its pin is gone, or stands for another object.
fn repin(object: BorrowedFd<'_>, pin: &Path, what: &str, seen: &mut Seen) {
    let is_ours = || Ok(query::object_id(sys::open_pin(pin)?.as_fd()).ok() == query::object_id(object).ok());
    let repaired =
        match is_ours() {
            Ok(true) => return,
            Ok(false) => fs::remove_file(pin).map(|()| "stood for something else").map_err(|source| {
                Error::Io { operation: "remove what stands at", path: pin.to_owned(), source }
            }),
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok("was gone"),
            Err(error) => Err(error),
        };
    match repaired.and_then(|was| sys::pin(object, pin).map(|()| was)) {
        Ok(was) => {
            let said = format!("the pin of {what} {was} ({}); it is pinned again", pin.display());
            seen.repairs.push((Repair::Pin, said));
        }
        Err(error) => seen.problems.push(format!(
            "the pin of {what} is not usable, and it can't be pinned again, so a restart would not find it: {error}"
        )),
    }
}
