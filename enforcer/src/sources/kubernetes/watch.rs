//! The watches of all kinds as one stream, each trying again by itself with growing pauses.

use std::pin::Pin;
use std::time::{Duration, SystemTime};

use futures_util::stream::{SelectAll, select_all, unfold};
use futures_util::{Stream, StreamExt as _};
use kube::runtime::watcher::{self, Error, Event};
use kube::{Api, Client};

use super::kinds::{Kind, Object};

/// Objects of a page of a list. They are read page by page, so that a large cluster costs what is kept of it.
const PAGE: u32 = 250;
/// Time after which the server ends a watch. One that is dead is noticed by the heartbeat, long before.
const WATCH: u32 = 290;
/// Pause before the first repetition.
const FIRST: Duration = Duration::from_millis(500);
/// Longest pause.
pub(super) const LONGEST: Duration = Duration::from_secs(30);

/// What a watch tells.
pub(super) type Item = (Kind, Result<Event<Object>, Error>);
type Watch = Pin<Box<dyn Stream<Item = Item> + Send>>;

/// Watches all kinds. Ends never.
pub(super) fn all(client: &Client) -> SelectAll<Watch> {
    select_all(Kind::ALL.map(|kind| one(client, kind)))
}

fn one(client: &Client, kind: Kind) -> Watch {
    let api: Api<Object> = Api::all_with(client.clone(), &kind);
    let config = watcher::Config::default().page_size(PAGE).timeout(WATCH);
    let events = watcher::watcher(api, config).boxed();
    // An attempt begins with a word that all is well, so only what comes behind it ends the series of failures.
    let paced = unfold((events, Duration::ZERO, FIRST), move |(mut events, pause, next)| async move {
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        let event = events.next().await?;
        let (pause, next) = match &event {
            Err(error) if status(error) == Some(404) => (jittered(LONGEST), FIRST),
            // The list that follows is the answer to it.
            Err(error) if status(error) == Some(410) => (Duration::ZERO, next),
            Err(_) => (jittered(next), (next * 2).min(LONGEST)),
            Ok(Event::Init | Event::InitApply(_)) => (Duration::ZERO, next),
            Ok(_) => (Duration::ZERO, FIRST),
        };
        Some(((kind, event), (events, pause, next)))
    });
    paced.boxed()
}

/// Three quarters to five quarters of it, so that a thousand nodes don't come at once.
pub(super) fn jittered(pause: Duration) -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let quarter = pause / 4;
    3 * quarter + 2 * quarter * (now.subsec_nanos() % 1_000) / 1_000
}

/// The code with which the server refused.
pub(super) fn status(error: &Error) -> Option<u16> {
    match error {
        Error::InitialListFailed(kube::Error::Api(status))
        | Error::WatchStartFailed(kube::Error::Api(status))
        | Error::WatchFailed(kube::Error::Api(status))
        | Error::WatchError(status) => Some(status.code),
        _ => None,
    }
}

/// What was tried, and the error behind it.
pub(super) fn parts(error: &Error) -> (&'static str, Option<&kube::Error>) {
    match error {
        Error::InitialListFailed(error) => ("listing", Some(error)),
        Error::WatchStartFailed(error) | Error::WatchFailed(error) => ("watching", Some(error)),
        _ => ("watching", None),
    }
}
