//! What the agent gives up at its start: capabilities that it does not need, new privileges, and most system calls.
//!
//! To be called before there are other threads: capabilities and filters belong to a thread, and those that it makes later
//! inherit them, as do the canary and the child that makes the socket storage.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use caps::{CapSet, Capability, CapsHashSet};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use crate::domain::command::Confinement;

/// What is kept, each with what needs it. Whatever else the process was given is dropped for good.
const KEPT: [(Capability, &str); 10] = [
    (Capability::CAP_BPF, "loads programs, makes maps"),
    (Capability::CAP_NET_ADMIN, "attaches programs to cgroups, asks for sockets and destroys them"),
    (Capability::CAP_PERFMON, "loads programs of the security module"),
    (Capability::CAP_SYS_ADMIN, "enters network namespaces, looks at the programs of others"),
    (Capability::CAP_SYS_PTRACE, "finds the namespaces of other users' processes, and their sockets"),
    (Capability::CAP_DAC_READ_SEARCH, "opens cgroup directories by their numbers"),
    (Capability::CAP_CHOWN, "gives the socket to the group of its readers"),
    (Capability::CAP_SETUID, "the canary becomes nobody"),
    (Capability::CAP_SETGID, "the canary becomes nobody"),
    (Capability::CAP_KILL, "the canary is ended"),
];

/// Gives up what is not needed, the system calls only if `filter` says so. What can't be given up is told and kept.
pub fn confine(filter: bool) -> Confinement {
    let mut confinement = Confinement { problems: Vec::new(), ..Confinement::default() };
    let mut tell = |what: &str, error: &dyn std::fmt::Display| {
        confinement.problems.push(format!("{what}: {error}"));
    };
    if let Err(error) = drop_capabilities() {
        tell("drop capabilities", &error);
    }
    match nix::sys::prctl::set_no_new_privs() {
        Ok(()) => confinement.no_new_privileges = true,
        Err(error) => tell("refuse new privileges", &error),
    }
    if filter {
        match program().and_then(|program| install(&program)) {
            Ok(()) => confinement.seccomp = true,
            Err(error) => tell("filter system calls", &error),
        }
    }
    confinement.capabilities = names(&caps::read(None, CapSet::Permitted).unwrap_or_default());
    confinement
}

/// What an agent keeps and this process has not.
pub(super) fn missing() -> Vec<String> {
    let has = caps::read(None, CapSet::Effective).unwrap_or_default();
    let missing = KEPT.iter().map(|(capability, _)| *capability).filter(|it| !has.contains(it));
    // Only for a socket that has readers.
    names(&missing.filter(|it| *it != Capability::CAP_CHOWN).collect())
}

fn names(set: &CapsHashSet) -> Vec<String> {
    let names: BTreeSet<String> = set.iter().map(ToString::to_string).collect();
    names.into_iter().collect()
}

fn drop_capabilities() -> Result<(), caps::errors::CapsError> {
    let kept: CapsHashSet = KEPT.iter().map(|(capability, _)| *capability).collect();
    // Programs that it starts can't get back what is out of this set. That needs a right by itself, which a container may not
    // have; its runtime has bounded the set then.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        for capability in caps::read(None, CapSet::Bounding)?.difference(&kept) {
            caps::drop(None, CapSet::Bounding, *capability)?;
        }
    }
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)?;
    let had = caps::read(None, CapSet::Permitted)?;
    let left: CapsHashSet = had.intersection(&kept).copied().collect();
    caps::set(None, CapSet::Effective, &left)?;
    caps::set(None, CapSet::Permitted, &left)
}

