//! Commands in pods: the subresource `pods/exec` over a WebSocket, by the protocol `v5.channel.k8s.io`, the only one that API
//! servers speak there.
//!
//! The first byte of a message names its channel: 0 is standard input, 1 output, 2 errors, 3 the status that ends it all (a
//! `metav1.Status`), 255 closes the channel that its second byte names. The server begins with an empty message of output. As
//! with a real node, a command whose client is gone is not ended: its input is closed, and its output has nobody.

use std::fmt::Debug;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use hyper::body::Bytes;
use hyper::http::request::Parts;
use hyper::upgrade::OnUpgrade;
use hyper::{Response, header};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::http::{Shared, lock};
use super::request::Target;
use super::status::Failure;
use super::store::Place;

const PROTOCOL: &str = "v5.channel.k8s.io";
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
const CLOSE: u8 = 255;
/// Longest time for a client to take the end.
const FAREWELL: Duration = Duration::from_secs(10);

/// A command that is to be executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Execution {
    /// Namespace of the pod.
    pub namespace: String,
    /// The pod.
    pub pod: String,
    /// Its node.
    pub node: String,
    /// The container.
    pub container: String,
    /// Program and arguments.
    pub command: Vec<String>,
}

/// A command that was executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Executed {
    /// What was asked for.
    pub execution: Execution,
    /// How it ended, as a shell counts it; nothing while it runs.
    pub code: Option<i32>,
}

/// What a node makes of a command.
#[derive(Debug)]
pub enum Way {
    /// It runs this.
    Run(Command),
    /// The API server can't reach it, or it can't start the command: this is what its status says.
    Fail(String),
}

/// Decides about commands.
pub type Handler = Arc<dyn Fn(&Execution) -> Way + Send + Sync>;

/// What is wrong with a request, in the order in which a real server finds it; else the connection changes its protocol.
pub(super) fn connect(
    shared: &Arc<Shared>,
    target: &Target,
    parts: &Parts,
    upgrade: Option<OnUpgrade>,
) -> Result<Response<Option<Bytes>>, Failure> {
    let execution = execution(shared, target, parts.uri.query().unwrap_or_default())?;
    let header = |name| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_websocket = header(header::UPGRADE).eq_ignore_ascii_case("websocket");
    let (Some(upgrade), true) = (upgrade, is_websocket) else {
        return Err(Failure::bad_request("Upgrade request required"));
    };
    if !header(header::SEC_WEBSOCKET_PROTOCOL).split(',').any(|protocol| protocol.trim() == PROTOCOL) {
        let offered = header(header::SEC_WEBSOCKET_PROTOCOL);
        return Err(Failure::bad_request(format!("unable to upgrade: no protocol of [{offered}] is known")));
    }
    let accept = derive_accept_key(header(header::SEC_WEBSOCKET_KEY).as_bytes());
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let mut cut = shared.cut.subscribe();
        let Ok(upgraded) = upgrade.await else { return };
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
        tokio::select! {
            () = serve(&shared, execution, socket) => {}
            _cut = cut.changed() => {}
        }
    });
    let answer = Response::builder()
        .status(101)
        .header(header::UPGRADE, "websocket")
        .header(header::CONNECTION, "Upgrade")
        .header(header::SEC_WEBSOCKET_ACCEPT, accept)
        .header(header::SEC_WEBSOCKET_PROTOCOL, PROTOCOL)
        .body(None);
    Ok(answer.expect("a status and headers make an answer"))
}

/// The command, if there is a container for it.
fn execution(shared: &Shared, target: &Target, query: &str) -> Result<Execution, Failure> {
    let Target { kind, namespace, name, .. } = target;
    let place = Place { stored: kind.stored.clone(), namespace: namespace.clone(), name: name.clone() };
    let pod = shared.store().get(&place).ok_or_else(|| Failure::not_found(kind, name))?;
    let all = |wanted: &str| -> Vec<String> {
        let pairs = form_urlencoded::parse(query.as_bytes());
        pairs.filter(|(key, _)| key == wanted).map(|(_, value)| value.into_owned()).collect()
    };
    let command = all("command");
    if command.is_empty() {
        return Err(Failure::bad_request("you must specify at least 1 command"));
    }
    let known: Vec<&str> = pod["spec"]["containers"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|container| container["name"].as_str())
        .collect();
    let container = match (all("container").pop(), known.as_slice()) {
        (Some(container), known) if known.contains(&container.as_str()) => container,
        (Some(container), _) => {
            return Err(Failure::bad_request(format!("container {container} is not valid for pod {name}")));
        }
        (None, [one]) => (*one).to_owned(),
        (None, _) => {
            return Err(Failure::bad_request(format!("a container name must be specified for pod {name}")));
        }
    };
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default().to_owned();
    if node.is_empty() {
        return Err(Failure::bad_request(format!("pod {name} does not have a host assigned")));
    }
    Ok(Execution { namespace: namespace.clone(), pod: name.clone(), node, container, command })
}

