//! The agents of a cluster, asked by way of its API server: their own command, executed in their pods with the rights of whoever
//! asks (the subresource `pods/exec`, over a WebSocket).
//!
//! Invariants: nothing listens for this, and no right is judged here; what was read of a command's output and not taken yet is
//! bounded, so that a slow reader slows the command; the command is given a standard input that ends with the connection,
//! because nothing else tells it that nobody reads any more.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::Client;
use kube::api::{Api, ApiResource, AttachParams, AttachedProcess, DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use serde_json::Value;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::client::explain;
use super::policies::within;

/// What the pods of agents are labelled with, as deploy/kubernetes does.
const LABEL: (&str, &str) = ("app.kubernetes.io/name", "enforcer");
/// The container of the agent in its pod.
const CONTAINER: &str = "enforcer";
/// A line of an answer is never longer; more is not from an agent. In bytes.
const LINE_LIMIT: usize = 1 << 20;
/// How much of a command's output waits to be taken, for each of its streams. In bytes.
const BUFFER: usize = 64 << 10;
/// How much is kept of what a command says on its standard error. In bytes.
const TALK: usize = 4 << 10;
/// Longest time between the end of a command's output and what its end was.
const FAREWELL: Duration = Duration::from_secs(5);

/// Why agents can't be asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A right is missing.
    #[error("{what}: the server does not allow it (403): {message}; {ask}")]
    Forbidden {
        /// What was to be done.
        what: String,
        /// What the server says.
        message: String,
        /// What to ask for.
        ask: String,
    },
    /// There are none.
    #[error(
        "no agent runs in the namespace {namespace}: it has no pod with the label {key}={value}. Is enforcer deployed in another \
         one (--report-namespace), or in another cluster (--context)?",
        key = LABEL.0,
        value = LABEL.1
    )]
    NoAgents {
        /// Where they were looked for.
        namespace: String,
    },
    /// Anything else.
    #[error("{what}: {problem}")]
    Failed {
        /// What was to be done.
        what: String,
        /// What came of it, and what to do.
        problem: String,
    },
}

/// The agent of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// The node.
    pub node: String,
    /// Its pod.
    pub pod: String,
    /// What keeps it from being asked, if anything does.
    pub trouble: Option<String>,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Its exit code; or why there is none.
    pub code: Result<i32, String>,
    /// What it said on its standard error, the first of it.
    pub talk: String,
}

/// The agents of an installation.
#[derive(Clone)]
pub struct Agents {
    client: Client,
    namespace: String,
}

