//! The life of a source that talks to a runtime over its socket: connect, list, follow, and begin anew when that ends.
//!
//! That nobody listens on the socket is no fault: the runtime is not installed, or not running. What was told before stays, and
//! so do its containers; their directories are followed in any case. A runtime that answers something else than it should, or
//! not in time, is a problem, and is asked again with growing pauses.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::Error;
use super::telling::{Over, Telling};

/// An answer that takes longer is none.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Everything is listed again after so long.
pub(super) const RESYNC: Duration = Duration::from_mins(2);
/// The pause before somebody who is not there is looked for again.
const ABSENT: Duration = Duration::from_secs(2);
/// The first and the longest pause after a failure.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));
/// At the start, everything else waits so long for a runtime that does not answer: what its containers are is not known, and
/// what an earlier agent has left in the kernel holds until then.
const FIRST: Duration = Duration::from_secs(5);
/// A connection that held for so long was a good one.
const GOOD: Duration = Duration::from_secs(20);

/// Why a connection ended.
#[derive(Debug)]
pub(super) enum Failure {
    /// Nobody listens on the socket.
    Absent,
    /// What is wrong, in a few words.
    Broken(String),
    /// Nobody listens to what is told.
    Over,
}

impl From<Over> for Failure {
    fn from(_: Over) -> Self {
        Self::Over
    }
}

/// A runtime.
pub(super) trait Runtime: Send + 'static {
    /// Its socket.
    fn socket(&self) -> &Path;

    /// Connects, lists and follows until that fails. A change of `demand` asks for everything to be listed again.
    fn session(
        &mut self,
        telling: &mut Telling,
        demand: &mut watch::Receiver<u64>,
    ) -> impl Future<Output = Failure> + Send;
}

/// Tells what the runtime knows until nobody listens.
pub(super) async fn run<R: Runtime>(
    mut runtime: R,
    mut telling: Telling,
    mut demand: watch::Receiver<u64>,
) -> Result<(), Error> {
    telling.ready().await;
    let socket = runtime.socket().display().to_string();
    let started = Instant::now();
    let mut pause = PAUSES.0;
    loop {
        let began = Instant::now();
        let failure = runtime.session(&mut telling, &mut demand).await;
        let was_good = began.elapsed() > GOOD;
        if was_good {
            pause = PAUSES.0;
        }
        let wait = match failure {
            Failure::Over => return Ok(()),
            // A socket without anybody may be one of somebody who begins anew.
            Failure::Absent
                if !telling.has_spoken() && runtime.socket().exists() && started.elapsed() < FIRST =>
            {
                Ok(PAUSES.0)
            }
            Failure::Absent => absent(&mut telling, &socket).await.map(|()| ABSENT),
            // It may be ending, or beginning anew: the next attempt tells.
            Failure::Broken(_) if was_good => Ok(pause),
            Failure::Broken(why) => {
                let wait = pause;
                pause = (pause * 2).min(PAUSES.1);
                broken(&mut telling, &socket, &why, started).await.map(|()| wait)
            }
        };
        let Ok(wait) = wait else { return Ok(()) };
        let until = Instant::now() + wait;
        loop {
            tokio::select! {
                moved = telling.moved() => match moved {
                    Ok(moved) => if telling.follow(moved).await.is_err() { return Ok(()) },
                    Err(Over) => return Ok(()),
                },
                changed = demand.changed() => if changed.is_err() { return Ok(()) } else { break },
                () = sleep(until.saturating_duration_since(Instant::now())) => break,
            }
        }
    }
}

async fn absent(telling: &mut Telling, socket: &str) -> Result<(), Over> {
    if !telling.has_spoken() {
        telling.replace(std::collections::BTreeMap::new()).await?;
    }
    telling.settled().await?;
    let known = match telling.len() {
        0 => String::new(),
        count => format!("; its {count} containers are known from before"),
    };
    telling.stand(format!("absent: nobody listens on {socket}{known}")).await
}

async fn broken(telling: &mut Telling, socket: &str, why: &str, started: Instant) -> Result<(), Over> {
    if !telling.has_spoken() {
        if started.elapsed() < FIRST {
            return Ok(());
        }
        telling.replace(std::collections::BTreeMap::new()).await?;
    }
    telling.stand(format!("failing: {socket}: {why}")).await?;
    let kept = if telling.len() == 0 { "none of its containers is known" } else { "what it said last stays" };
    telling.problem(format!("the runtime at {socket} can't be used, and {kept}: {why}")).await
}

/// Connects to a socket.
pub(super) async fn connect(socket: &Path) -> Result<UnixStream, Failure> {
    match within("to connect", UnixStream::connect(socket)).await? {
        Ok(stream) => Ok(stream),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            Err(Failure::Absent)
        }
        Err(error) => Err(Failure::Broken(format!("connect: {error}"))),
    }
}

/// Waits, but not for ever; `what` completes "it took longer than 10 s ...".
pub(super) async fn within<T>(what: &str, work: impl Future<Output = T>) -> Result<T, Failure> {
    let late = |_| Failure::Broken(format!("it took longer than {} s {what}", PATIENCE.as_secs()));
    timeout(PATIENCE, work).await.map_err(late)
}

/// How a source stands that works.
pub(super) fn connected(telling: &Telling, socket: &Path, refused: usize) -> String {
    let more = if refused > 0 { format!(", {refused} that can't be told") } else { String::new() };
    let text = format!("connected: {}, {} known{more}", socket.display(), telling.len());
    match telling.left_out() {
        0 => text,
        labels => format!("{text}, {labels} of their labels can't be labels and are left out"),
    }
}
