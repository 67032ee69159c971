//! Whether the kernel calls BPF programs as a security module. Where it does not, they load and attach all the same, and
//! are never called.

/// The list of active security modules.
const ACTIVE: &str = "/sys/kernel/security/lsm";
/// The same by way of the first process.
const HOST: &str = "/proc/1/root/sys/kernel/security/lsm";

/// Whether BPF programs are among the active security modules.
///
/// # Errors
/// One sentence, where that can't be known.
pub fn calls_bpf() -> Result<bool, String> {
    // A container has no securityfs of its own; who may look at the first process sees the host's.
    let read = std::fs::read_to_string(ACTIVE);
    match read.or_else(|error| std::fs::read_to_string(HOST).or(Err(error))) {
        Ok(modules) => Ok(names_bpf(&modules)),
        Err(error) => Err(format!(
            "whether the kernel calls BPF security modules can't be known, because {ACTIVE} can't be read ({error}); \
             `mount -t securityfs none /sys/kernel/security` shows it"
        )),
    }
}

/// Why programs of this kind are never called; `None` if they are, or nobody knows.
pub(super) fn refusal() -> Option<String> {
    let never = || {
        format!(
            "`bpf` is not among the security modules in {ACTIVE}; add it to lsm= on the kernel's command line"
        )
    };
    (calls_bpf() == Ok(false)).then(never)
}

fn names_bpf(modules: &str) -> bool {
    modules.trim().split(',').any(|module| module == "bpf")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_read_word_by_word() {
        assert!(names_bpf("lockdown,capability,yama,apparmor,bpf\n"));
        assert!(names_bpf("bpf"));
        assert!(!names_bpf("lockdown,capability,bpfilter\n") && !names_bpf(""));
    }
}