impl Debug for Agents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agents").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl Agents {
    /// The agents in a namespace of the cluster behind a client.
    pub fn new(client: Client, namespace: String) -> Self {
        Self { client, namespace }
    }

    fn pods(&self, namespace: &str) -> Api<DynamicObject> {
        let kind = GroupVersionKind::gvk("", "v1", "Pod");
        let resource = ApiResource::from_gvk_with_plural(&kind, "pods");
        Api::namespaced_with(self.client.clone(), namespace, &resource)
    }

    /// One agent for each node that has one, in the order of the nodes' names.
    ///
    /// # Errors
    /// Which right is missing, that there are none, or what failed.
    pub async fn list(&self) -> Result<Vec<Agent>, Error> {
        let what = || format!("find the agents (pods in {})", self.namespace);
        let selector = format!("{}={}", LABEL.0, LABEL.1);
        let mut params = ListParams::default().labels(&selector).limit(500);
        let mut by_node: BTreeMap<String, Agent> = BTreeMap::new();
        loop {
            let page = within(self.pods(&self.namespace).list(&params)).await;
            let page = page.map_err(|error| match &error {
                kube::Error::Api(status) if status.code == 403 => Error::Forbidden {
                    what: what(),
                    message: status.message.clone(),
                    ask: format!("ask for the verb `list` on `pods` in the namespace {}", self.namespace),
                },
                error => Error::Failed { what: what(), problem: explain(error) },
            })?;
            for agent in page.items.iter().filter_map(agent) {
                // Of an old and a new pod of one node, whoever can be asked.
                let known = by_node.get(&agent.node);
                if known.is_none_or(|known| known.trouble.is_some() && agent.trouble.is_none()) {
                    by_node.insert(agent.node.clone(), agent);
                }
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => break,
            }
        }
        if by_node.is_empty() {
            return Err(Error::NoAgents { namespace: self.namespace.clone() });
        }
        Ok(by_node.into_values().collect())
    }

    /// The node on which a pod is, if there is such a pod and it has one.
    ///
    /// # Errors
    /// Which right is missing, or what failed.
    pub async fn node_of(&self, namespace: &str, pod: &str) -> Result<Option<String>, Error> {
        let what = || format!("find the node of {namespace}/{pod}");
        match within(self.pods(namespace).get_opt(pod)).await {
            Ok(found) => Ok(found.and_then(|pod| text(&pod.data, "/spec/nodeName"))),
            Err(kube::Error::Api(status)) if status.code == 403 => Err(Error::Forbidden {
                what: what(),
                message: status.message.clone(),
                ask: format!(
                    "ask for the verb `get` on `pods` in the namespace {namespace}, or name the nodes with --node-name"
                ),
            }),
            Err(error) => Err(Error::Failed { what: what(), problem: explain(&error) }),
        }
    }

    /// Starts a command in the pod of an agent.
    ///
    /// # Errors
    /// Which right is missing, or what failed.
    pub async fn run(&self, agent: &Agent, command: &[String]) -> Result<Running, Error> {
        let what = || format!("run a command in the pod {}/{}", self.namespace, agent.pod);
        if let Some(trouble) = &agent.trouble {
            return Err(Error::Failed { what: what(), problem: trouble.clone() });
        }
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let params = AttachParams::default()
            .container(CONTAINER)
            .stdin(true)
            .max_stdout_buf_size(BUFFER)
            .max_stderr_buf_size(BUFFER);
        let started = within(api.exec(&agent.pod, command.iter().cloned(), &params)).await;
        match started {
            Ok(process) => Running::new(process)
                .ok_or_else(|| Error::Failed { what: what(), problem: "its output is not there".to_owned() }),
            Err(kube::Error::Api(status)) if status.code == 403 => Err(Error::Forbidden {
                what: what(),
                message: status.message.clone(),
                ask: format!(
                    "ask for the verbs `get` and `create` on `pods/exec` in the namespace {} (`create` since Kubernetes 1.35)",
                    self.namespace
                ),
            }),
            Err(error) => Err(Error::Failed { what: what(), problem: explain(&error) }),
        }
    }
}

fn text(value: &Value, pointer: &str) -> Option<String> {
    value.pointer(pointer)?.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

/// What a pod tells of the agent in it; nothing while it has no node.
fn agent(pod: &DynamicObject) -> Option<Agent> {
    let node = text(&pod.data, "/spec/nodeName")?;
    let name = pod.metadata.name.clone()?;
    let phase = text(&pod.data, "/status/phase").unwrap_or_else(|| "unknown".to_owned());
    let containers = pod.data.pointer("/status/containerStatuses").and_then(Value::as_array);
    let own = containers.into_iter().flatten().find(|it| it["name"] == CONTAINER);
    // What waits or has ended says why, in one word.
    let stopped = own.filter(|it| it["state"]["running"].is_null()).and_then(|it| {
        ["/state/waiting/reason", "/state/terminated/reason"].iter().find_map(|path| text(it, path))
    });
    let trouble = match (phase.as_str(), stopped) {
        ("Running", None) => None,
        ("Running", Some(why)) => Some(format!("its container does not run ({why})")),
        (phase, Some(why)) => Some(format!("its pod is {phase} ({why})")),
        (phase, None) => Some(format!("its pod is {phase}")),
    };
    let help = || format!("`kubectl describe pod {name}` tells more");
    let trouble = trouble.map(|trouble| format!("{trouble}; {}", help()));
    Some(Agent { node, pod: name, trouble })
}

type Reading = Pin<Box<dyn AsyncBufRead + Send>>;
type Ending = Pin<Box<dyn Future<Output = Option<Status>> + Send>>;

/// A command that runs in a pod. It is told to end when this is dropped.
pub struct Running {
    /// Gone once it was asked for why the connection broke.
    process: Option<AttachedProcess>,
    output: Reading,
    /// The beginning of the next line.
    begun: Vec<u8>,
    ending: Ending,
    /// What the server said of the end, once it did.
    code: Option<Result<i32, String>>,
    talk: Arc<Mutex<Vec<u8>>>,
    listening: JoinHandle<()>,
}

impl Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("code", &self.code).finish_non_exhaustive()
    }
}

