//! Load: processes that open, send, answer and keep flows alive as quickly as they can, and count what came of it.
//!
//! A hammer is the suite's own binary started again with [`ARGUMENT`] and its jobs, in a workload's cgroup. Each job is a
//! thread. It works until its standard input ends, and then tells one line of JSON.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::puppet::{enter, open_once};
use crate::{patience, sockaddr};

/// The hidden argument that makes a process a hammer; its jobs follow as JSON.
pub const ARGUMENT: &str = "--hammer";
/// In a tally: an answer that did not come in time.
pub const SILENCE: i32 = -2;
/// In a tally: an answer that was another one, or the end of a connection that nobody closed.
pub const WRONG: i32 = -3;
/// So long an answer may take before its flow counts as broken: a lost one does not come later, a busy machine is slow.
const LIMIT: u64 = 20;
/// How often those that wait look whether they may end.
const GLANCE: Duration = Duration::from_millis(50);

/// What one thread does.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Job {
    /// Opens connections and resets them.
    Connect(SocketAddr),
    /// Sends one datagram from each of many sockets.
    Send(SocketAddr),
    /// One connection for all the time: a number there, the same number back, and again. Another one is opened only when
    /// it is broken, which is counted.
    PingPong(SocketAddr),
    /// The same with datagrams of one socket.
    Echo(SocketAddr),
    /// Accepts connections and closes them; counts them.
    Accept(SocketAddr),
    /// Accepts connections and sends back what comes on them; counts them.
    Answer(SocketAddr),
    /// Answers datagrams; counts those it has received.
    Receive(SocketAddr),
}

/// What came of one job.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Score {
    /// How often which errno came back; 0 is success; [`SILENCE`] and [`WRONG`] are no errnos.
    pub tally: BTreeMap<i32, u64>,
    /// The longest time between two successes, in microseconds.
    pub longest_pause: u64,
}

impl Score {
    /// How often it went well.
    pub fn good(&self) -> u64 {
        self.tally.get(&0).copied().unwrap_or_default()
    }

    /// How often it went otherwise.
    pub fn bad(&self) -> u64 {
        self.tally.values().sum::<u64>() - self.good()
    }

    /// How often it went otherwise than by this errno or well.
    pub fn other_than(&self, errno: i32) -> u64 {
        self.bad() - self.tally.get(&errno).copied().unwrap_or_default()
    }
}

/// A running hammer.
#[derive(Debug)]
pub struct Hammer {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Hammer {
    /// Starts one in a cgroup directory and network namespace; returns when its servers listen.
    pub fn start(cgroup: &Path, namespace: BorrowedFd<'_>, jobs: &[Job]) -> Self {
        let program = std::env::current_exe().expect("the path of this program");
        let mut command = Command::new(program);
        let text = serde_json::to_string(jobs).expect("jobs are JSON");
        command.args([ARGUMENT, &text]).stdin(Stdio::piped()).stdout(Stdio::piped());
        enter(&mut command, cgroup, namespace);
        let mut child = command.spawn().expect("start a hammer");
        let input = child.stdin.take();
        let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        output.read_line(&mut line).expect("the hammer speaks");
        assert_eq!(line, "ready\n");
        Self { child, input, output }
    }

    /// Ends it; tells what came of its jobs, in their order.
    pub fn rest(mut self) -> Vec<Score> {
        drop(self.input.take());
        let mut line = String::new();
        self.output.read_line(&mut line).expect("the hammer speaks");
        let scores = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line:?}"));
        self.child.wait().expect("its status");
        scores
    }
}

