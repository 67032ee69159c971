//! Watches: what happened after a revision, and what happens then, one JSON document a line.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc::Sender;
use tokio::time::{Instant, sleep_until};

use super::events;
use super::faults::Network;
use super::http::{Form, Shared};
use super::kinds::Kind;
use super::request::Query;
use super::selector::Selector;
use super::status::Failure;
use super::store::{Change, Store};

/// A watch that was asked for.
#[derive(Debug)]
pub struct Watch {
    kind: Kind,
    namespace: String,
    name: String,
    selector: Selector,
    form: Form,
    /// The revision behind which it begins.
    from: u64,
    /// Whether it begins with everything there is.
    initial: bool,
    /// Whether the end of that is told.
    marks_initial: bool,
    bookmarks: bool,
    timeout: Duration,
    /// What it is told at once, and nothing else.
    refused: Option<Failure>,
}

/// A real server ends a watch for which nothing is said after half an hour to an hour.
const TIMEOUT: Duration = Duration::from_mins(30);

impl Watch {
    /// Reads the request.
    pub fn parse(
        store: &Store,
        kind: &Kind,
        namespace: &str,
        query: &Query,
        form: Form,
    ) -> Result<Self, Failure> {
        let selector = Selector::parse(kind, query.text("labelSelector"), query.text("fieldSelector"))?;
        let text = query.text("resourceVersion");
        let version: u64 = match text {
            "" => 0,
            text => text.parse().map_err(|error| {
                Failure::bad_request(format!("invalid resource version {text:?}: {error}"))
            })?,
        };
        let asks_initial = query.is("sendInitialEvents");
        let matching = query.text("resourceVersionMatch");
        if asks_initial && matching != "NotOlderThan" {
            return Err(Failure::new(
                422,
                "Invalid",
                "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ));
        }
        if !asks_initial && !matching.is_empty() {
            return Err(Failure::new(
                422,
                "Invalid",
                "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            ));
        }
        let initial = asks_initial || version == 0;
        // What is too old is told in the stream.
        let refused = if initial { None } else { store.check_revision(version).err() };
        let timeout = query.number("timeoutSeconds")?.map_or(TIMEOUT, Duration::from_secs);
        Ok(Self {
            kind: kind.clone(),
            namespace: namespace.to_owned(),
            name: String::new(),
            selector,
            form,
            from: version,
            initial,
            marks_initial: asks_initial,
            bookmarks: query.is("allowWatchBookmarks"),
            timeout,
            refused,
        })
    }

    fn line(&self, event: &str, object: &Value) -> Bytes {
        let object = self.form.shape(events::shown_as(&self.kind, object));
        let mut line = json!({ "type": event, "object": object }).to_string();
        line.push('\n');
        line.into()
    }

    fn error(failure: &Failure) -> Bytes {
        format!("{}\n", json!({ "type": "ERROR", "object": failure.body() })).into()
    }

    fn bookmark(&self, revision: u64, ends_initial: bool) -> Bytes {
        let mut object = json!({
            "apiVersion": self.kind.api_version(), "kind": self.kind.kind,
            "metadata": { "resourceVersion": revision.to_string(), "creationTimestamp": null },
        });
        if ends_initial {
            object["metadata"]["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        format!("{}\n", json!({ "type": "BOOKMARK", "object": object })).into()
    }

    fn is_meant(&self, object: &Value) -> bool {
        (self.namespace.is_empty() || object["metadata"]["namespace"] == self.namespace.as_str())
            && (self.name.is_empty() || object["metadata"]["name"] == self.name.as_str())
            && self.selector.matches(object)
    }

    /// A change as this watch sees it: an object that begins to match has been added, one that ends to has been deleted.
    fn seen(&self, change: &Change) -> Option<Bytes> {
        if change.place.stored != self.kind.stored {
            return None;
        }
        let was = change.before.as_ref().is_some_and(|object| self.is_meant(object));
        let is = !change.is_gone && self.is_meant(&change.after);
        match (was, is) {
            (false, false) => None,
            (false, true) => Some(self.line("ADDED", &change.after)),
            (true, true) => Some(self.line("MODIFIED", &change.after)),
            (true, false) => {
                // What it was when it matched, at the revision at which it no longer did.
                let mut last = change.before.as_deref().cloned().unwrap_or_default();
                last["metadata"]["resourceVersion"] = change.revision.to_string().into();
                Some(self.line("DELETED", &last))
            }
        }
    }

    /// What is to be told now, and up to which revision that is.
    fn news(&self, store: &Store, after: u64) -> Result<(Vec<Bytes>, u64), Failure> {
        let changes = store.changes_after(after).ok_or_else(|| {
            Failure::expired(format!("too old resource version: {after} ({})", store.revision()))
        })?;
        Ok((changes.filter_map(|change| self.seen(change)).collect(), store.revision()))
    }
}

/// Tells a watch until it ends, by itself or by its reader.
pub async fn run(shared: Arc<Shared>, watch: Watch, lines: Sender<Bytes>) {
    if let Some(failure) = &watch.refused {
        let _gone = lines.send(Watch::error(failure)).await;
        return;
    }
    let mut revisions = shared.revision.subscribe();
    let mut network = shared.network.subscribe();
    let end = Instant::now() + watch.timeout;
    let mut at = watch.from;
    if watch.initial {
        let (first, revision) = {
            let store = shared.store();
            let matching =
                store.all(&watch.kind.stored, &watch.namespace).filter(|object| watch.is_meant(object));
            let first: Vec<Bytes> = matching.map(|object| watch.line("ADDED", object)).collect();
            (first, store.revision())
        };
        at = revision;
        let mark = (watch.marks_initial && watch.bookmarks).then(|| watch.bookmark(revision, true));
        for line in first.into_iter().chain(mark) {
            if lines.send(line).await.is_err() {
                return;
            }
        }
    }
    let mut told = at;
    let mut next_bookmark = Instant::now() + shared.bookmark_every();
    loop {
        revisions.borrow_and_update();
        let news = watch.news(&shared.store(), at);
        let (news, revision) = match news {
            Ok(news) => news,
            Err(failure) => {
                let _gone = lines.send(Watch::error(&failure)).await;
                return;
            }
        };
        at = revision;
        let mut is_gone = false;
        for line in news {
            while *network.borrow_and_update() == Network::Hanging {
                is_gone = is_gone || network.changed().await.is_err();
            }
            is_gone = is_gone || lines.send(line).await.is_err();
            told = revision;
        }
        if is_gone {
            return;
        }
        tokio::select! {
            changed = revisions.changed() => if changed.is_err() { return },
            () = sleep_until(next_bookmark), if watch.bookmarks => {
                next_bookmark = Instant::now() + shared.bookmark_every();
                let is_up = *network.borrow() == Network::Up;
                if is_up && at > told && lines.send(watch.bookmark(at, false)).await.is_err() {
                    return;
                }
                told = at;
            }
            () = sleep_until(end) => {
                // The last word is where to go on.
                if watch.bookmarks {
                    let _gone = lines.send(watch.bookmark(at, false)).await;
                }
                return;
            }
            () = lines.closed() => return,
        }
    }
}