impl Running {
    fn new(mut process: AttachedProcess) -> Option<Self> {
        let output = process.stdout()?;
        let errors = process.stderr()?;
        let ending = process.take_status()?;
        let talk = Arc::new(Mutex::new(Vec::new()));
        let listening = tokio::spawn(listen(errors, Arc::clone(&talk)));
        Some(Self {
            process: Some(process),
            output: Box::pin(BufReader::new(output)),
            begun: Vec::new(),
            ending: Box::pin(ending),
            code: None,
            talk,
            listening,
        })
    }

    /// The next line that it prints, without its end; nothing once it prints no more.
    ///
    /// # Errors
    /// In one sentence, what broke the connection, or what is wrong with the line.
    pub async fn line(&mut self) -> Result<Option<String>, String> {
        loop {
            let room = u64::try_from(LINE_LIMIT - self.begun.len()).unwrap_or(0);
            let mut bounded = self.output.as_mut().take(room);
            tokio::select! {
                // What was printed comes before what is known of the end.
                biased;
                read = bounded.read_until(b'\n', &mut self.begun) => {
                    read.map_err(|error| format!("reading its output failed: {error}"))?;
                    return self.taken();
                }
                // The pipe of a connection that breaks is left open.
                status = &mut self.ending, if self.code.is_none() => {
                    let Some(status) = status else {
                        let problem = self.broken().await;
                        self.code = Some(Err(problem.clone()));
                        return Err(problem);
                    };
                    self.code = Some(code(&status));
                },
            }
        }
    }

    fn taken(&mut self) -> Result<Option<String>, String> {
        let mut line = std::mem::take(&mut self.begun);
        match line.pop() {
            None => Ok(None),
            Some(b'\n') => match String::from_utf8(line) {
                Ok(line) => Ok(Some(line)),
                Err(_) => Err("a line of its output is no text".to_owned()),
            },
            Some(_) if line.len() + 1 >= LINE_LIMIT => {
                Err(format!("a line of its output is longer than {LINE_LIMIT} bytes"))
            }
            Some(_) => Err("its output ends within a line".to_owned()),
        }
    }

    /// All that it prints from here on, at most so many bytes.
    ///
    /// # Errors
    /// As [`line`](Self::line); or that it is more.
    pub async fn rest(&mut self, limit: usize) -> Result<String, String> {
        let mut text = String::new();
        while let Some(line) = self.line().await? {
            if text.len() + line.len() > limit {
                return Err(format!("its answer is longer than {limit} bytes"));
            }
            text.push_str(&line);
            text.push('\n');
        }
        Ok(text)
    }

    /// How it ended, once it prints no more.
    pub async fn end(mut self) -> End {
        if self.code.is_none() {
            self.code = Some(match timeout(FAREWELL, &mut self.ending).await {
                Ok(Some(status)) => code(&status),
                Ok(None) => Err(self.broken().await),
                Err(_) => Err("nothing is told of how it ended".to_owned()),
            });
        }
        if matches!(self.code, Some(Ok(_))) {
            // What it said last may be on its way; without it, what came counts.
            drop(timeout(FAREWELL, &mut self.listening).await);
        }
        let talk = self.talk.lock().unwrap_or_else(PoisonError::into_inner);
        let talk = String::from_utf8_lossy(&talk).trim().to_owned();
        End { code: self.code.take().unwrap_or_else(|| Err("nothing is known of its end".to_owned())), talk }
    }