/// System calls that are let through whatever their arguments; the rest is answered with `EPERM`, and logged where the kernel
/// has a place for that. In groups by what needs them.
#[rustfmt::skip]
const ALLOWED: &[&[libc::c_long]] = &[
    // Files: configuration, state, logs, /proc, /sys, pins.
    &[
        libc::SYS_read, libc::SYS_write, libc::SYS_readv, libc::SYS_writev, libc::SYS_pread64, libc::SYS_pwrite64,
        libc::SYS_preadv, libc::SYS_pwritev, libc::SYS_preadv2, libc::SYS_pwritev2, libc::SYS_openat,
        libc::SYS_openat2, libc::SYS_close, libc::SYS_close_range, libc::SYS_fstat, libc::SYS_newfstatat,
        libc::SYS_statx, libc::SYS_statfs, libc::SYS_fstatfs, libc::SYS_lseek, libc::SYS_getdents64,
        libc::SYS_readlinkat, libc::SYS_faccessat, libc::SYS_faccessat2, libc::SYS_renameat, libc::SYS_renameat2,
        libc::SYS_unlinkat, libc::SYS_mkdirat, libc::SYS_linkat, libc::SYS_symlinkat, libc::SYS_fchmod,
        libc::SYS_fchmodat, libc::SYS_fchown, libc::SYS_fchownat, libc::SYS_ftruncate, libc::SYS_fallocate,
        libc::SYS_fsync, libc::SYS_fdatasync, libc::SYS_sync_file_range, libc::SYS_flock, libc::SYS_fcntl,
        libc::SYS_utimensat, libc::SYS_umask, libc::SYS_getcwd, libc::SYS_chdir, libc::SYS_fchdir,
        libc::SYS_fadvise64, libc::SYS_copy_file_range, libc::SYS_sendfile, libc::SYS_splice,
        libc::SYS_inotify_init1, libc::SYS_inotify_add_watch, libc::SYS_inotify_rm_watch,
        libc::SYS_open_by_handle_at, libc::SYS_name_to_handle_at,
    ],
    // Memory.
    &[
        libc::SYS_mmap, libc::SYS_munmap, libc::SYS_mprotect, libc::SYS_mremap, libc::SYS_madvise, libc::SYS_brk,
        libc::SYS_msync, libc::SYS_mincore, libc::SYS_membarrier, libc::SYS_prlimit64, libc::SYS_getrlimit,
        libc::SYS_setrlimit, libc::SYS_get_mempolicy, libc::SYS_mbind,
    ],
    // Threads and time.
    &[
        libc::SYS_futex, libc::SYS_set_robust_list, libc::SYS_get_robust_list, libc::SYS_rseq,
        libc::SYS_set_tid_address, libc::SYS_sched_yield, libc::SYS_sched_getaffinity, libc::SYS_sched_setaffinity,
        libc::SYS_clone, libc::SYS_clone3, libc::SYS_exit, libc::SYS_exit_group, libc::SYS_gettid,
        libc::SYS_nanosleep, libc::SYS_clock_nanosleep, libc::SYS_clock_gettime, libc::SYS_clock_getres,
        libc::SYS_gettimeofday, libc::SYS_restart_syscall, libc::SYS_getrandom, libc::SYS_getcpu,
        libc::SYS_timerfd_create, libc::SYS_timerfd_settime, libc::SYS_timerfd_gettime,
    ],
    // Signals.
    &[
        libc::SYS_rt_sigaction, libc::SYS_rt_sigprocmask, libc::SYS_rt_sigreturn, libc::SYS_sigaltstack,
        libc::SYS_rt_sigtimedwait, libc::SYS_kill, libc::SYS_tgkill, libc::SYS_signalfd4,
    ],
    // Waiting.
    &[
        libc::SYS_epoll_create1, libc::SYS_epoll_ctl, libc::SYS_epoll_pwait, libc::SYS_epoll_pwait2,
        libc::SYS_ppoll, libc::SYS_pselect6, libc::SYS_eventfd2, libc::SYS_pipe2, libc::SYS_dup, libc::SYS_dup3,
        libc::SYS_ioctl,
    ],
    // Sockets; which ones can be made is said below.
    &[
        libc::SYS_bind, libc::SYS_listen, libc::SYS_accept, libc::SYS_accept4, libc::SYS_connect,
        libc::SYS_getsockname, libc::SYS_getpeername, libc::SYS_getsockopt, libc::SYS_setsockopt,
        libc::SYS_sendto, libc::SYS_recvfrom, libc::SYS_sendmsg, libc::SYS_recvmsg, libc::SYS_sendmmsg,
        libc::SYS_recvmmsg, libc::SYS_shutdown,
    ],
    // Who this is, and where.
    &[
        libc::SYS_getpid, libc::SYS_getppid, libc::SYS_getuid, libc::SYS_geteuid, libc::SYS_getgid,
        libc::SYS_getegid, libc::SYS_getgroups, libc::SYS_getresuid, libc::SYS_getresgid, libc::SYS_uname,
        libc::SYS_sysinfo, libc::SYS_getrusage, libc::SYS_capget, libc::SYS_prctl,
    ],
    // The kernel's programs and maps; the namespaces and sockets of others.
    &[libc::SYS_bpf, libc::SYS_setns, libc::SYS_pidfd_open, libc::SYS_pidfd_getfd, libc::SYS_perf_event_open],
    // The canary, and the child that makes the socket storage.
    &[
        libc::SYS_execve, libc::SYS_wait4, libc::SYS_waitid, libc::SYS_pidfd_send_signal, libc::SYS_setgroups,
        libc::SYS_setresuid, libc::SYS_setresgid, libc::SYS_getpgid, libc::SYS_setpgid,
    ],
];

/// Calls that only this architecture still has; the C library uses them there.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const OLD: &[libc::c_long] = &[
    libc::SYS_open, libc::SYS_stat, libc::SYS_lstat, libc::SYS_access, libc::SYS_poll, libc::SYS_select,
    libc::SYS_readlink, libc::SYS_rename, libc::SYS_unlink, libc::SYS_rmdir, libc::SYS_mkdir, libc::SYS_chmod,
    libc::SYS_chown, libc::SYS_epoll_wait, libc::SYS_pipe, libc::SYS_dup2, libc::SYS_fork, libc::SYS_vfork,
    libc::SYS_arch_prctl, libc::SYS_time, libc::SYS_getpgrp, libc::SYS_eventfd,
];
#[cfg(not(target_arch = "x86_64"))]
const OLD: &[libc::c_long] = &[];