type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

async fn serve(shared: &Shared, execution: Execution, mut socket: Socket) {
    if socket.send(message(STDOUT, &[])).await.is_err() {
        return;
    }
    let handler = lock(&shared.execute).clone();
    let way = handler
        .map_or_else(|| Way::Fail("error dialing backend: no node answers".into()), |how| how(&execution));
    let command = match way {
        Way::Run(command) => command,
        Way::Fail(why) => return farewell(&mut socket, &internal(&why)).await,
    };
    let mut command = tokio::process::Command::from(command);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return farewell(&mut socket, &internal(&format!("exec failed: {error}"))).await,
    };
    let place = {
        let mut executed = lock(&shared.executed);
        executed.push(Executed { execution, code: None });
        executed.len() - 1
    };
    let is_heard = carry(&mut child, &mut socket).await;
    let code = match child.wait().await {
        Ok(status) => status.code().unwrap_or(137),
        Err(_) => -1,
    };
    lock(&shared.executed)[place].code = Some(code);
    if is_heard {
        farewell(&mut socket, &exit(code)).await;
    }
}

/// Carries what is read and written, until the command prints no more or the client is gone; whether it still hears.
async fn carry(child: &mut Child, socket: &mut Socket) -> bool {
    let (sender, mut printed) = mpsc::channel(1);
    let pipes: [(u8, Option<Box<dyn AsyncRead + Send + Unpin>>); 2] = [
        (STDOUT, child.stdout.take().map(|pipe| Box::new(pipe) as _)),
        (STDERR, child.stderr.take().map(|pipe| Box::new(pipe) as _)),
    ];
    for (channel, pipe) in pipes {
        let sender = sender.clone();
        tokio::spawn(async move {
            let Some(mut pipe) = pipe else { return };
            let mut part = vec![0; 32 << 10];
            while let Ok(length @ 1..) = pipe.read(&mut part).await {
                if sender.send(message(channel, &part[..length])).await.is_err() {
                    return;
                }
            }
        });
    }
    drop(sender);
    let mut input = child.stdin.take();
    loop {
        tokio::select! {
            message = printed.recv() => match message {
                Some(message) => if socket.send(message).await.is_err() {
                    return false;
                },
                None => return true,
            },
            message = socket.next() => match message {
                Some(Ok(message)) => typed(&mut input, &message).await,
                // Its input ends here; that nobody takes its output any more, it learns when it prints.
                Some(Err(_)) | None => return false,
            },
        }
    }
}

/// What the client has to say.
async fn typed(input: &mut Option<ChildStdin>, message: &Message) {
    let Message::Binary(bytes) = message else { return };
    match bytes.as_ref() {
        [CLOSE, STDIN] => *input = None,
        [STDIN, rest @ ..] => {
            if let Some(pipe) = input
                && pipe.write_all(rest).await.is_err()
            {
                *input = None;
            }
        }
        _ => {}
    }
}

/// Says how it ended, and waits for the client to close the connection.
async fn farewell(socket: &mut Socket, status: &Value) {
    let told = socket.send(message(STATUS, status.to_string().as_bytes())).await;
    if told.is_ok() && socket.close(None).await.is_ok() {
        let gone = async { while let Some(Ok(_)) = socket.next().await {} };
        let _late = tokio::time::timeout(FAREWELL, gone).await;
    }
}

fn message(channel: u8, bytes: &[u8]) -> Message {
    Message::binary([&[channel], bytes].concat())
}

fn exit(code: i32) -> Value {
    if code == 0 {
        return json!({ "metadata": {}, "status": "Success" });
    }
    json!({
        "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
        "message": format!("command terminated with non-zero exit code: command terminated with exit code {code}"),
        "details": { "causes": [{ "reason": "ExitCode", "message": code.to_string() }] },
    })
}

fn internal(why: &str) -> Value {
    let message = format!("Internal error occurred: {why}");
    json!({
        "metadata": {}, "status": "Failure", "message": message, "reason": "InternalError", "code": 500,
        "details": { "causes": [{ "message": why }] },
    })
}
