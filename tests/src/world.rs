//! The place a test happens in: a cgroup directory, a network namespace, a BPF file system and a folder of its own.
//!
//! ```text
//! CGROUP ROOT/enforcer-test-PID-N-NAME/      everything
//!   guarded/                                 what is attached to; workloads live below it
//!   agent/                                   the daemon, outside of what it guards
//! TEMP/enforcer-test-PID-N-NAME/             files, sockets
//!   bpf/                                     BPF file system for the pins
//! ```
//!
//! The namespace has no name: it goes with its last process.

use std::fs;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use enforcer::kernel::Settings;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use crate::puppet::Puppet;
use crate::residue;
use crate::workload::Workload;

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Everything a test has made; gone when dropped.
#[derive(Debug)]
pub struct World {
    name: String,
    cgroup_root: PathBuf,
    cgroup: PathBuf,
    folder: PathBuf,
    namespace: OwnedFd,
    keep: bool,
}

impl World {
    /// A new one for the test of this name.
    pub fn new(name: &str) -> Self {
        Self::with_prefix(residue::TEST, name)
    }

    /// A new one whose traces begin with this prefix, one of those that the residue finder knows.
    pub fn with_prefix(prefix: &str, name: &str) -> Self {
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        let name = format!("{prefix}{}-{number}-{name}", std::process::id());
        let cgroup_root = enforcer::config::cgroup_root(None).expect("a cgroup v2 tree");
        let cgroup = cgroup_root.join(&name);
        let folder = std::env::temp_dir().join(&name);
        let namespace = new_namespace();
        let world = Self { name, cgroup_root, cgroup, folder, namespace, keep: false };
        // From here on Drop removes what is there.
        for directory in [&world.cgroup, &world.guarded(), &world.cgroup.join("agent"), &world.folder] {
            fs::create_dir(directory)
                .unwrap_or_else(|error| panic!("create {}: {error}", directory.display()));
        }
        let bpf = world.folder.join("bpf");
        fs::create_dir(&bpf).expect("a mount point");
        mount(Some("bpf"), &bpf, Some("bpf"), MsFlags::empty(), None::<&str>)
            .expect("mount a BPF file system");
        world
    }

    /// Its unique name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its folder for files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Mount point of the cgroup v2 tree.
    pub fn cgroup_root(&self) -> &Path {
        &self.cgroup_root
    }

    /// The directory that is attached to.
    pub fn guarded(&self) -> PathBuf {
        self.cgroup.join("guarded")
    }

    /// The directory for daemons.
    pub fn agents(&self) -> PathBuf {
        self.cgroup.join("agent")
    }

    /// A directory as configuration names it: relative to the root of the tree.
    pub fn relative(&self, directory: &Path) -> String {
        let inner = directory.strip_prefix(&self.cgroup_root).expect("a directory of the cgroup tree");
        format!("/{}", inner.display())
    }

    /// Where to enforce and where to pin.
    pub fn settings(&self) -> Settings {
        Settings { cgroup_root: self.cgroup_root.clone(), attach: self.guarded(), pins: self.pins() }
    }

    /// The directory of the pins.
    pub fn pins(&self) -> PathBuf {
        self.folder.join("bpf/enforcer")
    }

    /// The network namespace.
    pub fn namespace(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }

    /// Makes a directory below the guarded one.
    pub fn directory(&self, path: &str) -> PathBuf {
        let directory = self.guarded().join(path);
        fs::create_dir_all(&directory)
            .unwrap_or_else(|error| panic!("create {}: {error}", directory.display()));
        directory
    }

    /// A workload with a cgroup of its own, `app=NAME`.
    pub fn workload(&self, name: &str) -> Workload {
        self.workload_in("default", name, &[("app", name)])
    }

    /// A workload with a cgroup of its own.
    pub fn workload_in(&self, namespace: &str, name: &str, labels: &[(&str, &str)]) -> Workload {
        let cgroup = self.directory(&format!("{namespace}.{name}"));
        let puppet = Puppet::start(name, &cgroup, self.namespace());
        Workload::new(namespace, name, labels, cgroup, puppet)
    }

    /// A workload in another network namespace than the test's.
    pub fn workload_at(&self, namespace: BorrowedFd<'_>, name: &str, labels: &[(&str, &str)]) -> Workload {
        let cgroup = self.directory(&format!("default.{name}"));
        let puppet = Puppet::start(name, &cgroup, namespace);
        Workload::new("default", name, labels, cgroup, puppet)
    }

    /// A process of the host: inside the guarded directory, in no workload's.
    pub fn host(&self) -> Workload {
        self.workload_in("", "host", &[])
    }

    /// Another process in a directory.
    pub fn puppet(&self, cgroup: &Path) -> Puppet {
        Puppet::start("puppet", cgroup, self.namespace())
    }

    /// Does something inside the network namespace.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        inside(self.namespace(), work)
    }

    /// Gives the loopback device another address.
    pub fn add_address(&self, address: Ipv4Addr) {
        self.inside(|| {
            request(libc::SIOCSIFADDR, b"lo:1", |request| {
                // SAFETY: all zeros is a valid address, of which the fields that count are set.
                let mut inet: libc::sockaddr_in = unsafe { std::mem::zeroed() };
                inet.sin_family = libc::sa_family_t::try_from(libc::AF_INET).expect("a small number");
                inet.sin_addr.s_addr = u32::from_ne_bytes(address.octets());
                // SAFETY: both are plain old data, and an address of IPv4 fits into the place of any address.
                unsafe {
                    (&raw mut request.ifr_ifru.ifru_addr).cast::<libc::sockaddr_in>().write_unaligned(inet);
                };
            });
        });
    }

    /// Leaves everything as it is when dropped.
    pub fn keep(&mut self) {
        self.keep = true;
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        let problems = residue::remove(&self.cgroup, &self.folder);
        let told = problems.is_empty() || std::thread::panicking();
        assert!(told, "{} can't be removed: {}", self.name, problems.join("; "));
    }
}

/// Does something inside a network namespace.
pub fn inside<T: Send>(namespace: BorrowedFd<'_>, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            setns(namespace, CloneFlags::CLONE_NEWNET).expect("enter the network namespace");
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// A network namespace with nothing but a loopback device that is up. It goes with the last process in it.
pub fn new_namespace() -> OwnedFd {
    let thread = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("a new network namespace");
        loopback_up();
        fs::File::open("/proc/thread-self/ns/net").expect("the namespace's file").into()
    });
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn loopback_up() {
    let flags = i16::try_from(libc::IFF_UP | libc::IFF_RUNNING).expect("small flags");
    request(libc::SIOCSIFFLAGS, b"lo", |request| request.ifr_ifru.ifru_flags = flags);
}

/// Asks for a change of a network device of this thread's namespace.
fn request(code: libc::Ioctl, device: &[u8], fill: impl FnOnce(&mut libc::ifreq)) {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("a socket");
    // SAFETY: `ifreq` is plain old data for which all zeros is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(device) {
        *to = from.cast_signed();
    }
    fill(&mut request);
    // SAFETY: the request outlives the call, which reads exactly one `ifreq`.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), code, &raw const request) };
    assert_eq!(result, 0, "change lo: {}", std::io::Error::last_os_error());
}
