//! The handle of a test.

use std::fmt::Write as _;
use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};

use super::access::{Access, User};
use super::exec::{Executed, Execution, Way};
use super::faults::{Fault, Network};
use super::http::{Shared, lock, now, serve};
use super::remove;
use super::status::Failure;
use super::store::{Place, Store, Write};

/// A request that was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// As roles name it.
    pub verb: String,
    /// The path, without its query.
    pub path: String,
    /// Who.
    pub user: String,
    /// With what.
    pub code: u16,
}

/// A server on the loopback interface, with threads of its own. It ends when it is dropped.
#[derive(Debug)]
pub struct ApiServer {
    runtime: Option<Runtime>,
    shared: Arc<Shared>,
    address: SocketAddr,
}

impl ApiServer {
    /// An empty cluster, where whoever comes without a token may do everything. It is in the network namespace of the
    /// calling thread, and stays there.
    pub fn start() -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("apiserver")
            .enable_all()
            .build()
            .expect("a runtime for the API server");
        let seed = u32::try_from(RandomState::new().hash_one(now()) >> 32).unwrap_or(0);
        let access = Access { anonymous: Some(User::admin("admin")), ..Access::default() };
        let shared = Arc::new(Shared::new(Store::new(seed, &now()), access));
        let listener =
            std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port for the API server");
        listener.set_nonblocking(true).expect("a listener that does not block");
        let address = listener.local_addr().expect("the port of the API server");
        runtime.spawn(listen(Arc::clone(&shared), address, listener));
        Self { runtime: Some(runtime), shared, address }
    }

    /// Where it is: `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A client's configuration, for whoever has this token; empty for none.
    pub fn kubeconfig(&self, token: &str) -> String {
        let mut text = String::new();
        let user = if token.is_empty() { json!({}) } else { json!({ "token": token }) };
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{ "name": "test", "cluster": { "server": self.url() } }],
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test", "namespace": "default" } }],
            "users": [{ "name": "test", "user": user }],
        });
        let _infallible = writeln!(text, "{config}");
        text
    }

    /// The newest revision.
    pub fn revision(&self) -> u64 {
        self.shared.store().revision()
    }

    /// Puts an object in as it is given, its status included, whatever was there. Panics where it is not one.
    pub fn put(&self, object: Value) -> Value {
        let text = object.to_string();
        match self.shared.change(|store| store.put(object, &now())) {
            Ok(object) => (*object).clone(),
            Err(failure) => panic!("{}: {text}", failure.message),
        }
    }

    /// Puts in all objects of a YAML or JSON document that a definition or policy file has been read to.
    pub fn put_all(&self, objects: impl IntoIterator<Item = Value>) {
        for object in objects {
            self.put(object);
        }
    }

    /// Has the definitions of policies installed, as `enforcer policy crd | kubectl apply -f -` does.
    pub fn install_definitions(&self) {
        self.put_all(super::definitions::all());
    }

    fn place(resource: &str, namespace: &str, name: &str) -> Place {
        Place { stored: resource.into(), namespace: namespace.into(), name: name.into() }
    }

    /// An object, by its resource (`pods`, `trafficpolicies.enforcer.dev`).
    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        let place = Self::place(resource, namespace, name);
        self.shared.store().get(&place).map(|object| (*object).clone())
    }

    /// All objects of a resource.
    pub fn all(&self, resource: &str) -> Vec<Value> {
        self.shared.store().all(resource, "").map(|object| (**object).clone()).collect()
    }

    /// Removes an object at once; whether there was one.
    pub fn remove(&self, resource: &str, namespace: &str, name: &str) -> bool {
        let place = Self::place(resource, namespace, name);
        self.shared.change(|store| {
            let kind = store.kinds.stored_as(resource).next().cloned();
            kind.is_some_and(|kind| remove::remove(store, &kind, &place).is_some())
        })
    }

    /// Changes an object as a merge patch would, metadata and status included, without a thought for versions.
    pub fn patch(&self, resource: &str, namespace: &str, name: &str, patch: &Value) -> Value {
        let place = Self::place(resource, namespace, name);
        let mut object =
            self.get(resource, namespace, name).unwrap_or_else(|| panic!("no {resource} {namespace}/{name}"));
        super::apply::merge_patch(&mut object, patch);
        debug_assert_eq!(object["metadata"]["name"], place.name);
        self.put(object)
    }

    /// Deletes an object as a request does: pods that run take their time.
    pub fn delete(&self, resource: &str, namespace: &str, name: &str) -> Result<(), Failure> {
        let write = Write {
            namespace: namespace.into(),
            name: name.into(),
            manager: "test".into(),
            now: now(),
            ..Write::default()
        };
        self.shared.change(|store| {
            let kind = store.kinds.stored_as(resource).next().cloned().ok_or_else(Failure::no_such_path)?;
            remove::delete(store, &kind, &write, &Value::Null, None).map(|_| ())
        })
    }

    /// Gives a token to somebody.
    pub fn allow(&self, token: &str, user: User) {
        lock(&self.shared.access).tokens.insert(token.into(), user);
    }

    /// The token is worth nothing any more. Open watches go on, as they do with a real server.
    pub fn expire(&self, token: &str) {
        lock(&self.shared.access).tokens.remove(token);
    }

    /// Whoever comes without a token is nobody, or this one.
    pub fn anonymous(&self, user: Option<User>) {
        lock(&self.shared.access).anonymous = user;
    }

    /// How commands are executed in pods from now on. Without it, no node answers.
    pub fn execute(&self, how: impl Fn(&Execution) -> Way + Send + Sync + 'static) {
        *lock(&self.shared.execute) = Some(Arc::new(how));
    }

    /// Commands that were executed so far, in the order of their beginnings.
    pub fn executed(&self) -> Vec<Executed> {
        lock(&self.shared.executed).clone()
    }

    /// Requests so far, in the order of their answers.
    pub fn asked(&self) -> Vec<Asked> {
        lock(&self.shared.asked).clone()
    }

    /// Forgets them.
    pub fn forget_asked(&self) {
        lock(&self.shared.asked).clear();
    }

    /// How often watches are sent a bookmark, if there is something to mark; a minute, unless told otherwise.
    pub fn bookmark_every(&self, period: Duration) {
        *lock(&self.shared.bookmarks) = period;
    }

    /// Forgets what was: watches and continued lists can't begin before now.
    pub fn compact(&self) {
        self.shared.store().compact();
    }

    /// Each request waits this long for its answer.
    pub fn latency(&self, latency: Duration) {
        lock(&self.shared.faults).latency = latency;
    }

    /// Some requests fail.
    pub fn fail(&self, fault: Fault) {
        lock(&self.shared.faults).add(fault);
    }

    /// No request fails or waits any more.
    pub fn heal(&self) {
        lock(&self.shared.faults).clear();
    }

    /// Cuts all connections. New ones are welcome.
    pub fn cut(&self) {
        self.shared.cut.send_modify(|times| *times += 1);
    }

    /// Whether somebody listens, as seen from the server's own network namespace.
    fn is_there(&self) -> bool {
        let (sender, answer) = std::sync::mpsc::channel();
        let address = self.address;
        if let Some(runtime) = &self.runtime {
            runtime.spawn(async move {
                let _gone = sender.send(TcpStream::connect(address).await.is_ok());
            });
        }
        answer.recv().unwrap_or(false)
    }

    /// Takes the network away, or gives it back; returns when that is so.
    pub fn network(&self, network: Network) {
        self.shared.network.send_replace(network);
        if network == Network::Refused {
            self.cut();
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.is_there() == (network == Network::Refused) {
            assert!(Instant::now() < deadline, "the API server does not become {network:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        // Waiting for it would panic in a test that is asynchronous itself.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn listen(shared: Arc<Shared>, address: SocketAddr, listener: std::net::TcpListener) {
    let mut network = shared.network.subscribe();
    let mut listener = TcpListener::from_std(listener).ok();
    loop {
        if *network.borrow_and_update() == Network::Refused {
            listener = None;
            if network.changed().await.is_err() {
                return;
            }
            continue;
        }
        let Some(open) = &listener else {
            listener = TcpListener::bind(address).await.ok();
            if listener.is_none() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            continue;
        };
        tokio::select! {
            accepted = open.accept() => if let Ok((stream, _)) = accepted {
                tokio::spawn(connection(Arc::clone(&shared), stream));
            },
            changed = network.changed() => if changed.is_err() { return },
        }
    }
}

async fn connection(shared: Arc<Shared>, stream: tokio::net::TcpStream) {
    let mut cut = shared.cut.subscribe();
    let _slower = stream.set_nodelay(true);
    let service = service_fn(move |request| serve(Arc::clone(&shared), request));
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::select! {
        // How it ended is the client's business.
        _ended = serving => {}
        _cut = cut.changed() => {}
    }
}
