//! The Docker API over a Unix socket: a list, and events as lines of JSON.
//!
//! bollard would bring models for all of that API and its own way to a socket; what is needed are two requests of HTTP/1.1,
//! which hyper sends, and three fields of what comes back.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use serde::Deserialize;

use super::super::runtime::{Failure, connect, within};

/// An answer that is longer is not from Docker; a container has some KiB.
const ANSWER_LIMIT: usize = 32 << 20;
/// The same of one event.
const LINE_LIMIT: usize = 1 << 20;
/// Bytes of an answer that are shown.
const SHOWN: usize = 200;

/// A container of a list.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Container {
    pub(super) id: String,
    #[serde(default)]
    pub(super) names: Option<Vec<String>>,
    #[serde(default)]
    pub(super) labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    pub(super) created: Option<serde_json::Value>,
}

/// What an event says that matters.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Event {
    pub(super) action: String,
    pub(super) actor: Actor,
}

/// Whom an event is about.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Actor {
    #[serde(rename = "ID")]
    pub(super) id: String,
}

/// All containers, or the one with this id, whether they run or not.
pub(super) async fn list(socket: &Path, id: Option<&str>) -> Result<Vec<Container>, Failure> {
    let filters = id.map(|id| serde_json::json!({ "id": [id] }).to_string());
    let fixed = [("all", "true")].into_iter();
    let query = fixed.chain(filters.iter().map(|filters| ("filters", filters.as_str())));
    let answer = async {
        let mut body = get(socket, &with_query("/containers/json", query)).await?;
        let mut text = Vec::new();
        while let Some(frame) = body.frame().await {
            let data = frame.map_err(broken)?.into_data().unwrap_or_default();
            if text.len() + data.len() > ANSWER_LIMIT {
                return Err(Failure::Broken(format!("its list has more than {} MiB", ANSWER_LIMIT >> 20)));
            }
            text.extend_from_slice(&data);
        }
        Ok(text)
    };
    let text = within("to list all containers", answer).await??;
    serde_json::from_slice(&text).map_err(|error| Failure::Broken(format!("its list can't be read: {error}")))
}

/// What happens to containers from now on.
pub(super) async fn events(socket: &Path) -> Result<Events, Failure> {
    let filters = r#"{"type":["container"]}"#;
    let path = with_query("/events", [("filters", filters)].into_iter());
    // The headers may come with the first event only, and that may take any time.
    Ok(Events { body: get(socket, &path).await?, rest: Vec::new(), ready: VecDeque::new() })
}

/// Events as they come.
#[derive(Debug)]
pub(super) struct Events {
    body: Incoming,
    rest: Vec<u8>,
    ready: VecDeque<Event>,
}

impl Events {
    /// Waits for the next one. May be cancelled; nothing is lost then.
    pub(super) async fn next(&mut self) -> Result<Event, Failure> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            let Some(frame) = self.body.frame().await else {
                return Err(Failure::Broken("its events have ended".to_owned()));
            };
            self.rest.extend_from_slice(&frame.map_err(broken)?.into_data().unwrap_or_default());
            self.take()?;
            if self.rest.len() > LINE_LIMIT {
                return Err(Failure::Broken(format!("an event has more than {LINE_LIMIT} bytes")));
            }
        }
    }

    /// Takes the whole values out of what has come. They need not be lines.
    fn take(&mut self) -> Result<(), Failure> {
        let mut values = serde_json::Deserializer::from_slice(&self.rest).into_iter();
        let mut whole = 0;
        while let Some(value) = values.next() {
            match value {
                Ok(event) => self.ready.push_back(event),
                Err(error) if error.is_eof() => break,
                Err(error) => return Err(Failure::Broken(format!("an event can't be read: {error}"))),
            }
            whole = values.byte_offset();
        }
        self.rest.drain(..whole);
        Ok(())
    }
}

/// Asks. Every request is one connection.
async fn get(socket: &Path, path: &str) -> Result<Incoming, Failure> {
    let stream = connect(socket).await?;
    let handshake =
        hyper::client::conn::http1::Builder::new().max_buf_size(64 << 10).handshake(TokioIo::new(stream));
    let (mut sender, connection) = within("to shake hands", handshake).await?.map_err(broken)?;
    // Its end is noticed where its body is awaited.
    tokio::spawn(connection);
    let request = Request::get(path).header(header::HOST, "docker").body(Empty::<Bytes>::new());
    let request = request.map_err(|error| Failure::Broken(format!("{path}: {error}")))?;
    let response = sender.send_request(request).await.map_err(broken)?;
    if response.status().is_success() {
        return Ok(response.into_body());
    }
    let code = response.status();
    let said = within("to say what is wrong", response.into_body().frame()).await?;
    let said = said.and_then(Result::ok).and_then(|frame| frame.into_data().ok()).unwrap_or_default();
    let said: String =
        String::from_utf8_lossy(&said).chars().filter(|c| !c.is_control()).take(SHOWN).collect();
    Err(Failure::Broken(format!("{path}: {code}: {said}")))
}

fn with_query<'a>(path: &str, pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
    format!("{path}?{query}")
}

#[expect(clippy::needless_pass_by_value, reason = "used with `map_err`")]
fn broken(error: hyper::Error) -> Failure {
    let cause = std::error::Error::source(&error).map_or_else(String::new, |cause| format!(": {cause}"));
    Failure::Broken(format!("{error}{cause}"))
}
