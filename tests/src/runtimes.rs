//! Real container runtimes from Debian's packages, with everything private: roots, sockets, and a mount namespace in which
//! they see nothing but the cgroup v2 tree. Their containers share the network of the test's world.

use std::fs;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::agent::{Output, output};
use crate::world::World;
use crate::{patience, puppet};

/// What the images have; all of it from packages that `cargo xtask setup` installs.
const PROGRAMS: [&str; 8] = ["containerd", "ctr", "runc", "dockerd", "docker", "podman", "conmon", "busybox"];
/// The image that is made here: a static busybox and nothing else.
pub const IMAGE: &str = "enforcer.test/busybox:1";

/// Programs that are missing on this machine.
pub fn missing() -> Vec<&'static str> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |program: &str| std::env::split_paths(&paths).any(|path| path.join(program).is_file());
    PROGRAMS.into_iter().filter(|program| !is_there(program)).collect()
}

/// A containerd and, if asked for, a Docker on top of it. Gone when dropped; what ran in them goes with the world.
#[derive(Debug)]
pub struct Runtimes<'w> {
    world: &'w World,
    containerd: Child,
    docker: Option<Child>,
}

impl<'w> Runtimes<'w> {
    /// Starts containerd.
    pub fn start(world: &'w World) -> Self {
        let folder = world.folder();
        let text = format!(
            "version = 2\nroot = '{0}/containerd-root'\nstate = '{0}/containerd-state'\n\
             disabled_plugins = ['io.containerd.grpc.v1.cri']\n[grpc]\naddress = '/run/containerd/containerd.sock'\n",
            folder.display()
        );
        let config = folder.join("containerd.toml");
        fs::write(&config, text).expect("the configuration of containerd");
        let script = format!("exec containerd --config '{}'", config.display());
        let command = alone(world, "run", &script);
        let runtimes = Self { world, containerd: spawn(world, command, "containerd"), docker: None };
        patience::until_true("containerd answers", patience::seconds(20), || {
            runtimes.containerd_socket().exists() && runtimes.ctr("default", &["version"]).code == 0
        });
        runtimes
    }

    /// Starts Docker.
    pub fn start_docker(&mut self) {
        let folder = self.world.folder().display();
        let script = format!(
            "exec dockerd --data-root '{folder}/docker-root' --exec-root '{folder}/docker-exec' \
             --pidfile '{folder}/docker.pid' --host 'unix://{folder}/docker.sock' --containerd /run/containerd/containerd.sock \
             --bridge none --iptables=false --ip-forward=false --storage-driver vfs \
             --exec-opt native.cgroupdriver=cgroupfs"
        );
        let mut command = Command::new("nsenter");
        let pid = self.containerd.id().to_string();
        command.args(["--target", &pid, "--mount", "sh", "-c", &script]);
        self.docker = Some(spawn(self.world, command, "dockerd"));
        patience::until_true("Docker answers", patience::seconds(20), || self.docker(&["version"]).code == 0);
    }

    /// Where containerd listens.
    pub fn containerd_socket(&self) -> PathBuf {
        self.world.folder().join("run/containerd/containerd.sock")
    }

    /// Ends containerd as nothing can be prepared for; its containers go on.
    pub fn kill_containerd(&mut self) {
        self.containerd.kill().expect("our own child");
        self.containerd.wait().expect("its status");
    }

    /// A command of containerd's own client, in a namespace.
    pub fn ctr(&self, namespace: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.containerd.id().to_string(), "--mount", "ctr", "--address"])
            .arg(self.containerd_socket())
            .args(["--namespace", namespace])
            .args(arguments);
        output(command)
    }

    /// A command of Docker's client.
    pub fn docker(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("docker");
        let socket = self.world.folder().join("docker.sock");
        command.args(["--host", &format!("unix://{}", socket.display())]).args(arguments);
        output(command)
    }
}

