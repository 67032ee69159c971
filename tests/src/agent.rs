//! The real daemon, with everything private: state, socket, pins, configuration.

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Read, Write as _};
use std::net::TcpStream;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Instant;

use enforcer::domain::command::Status;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::workload::Workload;
use crate::world::{World, inside};
use crate::{patience, puppet};

/// Where the daemon answers monitoring; the namespace is its own.
const MONITORING: &str = "127.0.0.1:9962";

/// See the module. Killed when dropped; what it has pinned goes with its world.
#[derive(Debug)]
pub struct Agent {
    folder: PathBuf,
    cgroup: PathBuf,
    cgroup_root: PathBuf,
    namespace: OwnedFd,
    child: Option<Child>,
    /// A capability that it is started without.
    lacks: Option<u32>,
}

/// What a command printed, and how it ended.
#[derive(Clone, Debug)]
pub struct Output {
    /// Exit code.
    pub code: i32,
    /// Results.
    pub stdout: String,
    /// Talk.
    pub stderr: String,
}

impl Output {
    /// Panics with everything that was said unless it ended well.
    #[track_caller]
    pub fn expect_ok(self) -> String {
        assert_eq!(self.code, 0, "{self:#?}");
        self.stdout
    }
}

/// A command that goes on. Killed when dropped.
#[derive(Debug)]
pub struct Begun {
    child: Child,
    talk: PathBuf,
}

