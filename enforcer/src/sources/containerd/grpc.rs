//! gRPC over a Unix socket, as much as is needed: a call with one message, and the messages that come back.
//!
//! containerd-client would bring generated code for all of containerd's API and needs `protoc` on whatever builds it; tonic
//! brings a stack beside the one that is here. hyper speaks HTTP/2, prost encodes the messages, and what is left of gRPC is a
//! five-byte header and two trailers.

use std::marker::PhantomData;
use std::path::Path;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2::{self, SendRequest};
use hyper::header::{HeaderMap, HeaderValue};
use hyper::{Request, Response, header};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;

use super::super::runtime::{Failure, connect, within};

/// A message that is longer is not from containerd; a specification has some ten KiB.
const MESSAGE_LIMIT: usize = 4 << 20;
/// Length of what stands before each message: whether it is compressed, and its length.
const HEADER: usize = 5;
/// gRPC's code of what is not there.
const NOT_FOUND: &str = "5";
/// Characters of an answer that are shown.
const SHOWN: usize = 200;

/// A connection; copies share it.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
}

impl Connection {
    pub(super) async fn open(socket: &Path) -> Result<Self, Failure> {
        let stream = connect(socket).await?;
        let handshake = http2::Builder::new(TokioExecutor::new())
            .max_header_list_size(16 << 10)
            .handshake(TokioIo::new(stream));
        let (sender, connection) = within("to shake hands", handshake).await?.map_err(broken)?;
        // Its end is noticed where something is sent or awaited.
        tokio::spawn(connection);
        Ok(Self { sender })
    }

    /// Calls `SERVICE/METHOD` in a namespace of containerd's.
    pub(super) async fn call<M: Message + Default>(
        &mut self,
        method: &'static str,
        namespace: &str,
        message: &impl Message,
    ) -> Result<Messages<M>, Failure> {
        let request = request(method, namespace, message)?;
        let response = within("to answer", self.send(request)).await??;
        Messages::begun(method, response)
    }

    /// The same for a method that may not answer before there is something to be said.
    pub(super) async fn stream<M: Message + Default>(
        &mut self,
        method: &'static str,
        message: &impl Message,
    ) -> Result<Messages<M>, Failure> {
        let response = self.send(request(method, "", message)?).await?;
        Messages::begun(method, response)
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Failure> {
        self.sender.ready().await.map_err(broken)?;
        self.sender.send_request(request).await.map_err(broken)
    }

    /// The same for a method that gives one message; `None` if what it asks for is not there.
    pub(super) async fn one<M: Message + Default>(
        &mut self,
        method: &'static str,
        namespace: &str,
        message: &impl Message,
    ) -> Result<Option<M>, Failure> {
        let mut messages = self.call(method, namespace, message).await?;
        within("to answer", messages.next()).await?
    }
}

fn request(
    method: &'static str,
    namespace: &str,
    message: &impl Message,
) -> Result<Request<Full<Bytes>>, Failure> {
    let length = u32::try_from(message.encoded_len()).unwrap_or(u32::MAX);
    let mut body = vec![0];
    body.extend(length.to_be_bytes());
    body.extend(message.encode_to_vec());
    let mut request = Request::post(format!("http://containerd/{method}"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers");
    if !namespace.is_empty() {
        let value = HeaderValue::try_from(namespace)
            .map_err(|error| Failure::Broken(format!("the namespace {namespace:?}: {error}")))?;
        request = request.header("containerd-namespace", value);
    }
    request.body(Full::new(Bytes::from(body))).map_err(|error| Failure::Broken(format!("{method}: {error}")))
}

/// How a call ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Whole,
    NotFound,
}

/// What comes back.
#[derive(Debug)]
pub(super) struct Messages<M> {
    method: &'static str,
    body: Incoming,
    buffer: Vec<u8>,
    ended: Option<Ended>,
    message: PhantomData<M>,
}

impl<M: Message + Default> Messages<M> {
    fn begun(method: &'static str, response: Response<Incoming>) -> Result<Self, Failure> {
        let (head, body) = response.into_parts();
        let kind = head.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        if !head.status.is_success() || !kind.is_some_and(|kind| kind.starts_with("application/grpc")) {
            let (code, kind) = (head.status, kind.unwrap_or("nothing"));
            return Err(Failure::Broken(format!("{method}: {code} with {kind} is no gRPC")));
        }
        let ended = status(&head.headers, method).transpose()?;
        Ok(Self { method, body, buffer: Vec::new(), ended, message: PhantomData })
    }

    /// The next message; `None` at the end. May be cancelled; nothing is lost then.
    pub(super) async fn next(&mut self) -> Result<Option<M>, Failure> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            if self.ended.is_some() {
                return Ok(None);
            }
            match self.body.frame().await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.buffer.extend_from_slice(&data),
                    Err(frame) => {
                        let trailers = frame.into_trailers().unwrap_or_default();
                        self.ended = status(&trailers, self.method).transpose()?;
                    }
                },
                Some(Err(error)) => return Err(broken(error)),
                None => return Err(Failure::Broken(format!("{}: it ended without a status", self.method))),
            }
        }
    }

    fn take(&mut self) -> Result<Option<M>, Failure> {
        let bad = |what: String| Err(Failure::Broken(format!("{}: {what}", self.method)));
        let Some((header, rest)) = self.buffer.split_first_chunk::<HEADER>() else { return Ok(None) };
        let [compressed, length @ ..] = *header;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if compressed != 0 {
            return bad("a message is compressed, which was not asked for".to_owned());
        }
        if length > MESSAGE_LIMIT {
            return bad(format!("a message of {length} bytes is more than {MESSAGE_LIMIT}"));
        }
        let Some(message) = rest.get(..length) else { return Ok(None) };
        let message = match M::decode(message) {
            Ok(message) => message,
            Err(error) => return bad(format!("a message can't be read: {error}")),
        };
        self.buffer.drain(..HEADER + length);
        Ok(Some(message))
    }
}

/// How a call ended, if these headers say so.
fn status(headers: &HeaderMap, method: &str) -> Option<Result<Ended, Failure>> {
    match headers.get("grpc-status")?.to_str().unwrap_or("?") {
        "0" => Some(Ok(Ended::Whole)),
        NOT_FOUND => Some(Ok(Ended::NotFound)),
        code => {
            let message = headers.get("grpc-message").and_then(|text| text.to_str().ok()).unwrap_or("-");
            let message: String = message.chars().filter(|c| !c.is_control()).take(SHOWN).collect();
            Some(Err(Failure::Broken(format!("{method}: status {code}: {message}"))))
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "used with `map_err`")]
fn broken(error: hyper::Error) -> Failure {
    let cause = std::error::Error::source(&error).map_or_else(String::new, |cause| format!(": {cause}"));
    Failure::Broken(format!("{error}{cause}"))
}