impl Drop for Runtimes<'_> {
    fn drop(&mut self) {
        for child in self.docker.iter_mut().chain([&mut self.containerd]) {
            // Gone already is as good.
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// A Podman with its service. Gone when dropped; what ran in it goes with the world.
#[derive(Debug)]
pub struct Podman<'w> {
    world: &'w World,
    service: Child,
}

impl<'w> Podman<'w> {
    /// Starts the service.
    pub fn start(world: &'w World) -> Self {
        let socket = Self::socket(world);
        let serve =
            format!("exec podman {} system service --time 0 'unix://{}'", global(world), socket.display());
        let podman = Self { world, service: spawn(world, alone(world, "podman-run", &serve), "podman") };
        patience::until_true("Podman answers", patience::seconds(20), || socket.exists());
        podman
    }

    /// Where its service listens.
    pub fn socket(world: &World) -> PathBuf {
        world.folder().join("podman.sock")
    }

    /// A command, executed beside the service.
    pub fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.service.id().to_string(), "--mount", "--net", "podman"]);
        command.args(global(self.world).split(' ')).args(arguments);
        output(command)
    }
}

impl Drop for Podman<'_> {
    fn drop(&mut self) {
        // Gone already is as good.
        self.service.kill().ok();
        self.service.wait().ok();
    }
}

/// Everything that Podman would otherwise share with others.
fn global(world: &World) -> String {
    let folder = world.folder().display();
    format!(
        "--root {folder}/podman-root --runroot /run/podman-runroot --tmpdir /run/podman-tmp --storage-driver vfs \
         --cgroup-manager cgroupfs --runtime runc --events-backend file"
    )
}

/// A shell in a mount namespace of its own, where only the cgroup v2 tree is seen, pins are the world's, and `/run` is this folder
/// of the world: sockets and states of runtimes have fixed places there.
fn alone(world: &World, run: &str, script: &str) -> Command {
    let run = world.folder().join(run);
    fs::create_dir(&run).expect("a folder");
    let script = format!(
        "mount --bind '{}' /sys/fs/cgroup && mount --bind '{}/bpf' /sys/fs/bpf && mount --bind '{}' /run && {script}",
        world.cgroup_root().display(),
        world.folder().display(),
        run.display()
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", &script]);
    command
}

/// Makes the image, in the form that `docker load` and `ctr images import` take.
pub fn image(world: &World) -> PathBuf {
    let folder = world.folder().join("image");
    fs::create_dir_all(folder.join("root")).expect("a folder");
    let paths = std::env::var_os("PATH").expect("a path");
    let busybox = std::env::split_paths(&paths).map(|path| path.join("busybox")).find(|path| path.is_file());
    fs::copy(busybox.expect("busybox"), folder.join("root/busybox")).expect("a copy of busybox");
    let tar = |at: &Path, archive: &Path, names: &[&str]| {
        let mut command = Command::new("tar");
        command.arg("-C").arg(at).arg("-cf").arg(archive).args(names);
        output(command).expect_ok();
    };
    tar(&folder.join("root"), &folder.join("layer.tar"), &["busybox"]);
    let mut sum = Command::new("sha256sum");
    sum.arg(folder.join("layer.tar"));
    let sum = output(sum).expect_ok();
    let sum = sum.split(' ').next().expect("a sum");
    let config = serde_json::json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": {"Cmd": ["/busybox", "sleep", "1000"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{sum}")]},
    });
    let manifest =
        serde_json::json!([{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]);
    fs::write(folder.join("config.json"), config.to_string()).expect("the configuration");
    fs::write(folder.join("manifest.json"), manifest.to_string()).expect("the manifest");
    let archive = folder.join("image.tar");
    tar(&folder, &archive, &["config.json", "layer.tar", "manifest.json"]);
    archive
}

fn spawn(world: &World, mut command: Command, name: &str) -> Child {
    let log = fs::File::create(world.folder().join(format!("{name}.log"))).expect("a log");
    let errors = log.try_clone().expect("a copy of the descriptor");
    command.stdin(Stdio::null()).stdout(log).stderr(errors);
    puppet::enter(&mut command, &world.agents(), world.namespace().as_fd());
    command.spawn().unwrap_or_else(|error| panic!("start {name}: {error}"))
}
