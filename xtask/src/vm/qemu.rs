//! One emulated machine: started, listened to, and ended whatever it does.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// How a machine ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// Init reported the suite's exit code.
    Exit(i32),
    /// The kernel gave up, with its own words.
    Panic(String),
    /// The time was over.
    Timeout,
    /// The emulator ended without a word from init.
    Silent,
}

/// What a machine left behind.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) end: End,
    /// The last lines of the console, for a post mortem.
    pub(crate) tail: VecDeque<String>,
    /// From start to the first word of init.
    pub(crate) boot: Option<Duration>,
    pub(crate) total: Duration,
}

/// Lines kept for a post mortem.
const TAIL: usize = 40;
/// How long a machine may take to switch itself off after init's last word.
const POWER_OFF: Duration = Duration::from_secs(10);

pub(super) struct Machine<'a> {
    pub(super) image: &'a Path,
    pub(super) first_files: &'a Path,
    pub(super) cpus: u32,
    pub(super) append: &'a [String],
    pub(super) timeout: Duration,
}

impl Machine<'_> {
    /// Runs to the end and calls `show` with every line of the console.
    pub(super) fn run(&self, mut show: impl FnMut(&str)) -> Result<Report> {
        let start = Instant::now();
        let mut child = self
            .command()
            .spawn()
            .context("cannot start qemu-system-x86_64; `cargo xtask setup` installs it")?;
        let lines = console(&mut child);
        let mut console = Console::default();
        let end = loop {
            let left = console.deadline(start + self.timeout).saturating_duration_since(Instant::now());
            match lines.recv_timeout(left) {
                Ok(line) => {
                    show(&line);
                    console.take(line, start);
                }
                Err(RecvTimeoutError::Timeout) => break console.end.take().unwrap_or(End::Timeout),
                Err(RecvTimeoutError::Disconnected) => break console.end.take().unwrap_or(End::Silent),
            }
        };
        // Already gone in the good case, and then this is a no-op.
        drop(child.kill());
        child.wait().context("cannot wait for the emulator")?;
        Ok(Report { end, tail: console.tail, boot: console.boot, total: start.elapsed() })
    }

    fn command(&self) -> Command {
        let mut command = Command::new("qemu-system-x86_64");
        // Emulation on purpose: it runs everywhere, while hardware assistance inside another virtual
        // machine was seen to hang. `panic=-1` restarts at once, and `-no-reboot` makes that an exit.
        command
            .args(["-accel", "tcg,thread=single", "-cpu", "max", "-m", "1024", "-smp"])
            .arg(self.cpus.to_string())
            .args(["-display", "none", "-serial", "stdio", "-monitor", "none", "-nic", "none", "-no-reboot"])
            .arg("-append")
            .arg(
                [&["console=ttyS0 quiet panic=-1 oops=panic rdinit=/init".to_owned()], self.append]
                    .concat()
                    .join(" "),
            )
            .arg("-kernel")
            .arg(self.image)
            .arg("-initrd")
            .arg(self.first_files)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }
}

/// Both streams of the emulator, line by line; the channel closes when both have ended.
fn console(child: &mut Child) -> Receiver<String> {
    let (send, receive) = channel();
    let streams: [Option<Box<dyn Read + Send>>; 2] = [
        child.stdout.take().map(|stream| Box::new(stream) as _),
        child.stderr.take().map(|stream| Box::new(stream) as _),
    ];
    for stream in streams.into_iter().flatten() {
        let send = send.clone();
        thread::spawn(move || {
            let mut reader = BufReader::new(stream);
            let mut raw = Vec::new();
            while reader.read_until(b'\n', &mut raw).is_ok_and(|read| read > 0) {
                // The listener left early: nobody wants the rest.
                if send.send(plain(&String::from_utf8_lossy(&raw))).is_err() {
                    break;
                }
                raw.clear();
            }
        });
    }
    receive
}

/// What has been understood of the console so far.
#[derive(Debug, Default)]
struct Console {
    tail: VecDeque<String>,
    boot: Option<Duration>,
    end: Option<End>,
    ended: Option<Instant>,
}

impl Console {
    fn take(&mut self, line: String, start: Instant) {
        if self.boot.is_none() && line.starts_with("init: ") {
            self.boot = Some(start.elapsed());
        }
        if self.end.is_none() {
            self.end = end_of(&line);
            self.ended = self.end.as_ref().map(|_| Instant::now());
        }
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(line);
    }

    fn deadline(&self, limit: Instant) -> Instant {
        self.ended.map_or(limit, |at| limit.min(at + POWER_OFF))
    }
}

fn end_of(line: &str) -> Option<End> {
    if let Some(code) = line.strip_prefix("init: exit ") {
        return code.trim().parse().ok().map(End::Exit);
    }
    line.find("Kernel panic - not syncing")
        .map(|at| End::Panic(line.get(at..).unwrap_or_default().to_owned()))
}

/// A console line without carriage returns and terminal sequences.
fn plain(raw: &str) -> String {
    let mut text = String::with_capacity(raw.len());
    let mut letters = raw.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter != '\u{1b}' {
            if !letter.is_control() || letter == '\t' {
                text.push(letter);
            }
            continue;
        }
        // `ESC [ numbers letter`, or `ESC letter`.
        if letters.next() == Some('[') {
            for inner in letters.by_ref() {
                if inner.is_ascii_alphabetic() {
                    break;
                }
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_recognised() {
        assert_eq!(end_of("init: exit 3"), Some(End::Exit(3)));
        let panic = end_of("[    1.2] Kernel panic - not syncing: no init");
        assert_eq!(panic, Some(End::Panic("Kernel panic - not syncing: no init".to_owned())));
        assert_eq!(end_of("test init: exit 3"), None);
    }

    #[test]
    fn terminal_sequences_are_dropped() {
        assert_eq!(plain("\u{1b}c\u{1b}[?7l\u{1b}[2JSeaBIOS\r\n"), "SeaBIOS");
    }

    #[test]
    fn the_tail_is_bounded_and_power_off_is_awaited_briefly() {
        let start = Instant::now();
        let mut console = Console::default();
        for number in 0..100 {
            console.take(format!("line {number}"), start);
        }
        assert_eq!(console.tail.len(), TAIL);
        let limit = start + Duration::from_mins(5);
        assert_eq!(console.deadline(limit), limit);
        console.take("init: exit 0".to_owned(), start);
        assert!(console.deadline(limit) < start + Duration::from_secs(20));
    }
}