impl Drop for Hammer {
    fn drop(&mut self) {
        // Gone already is as good.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The whole life of a hammer.
pub fn live() {
    let text = std::env::args().nth(2).expect("jobs");
    let jobs: Vec<Job> = serde_json::from_str(&text).expect("jobs");
    // Whatever is tested gets its turn: the load takes the rest of the machine.
    // SAFETY: takes a plain number.
    unsafe { libc::nice(19) };
    let stop = Arc::new(AtomicBool::new(false));
    let works: Vec<_> = jobs.into_iter().map(|job| prepare(job, &stop)).collect();
    let threads: Vec<_> = works.into_iter().map(std::thread::spawn).collect();
    let mut output = std::io::stdout().lock();
    writeln!(output, "ready").and_then(|()| output.flush()).expect("whoever started this listens");
    let mut rest = Vec::new();
    std::io::stdin().lock().read_to_end(&mut rest).expect("standard input");
    stop.store(true, Ordering::SeqCst);
    let scores: Vec<Score> =
        threads.into_iter().map(|thread| thread.join().expect("a job does not panic")).collect();
    writeln!(output, "{}", serde_json::to_string(&scores).expect("scores are JSON"))
        .expect("it still listens");
}

type Work = Box<dyn FnOnce() -> Score + Send>;

/// Makes the sockets of servers, so that nobody comes too early.
fn prepare(job: Job, stop: &Arc<AtomicBool>) -> Work {
    let stop = Arc::clone(stop);
    match job {
        Job::Connect(to) => {
            let to = sockaddr::of(to);
            Box::new(move || repeat(&stop, || open_once(&to).map(drop)))
        }
        Job::Send(to) => Box::new(move || {
            repeat(&stop, || {
                let any: SocketAddr =
                    if to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
                UdpSocket::bind(any)?.send_to(b"forbidden?", to).map(drop)
            })
        }),
        Job::PingPong(to) => Box::new(move || {
            let mut line = None;
            let mut number = 0_u64;
            repeat(&stop, || {
                number += 1;
                ping(&mut line, to, number).inspect_err(|_| line = None)
            })
        }),
        Job::Echo(to) => Box::new(move || {
            let mut line = None;
            let mut number = 0_u64;
            repeat(&stop, || {
                number += 1;
                echo(&mut line, to, number).inspect_err(|_| line = None)
            })
        }),
        Job::Accept(at) => {
            let listener = listen(at);
            Box::new(move || serve_streams(&listener, &stop, drop))
        }
        Job::Answer(at) => {
            let listener = listen(at);
            Box::new(move || {
                serve_streams(&listener, &stop, |stream| {
                    let stop = Arc::clone(&stop);
                    std::thread::spawn(move || answer(stream, &stop));
                })
            })
        }
        Job::Receive(at) => {
            let socket = UdpSocket::bind(at).expect("an address to listen on");
            socket.set_read_timeout(Some(GLANCE)).expect("a timeout");
            Box::new(move || serve_datagrams(&socket, &stop))
        }
    }
}

fn repeat(stop: &AtomicBool, mut once: impl FnMut() -> std::io::Result<()>) -> Score {
    let mut score = Score::default();
    let mut last = Instant::now();
    while !stop.load(Ordering::SeqCst) {
        let result = once();
        let code = match &result {
            Ok(()) => 0,
            Err(error) => match (error.raw_os_error(), error.kind()) {
                (_, ErrorKind::WouldBlock | ErrorKind::TimedOut) => SILENCE,
                (Some(errno), _) => errno,
                (None, _) => WRONG,
            },
        };
        *score.tally.entry(code).or_default() += 1;
        if code == 0 {
            let pause = u64::try_from(last.elapsed().as_micros()).unwrap_or(u64::MAX);
            score.longest_pause = score.longest_pause.max(pause);
            last = Instant::now();
        }
    }
    score
}

fn ping(line: &mut Option<TcpStream>, to: SocketAddr, number: u64) -> std::io::Result<()> {
    if line.is_none() {
        let stream = TcpStream::connect(to)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience::seconds(LIMIT)))?;
        *line = Some(stream);
    }
    let Some(stream) = line else { return Ok(()) };
    stream.write_all(&number.to_ne_bytes())?;
    let mut answer = [0; 8];
    stream.read_exact(&mut answer)?;
    same(number, answer)
}

fn echo(line: &mut Option<UdpSocket>, to: SocketAddr, number: u64) -> std::io::Result<()> {
    if line.is_none() {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(patience::seconds(LIMIT)))?;
        *line = Some(socket);
    }
    let Some(socket) = line else { return Ok(()) };
    socket.send(&number.to_ne_bytes())?;
    let mut answer = [0; 8];
    socket.recv(&mut answer)?;
    same(number, answer)
}

fn same(number: u64, answer: [u8; 8]) -> std::io::Result<()> {
    if u64::from_ne_bytes(answer) == number { Ok(()) } else { Err(ErrorKind::InvalidData.into()) }
}

/// A server that looks now and then whether it may end, with a queue that holds while it does not run.
fn listen(at: SocketAddr) -> TcpListener {
    let listener = TcpListener::bind(at).expect("an address to listen on");
    let fd = listener.as_raw_fd();
    let glance = libc::timeval {
        tv_sec: 0,
        tv_usec: libc::suseconds_t::try_from(GLANCE.as_micros()).expect("a short time"),
    };
    let size = libc::socklen_t::try_from(size_of_val(&glance)).expect("options are small");
    // SAFETY: a listening socket may be told so again; the option is one live value of the given size.
    let results = unsafe {
        let option = (&raw const glance).cast();
        [libc::listen(fd, 4096), libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, option, size)]
    };
    assert_eq!(results, [0, 0], "{}", std::io::Error::last_os_error());
    listener
}

/// Accepts until the end.
fn serve_streams(listener: &TcpListener, stop: &AtomicBool, take: impl Fn(TcpStream)) -> Score {
    let mut accepted = 0;
    while !stop.load(Ordering::SeqCst) {
        // Nobody came for a while, or a connection was reset before it was taken.
        let Ok((stream, _)) = listener.accept() else { continue };
        accepted += 1;
        take(stream);
    }
    Score { tally: BTreeMap::from([(0, accepted)]), longest_pause: 0 }
}

fn answer(mut stream: TcpStream, stop: &AtomicBool) {
    let ready = stream.set_nodelay(true).and_then(|()| stream.set_read_timeout(Some(GLANCE)));
    let mut buffer = [0; 64];
    while ready.is_ok() && !stop.load(Ordering::SeqCst) {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => {
                if stream.write_all(&buffer[..count]).is_err() {
                    return;
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return,
        }
    }
}

fn serve_datagrams(socket: &UdpSocket, stop: &AtomicBool) -> Score {
    let mut received = 0;
    let mut buffer = [0; 64];
    while !stop.load(Ordering::SeqCst) {
        if let Ok((count, from)) = socket.recv_from(&mut buffer) {
            received += 1;
            // Whoever asked counts what does not come back.
            socket.send_to(&buffer[..count], from).ok();
        }
    }
    Score { tally: BTreeMap::from([(0, received)]), longest_pause: 0 }
}