    /// Why the connection ended before the command did.
    async fn broken(&mut self) -> String {
        let told = match self.process.take() {
            Some(process) => timeout(FAREWELL, process.join()).await,
            None => Ok(Ok(())),
        };
        match told {
            Ok(Err(error)) => format!("the connection broke: {error}"),
            _ => "the connection ended before the command did".to_owned(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// Keeps the first of what a command says, and takes the rest so that it does not wait.
async fn listen(mut errors: impl AsyncRead + Unpin, talk: Arc<Mutex<Vec<u8>>>) {
    let mut part = [0; 1024];
    while let Ok(length @ 1..) = errors.read(&mut part).await {
        let mut talk = talk.lock().unwrap_or_else(PoisonError::into_inner);
        let room = TALK.saturating_sub(talk.len()).min(length);
        talk.extend_from_slice(&part[..room]);
    }
}

/// What the last message of the connection says of the command's end: `Success`, or a failure whose reason is `NonZeroExitCode`
/// with the code among its causes, or one of the node's.
fn code(status: &Status) -> Result<i32, String> {
    if status.status.as_deref() == Some("Success") {
        return Ok(0);
    }
    let causes = status.details.iter().flat_map(|details| details.causes.iter().flatten());
    let mut codes = causes.filter(|cause| cause.reason.as_deref() == Some("ExitCode"));
    let code = codes.find_map(|cause| cause.message.as_deref()?.parse().ok());
    let message = status.message.clone().unwrap_or_else(|| "no reason is given".to_owned());
    code.ok_or_else(|| format!("the node can't run the command: {message}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn how_a_command_ended() {
        let read = |status: Value| code(&serde_json::from_value(status).unwrap());
        assert_eq!(read(json!({ "metadata": {}, "status": "Success" })), Ok(0));
        let exit = json!({
            "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
            "message": "command terminated with non-zero exit code: error executing command [enforcer], exit code 2",
            "details": { "causes": [{ "reason": "ExitCode", "message": "2" }] },
        });
        assert_eq!(read(exit), Ok(2));
        let dial = json!({
            "metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
            "message": "Internal error occurred: error dialing backend: dial tcp 192.0.2.7:10250: i/o timeout",
        });
        assert!(read(dial).unwrap_err().contains("192.0.2.7:10250: i/o timeout"));
    }

    #[test]
    fn what_a_pod_tells_of_its_agent() {
        let told = |spec: Value, status: Value| {
            let pod = json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "enforcer-x" }, "spec": spec, "status": status,
            });
            agent(&serde_json::from_value(pod).unwrap()).map(|agent| agent.trouble)
        };
        let container = |state: Value| json!([{ "name": "other" }, { "name": "enforcer", "state": state }]);
        let on = || json!({ "nodeName": "n1" });
        assert_eq!(told(json!({}), json!({ "phase": "Pending" })), None);
        let running = json!({ "phase": "Running", "containerStatuses": container(json!({ "running": {} })) });
        assert_eq!(told(on(), running), Some(None));
        assert_eq!(told(on(), json!({ "phase": "Running" })), Some(None));
        let crashing = container(json!({ "waiting": { "reason": "CrashLoopBackOff" } }));
        let crashing = told(on(), json!({ "phase": "Running", "containerStatuses": crashing }));
        assert!(
            crashing
                .flatten()
                .unwrap()
                .starts_with("its container does not run (CrashLoopBackOff); `kubectl")
        );
        let pulled = container(json!({ "waiting": { "reason": "ErrImageNeverPull" } }));
        let pulled = told(on(), json!({ "phase": "Pending", "containerStatuses": pulled }));
        assert!(pulled.flatten().unwrap().starts_with("its pod is Pending (ErrImageNeverPull)"));
        assert!(told(on(), json!({})).flatten().unwrap().starts_with("its pod is unknown"));
    }
}