impl Begun {
    /// What it has said so far, besides results.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.talk).expect("what it says")
    }

    /// Waits until it has ended; its exit code.
    pub fn until_ended(&mut self) -> i32 {
        let status = patience::until("the command ends", patience::seconds(60), || {
            self.child.try_wait().expect("its status")
        });
        status.code().unwrap_or(-1)
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        // Gone already is as good.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Values of the metrics by name and labels, as the exposition writes them.
pub type Metrics = BTreeMap<String, f64>;

impl Agent {
    /// Writes its files; starts nothing.
    pub fn new(world: &World) -> Self {
        let folder = world.folder().to_owned();
        let agent = Self {
            cgroup: world.agents(),
            cgroup_root: world.cgroup_root().to_owned(),
            namespace: world.namespace().try_clone_to_owned().expect("a copy of the descriptor"),
            child: None,
            lacks: None,
            folder,
        };
        fs::create_dir_all(agent.policies()).expect("the policy directory");
        agent.workloads([]);
        agent.configure(&[("attach", &world.relative(&world.guarded()))]);
        agent
    }

    /// Starts it and waits until it enforces.
    pub fn start(world: &World) -> Self {
        let mut agent = Self::new(world);
        agent.run();
        agent
    }

    /// Writes its configuration: what is private, and these settings.
    pub fn configure(&self, settings: &[(&str, &str)]) {
        let own = [
            ("pins", self.folder.join("bpf/enforcer")),
            ("state-dir", self.folder.join("state")),
            ("socket", self.socket()),
            ("workloads", self.folder.join("workloads.yaml")),
            ("cgroup-root", self.cgroup_root.clone()),
        ];
        let is_own = |key: &str| !settings.iter().any(|(given, _)| *given == key);
        let own = own.into_iter().filter(|(key, _)| is_own(key));
        let mut lines: Vec<String> = own.map(|(key, path)| format!("{key}: {}", path.display())).collect();
        lines.push(format!("policies: [{}]", self.policies().display()));
        lines.push(format!("metrics-listen: \"{MONITORING}\""));
        // What runs on this machine is none of a test's business.
        for (key, none) in [("containerd-socket", "null"), ("docker-sockets", "[]")] {
            lines.extend(is_own(key).then(|| format!("{key}: {none}")));
        }
        // Tests fill the ring on purpose, and count events one by one.
        for key in ["event-limit-allowed", "event-limit-denied"].into_iter().filter(|key| is_own(key)) {
            lines.push(format!("{key}: 0"));
        }
        lines.extend(settings.iter().map(|(key, value)| format!("{key}: {value}")));
        let text = lines.join("\n");
        fs::write(self.config(), text).expect("write the configuration");
    }

    /// Its configuration file.
    pub fn config(&self) -> PathBuf {
        self.folder.join("enforcer.yaml")
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("enforcer.sock")
    }

    /// Its directory of policy files.
    pub fn policies(&self) -> PathBuf {
        self.folder.join("policies.d")
    }

    /// Writes the file of workloads, as a whole.
    pub fn workloads<'a>(&self, workloads: impl IntoIterator<Item = &'a Workload>) {
        let items = workloads.into_iter().map(|workload| {
            let labels = serde_json::to_string(&workload.labels).expect("labels are JSON");
            let cgroup = workload.cgroup.strip_prefix(&self.cgroup_root).expect("below the root").display();
            let Workload { name, namespace, .. } = workload;
            format!("{{name: {name}, namespace: {namespace}, labels: {labels}, cgroup: /{cgroup}}}")
        });
        let text = format!("workloads: [{}]\n", items.collect::<Vec<_>>().join(",\n  "));
        let (new, file) = (self.folder.join("workloads.new"), self.folder.join("workloads.yaml"));
        fs::write(&new, text).and_then(|()| fs::rename(&new, &file)).expect("write the workloads");
    }

    /// Starts it and waits until it enforces.
    pub fn run(&mut self) {
        self.spawn();
        self.until_ready();
    }

    /// Has it started without a capability, by its number (linux/capability.h).
    pub fn without(&mut self, capability: u32) {
        self.lacks = Some(capability);
    }

    /// Starts it and waits for nothing.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let log = fs::File::options().create(true).append(true).open(self.log()).expect("the log");
        let mut command = self.command();
        command.arg("run").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        puppet::enter(&mut command, &self.cgroup, self.namespace.as_fd());
        if let Some(capability) = self.lacks {
            puppet::lose(&mut command, capability);
        }
        self.child =
            Some(command.spawn().unwrap_or_else(|error| panic!("start {}: {error}", program().display())));
    }

    /// Waits until it says that it is ready.
    pub fn until_ready(&mut self) {
        patience::until_true("the daemon is ready", patience::seconds(30), || {
            let child = self.child.as_mut().expect("it was started");
            if let Some(status) = child.try_wait().expect("its status") {
                panic!("the daemon ended with {status}:\n{}", self.told());
            }
            self.get("/readyz").is_some_and(|(code, _)| code == 200)
        });
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Everything it has logged.
    pub fn told(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    fn log(&self) -> PathBuf {
        self.folder.join("agent.log")
    }

    /// Arms a point at which it ends itself, when it comes there for the `turn`th time from now on.
    pub fn arm(&self, point: &str, turn: u64) {
        fs::write(self.fail_point(), format!("{point} {turn}\n")).expect("arm a point");
    }

    /// Disarms every point.
    pub fn disarm(&self) {
        fs::write(self.fail_point(), "").expect("disarm all points");
    }

    fn fail_point(&self) -> PathBuf {
        self.folder.join("fail-point")
    }

    /// Waits until it has ended by itself or by an armed point; returns its exit code as a shell counts it.
    pub fn until_ended(&mut self) -> i32 {
        let mut child = self.child.take().expect("it was started");
        let status = patience::until("the daemon ends", patience::seconds(30), || {
            child.try_wait().expect("its status")
        });
        status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
    }

    /// Whether it has ended without having been asked to.
    pub fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().expect("its status").is_some())
    }

    /// Whether it says that it is ready.
    pub fn is_ready(&self) -> bool {
        self.get("/readyz").is_some_and(|(code, _)| code == 200)
    }

    /// Kills it as nothing can be prepared for.
    pub fn kill9(&mut self) {
        self.end(Signal::SIGKILL);
    }

    /// Asks it to end; returns its exit code.
    pub fn terminate(&mut self) -> i32 {
        self.end(Signal::SIGTERM)
    }

    /// Sends a signal that does not end it.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).expect("process ids are small");
        kill(Pid::from_raw(pid), signal).expect("the daemon's own process");
    }

    fn end(&mut self, signal: Signal) -> i32 {
        self.signal(signal);
        let mut child = self.child.take().expect("it runs");
        let status = patience::until("the daemon ends", patience::seconds(20), || {
            child.try_wait().expect("its status")
        });
        status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
    }

    /// Runs it in the foreground until it ends by itself, with these arguments behind `run`.
    pub fn refused(&self, arguments: &[&str]) -> Output {
        let mut command = self.command();
        command.arg("run").args(arguments);
        puppet::enter(&mut command, &self.cgroup, self.namespace.as_fd());
        output(command)
    }

    /// A command of the command line.
    pub fn cli(&self, arguments: &[&str]) -> Output {
        let mut command = self.command();
        command.args(arguments);
        output(command)
    }

    /// A command of the command line with something on its standard input.
    pub fn cli_with(&self, arguments: &[&str], input: &str) -> Output {
        let file = self.folder.join("stdin");
        fs::write(&file, input).expect("write the input");
        let mut command = self.command();
        command.args(arguments).stdin(fs::File::open(file).expect("the input"));
        output(command)
    }

    /// A command of the command line, in the agent's network namespace.
    pub fn cli_inside(&self, arguments: &[&str]) -> Output {
        let mut command = self.command();
        command.args(arguments);
        puppet::enter(&mut command, &self.cgroup, self.namespace.as_fd());
        output(command)
    }

    /// Starts a command of the command line in the agent's network namespace, and waits for nothing.
    pub fn begin_inside(&self, arguments: &[&str]) -> Begun {
        let talk = self.folder.join("talk");
        let mut command = self.command();
        command.args(arguments).stdout(Stdio::null());
        command.stderr(fs::File::create(&talk).expect("a file for what it says"));
        puppet::enter(&mut command, &self.cgroup, self.namespace.as_fd());
        Begun { child: command.spawn().expect("start a command"), talk }
    }

    /// Its status.
    pub fn status(&self) -> Status {
        let output = self.cli(&["status", "-o", "json"]);
        let value: serde_json::Value =
            serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:#?}"));
        let inner = value.get("status").cloned().unwrap_or(value);
        serde_json::from_value(inner).unwrap_or_else(|error| panic!("{error}: {output:#?}"))
    }

    /// Code and body of a page for monitoring; nothing while nobody listens.
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        inside(self.namespace.as_fd(), || {
            let mut stream = TcpStream::connect(MONITORING).ok()?;
            stream.set_read_timeout(Some(patience::seconds(10))).expect("a timeout");
            write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
            let mut text = String::new();
            stream.read_to_string(&mut text).ok()?;
            let (head, body) = text.split_once("\r\n\r\n")?;
            let code = head.split(' ').nth(1)?.parse().ok()?;
            Some((code, body.to_owned()))
        })
    }

    /// All metrics.
    pub fn metrics(&self) -> Metrics {
        let (code, text) = self.get("/metrics").expect("the daemon answers");
        assert_eq!(code, 200);
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let values = lines.filter_map(|line| line.rsplit_once(' '));
        values.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(program());
        // The suite's own variables would be settings.
        command.env_clear().env("RUST_BACKTRACE", "1").stdin(Stdio::null());
        command.env(enforcer::fail::VARIABLE, self.fail_point());
        command.arg("--config").arg(self.config());
        command
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Gone already is as good.
            child.kill().ok();
            child.wait().ok();
        }
        if std::thread::panicking() {
            eprintln!("the daemon told:\n{}", self.told());
        }
    }
}