/// Families of sockets: the API's and the runtimes', the monitoring port's and the API server's, the kernel's.
const FAMILIES: [libc::c_int; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// The filter as the kernel takes it.
fn program() -> io::Result<BpfProgram> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().copied().chain([OLD]).flatten().map(|call| (*call, Vec::new())).collect();
    for call in [libc::SYS_socket, libc::SYS_socketpair] {
        let families = FAMILIES.iter().map(|family| {
            let family = u64::from(family.unsigned_abs());
            let is = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, family)?;
            SeccompRule::new(vec![is])
        });
        rules.insert(call, families.collect::<Result<_, _>>().map_err(io::Error::other)?);
    }
    let refuse = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let architecture = std::env::consts::ARCH.try_into().map_err(io::Error::other)?;
    let filter = SeccompFilter::new(rules, refuse, SeccompAction::Allow, architecture);
    filter.and_then(BpfProgram::try_from).map_err(io::Error::other)
}

/// Puts the filter in force for the calling thread and all that it makes. What it refuses is logged, which the library does
/// not ask for.
fn install(program: &BpfProgram) -> io::Result<()> {
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(io::Error::other)?,
        filter: program.as_ptr().cast_mut().cast(),
    };
    // SAFETY: the kernel copies as many instructions as are told, which live until the call returns; both types have the
    // layout of `struct sock_filter`.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_LOG,
            &raw const filter,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a call is answered with.
    fn call(number: libc::c_long, arguments: [libc::c_long; 5]) -> i32 {
        let [first, second, third, fourth, fifth] = arguments;
        // SAFETY: every call below gets numbers only, or null where a pointer is expected.
        let result = unsafe { libc::syscall(number, first, second, third, fourth, fifth) };
        if result < 0 { io::Error::last_os_error().raw_os_error().unwrap_or(0) } else { 0 }
    }

    /// Calls that do nothing and that everybody may make, so that `EPERM` is the filter's word.
    const HARMLESS: [(libc::c_long, [libc::c_long; 5]); 4] = [
        (libc::SYS_personality, [0xffff_ffff, 0, 0, 0, 0]),
        (libc::SYS_unshare, [0; 5]),
        (libc::SYS_process_vm_readv, [0; 5]),
        (libc::SYS_socket, [libc::AF_VSOCK as libc::c_long, 99, 99, 0, 0]),
    ];

    #[test]
    fn a_thread_under_the_filter_can_do_its_work_and_nothing_else() {
        // A filter belongs to a thread: the others of this test go on without.
        let confined = std::thread::spawn(|| {
            for (number, arguments) in HARMLESS {
                assert_ne!(call(number, arguments), libc::EPERM, "{number}, before");
            }
            nix::sys::prctl::set_no_new_privs().unwrap();
            install(&program().unwrap()).unwrap();
            for (number, arguments) in HARMLESS {
                assert_eq!(call(number, arguments), libc::EPERM, "{number}");
            }
            #[rustfmt::skip]
            let refused = [
                libc::SYS_ptrace, libc::SYS_init_module, libc::SYS_finit_module, libc::SYS_mount, libc::SYS_umount2,
                libc::SYS_pivot_root, libc::SYS_chroot, libc::SYS_kexec_load, libc::SYS_swapon,
                libc::SYS_settimeofday, libc::SYS_keyctl, libc::SYS_io_uring_setup, libc::SYS_userfaultfd,
            ];
            for number in refused {
                assert_eq!(call(number, [-1; 5]), libc::EPERM, "{number}");
            }
            std::fs::read_to_string("/proc/self/status").unwrap();
            std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let child = std::process::Command::new("/bin/true").status().unwrap();
            assert!(child.success());
            std::thread::spawn(|| call(libc::SYS_unshare, [0; 5])).join().unwrap()
        });
        assert_eq!(confined.join().unwrap(), libc::EPERM, "threads inherit it");
        assert_eq!(call(libc::SYS_unshare, [0; 5]), 0, "this thread has none");
    }

    #[test]
    fn every_kept_capability_has_its_reason() {
        assert!(KEPT.iter().all(|(_, why)| why.len() > 10));
        let kept: BTreeSet<_> = KEPT.iter().map(|(capability, _)| capability.to_string()).collect();
        assert_eq!(kept.len(), KEPT.len());
        for dangerous in ["CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_BOOT", "CAP_MKNOD", "CAP_NET_RAW"] {
            assert!(!kept.contains(dangerous), "{dangerous}");
        }
    }
}