/// Runs a command that ends by itself, to its end.
pub fn output(mut command: Command) -> Output {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    // A program that was just copied is busy while another thread's child still holds the descriptor it was written by.
    let mut child =
        patience::until("the program to be free", patience::seconds(10), || match command.spawn() {
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => None,
            started => Some(started.unwrap_or_else(|error| panic!("start {command:?}: {error}"))),
        });
    let collect = |mut pipe: Box<dyn Read + Send>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            pipe.read_to_end(&mut bytes).expect("read the output");
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let stdout = collect(Box::new(child.stdout.take().expect("a pipe")));
    let stderr = collect(Box::new(child.stderr.take().expect("a pipe")));
    let deadline = Instant::now() + patience::seconds(180);
    let status = loop {
        if let Some(status) = child.try_wait().expect("its status") {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().expect("our own child");
            child.wait().expect("its status");
            panic!("{command:?} does not end; it told {}", stderr.join().unwrap_or_default());
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    };
    let text = |thread: JoinHandle<String>| thread.join().expect("the reader does not panic");
    Output { code: status.code().unwrap_or(-1), stdout: text(stdout), stderr: text(stderr) }
}

/// The binary: `ENFORCER_BIN`, or the one that was built beside this program.
pub fn program() -> PathBuf {
    if let Some(path) = std::env::var_os("ENFORCER_BIN") {
        return path.into();
    }
    let own = std::env::current_exe().expect("the path of this program");
    let beside =
        own.ancestors().skip(1).take(2).map(|folder| folder.join("enforcer")).find(|path| path.is_file());
    beside.expect("set ENFORCER_BIN, or build it: `cargo build -p enforcer`")
}

/// The folder of the example policies: `ENFORCER_POLICIES`, or the one of the sources.
pub fn policies() -> PathBuf {
    let sources = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies");
    std::env::var_os("ENFORCER_POLICIES").map_or_else(sources, PathBuf::from)
}
