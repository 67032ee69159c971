//! The image, run by containerd as the manifest says: its capabilities, mounts, namespaces, arguments and probes are all that
//! the agent has.

use std::fs;
use std::path::PathBuf;

use enforcer::domain::command::{PolicyFile, Status};
use enforcer::domain::policy::diagnostic::Source;
use enforcer::domain::yaml::{self, Reader};
use enforcer_tests::agent::{Agent, Output};
use enforcer_tests::apiserver::ApiServer;
use enforcer_tests::patience;
use enforcer_tests::runtimes::{Runtimes, image};
use enforcer_tests::world::World;
use serde_json::{Value, json};

use super::{Ctr, allowed, denied, need, until_bound};
use crate::registry;

/// The image, as `cargo xtask image` writes it.
const IMAGE_FILE: &str = "ENFORCER_IMAGE";
const NAMESPACE: &str = "enforcer-system";
const AGENT: &str = "agent";
const POLICY: &str = r#"{
    "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"namespace": "shop", "name": "db"},
    "spec": {"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress"],
             "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "api"}}}]}]}
}"#;

fn yaml_of(name: &str, text: &str) -> Value {
    let file = PolicyFile { name: name.into(), text: text.into() };
    let source = Source::new(0, &file);
    let mut reader = Reader::new(&source);
    yaml::parse(&mut reader).first().map(|it| yaml::json::json(&it.root)).expect("it is YAML")
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().expect("a list").iter().map(|it| it.as_str().expect("a text")).collect()
}

/// A node: its API server, its containerd, and what the manifests say.
struct Node<'w> {
    world: &'w World,
    runtimes: &'w Runtimes<'w>,
    /// Of this it is never started: it knows how to ask the one in the container.
    agent: Agent,
    pod: Value,
}

impl<'w> Node<'w> {
    fn new(world: &'w World, runtimes: &'w Runtimes<'w>, api: &ApiServer, file: &str) -> Self {
        let daemon_set = yaml_of("daemonset.yaml", include_str!("../../../deploy/kubernetes/daemonset.yaml"));
        let config = yaml_of("config.yaml", include_str!("../../../deploy/kubernetes/config.yaml"));
        let pod = daemon_set["spec"]["template"]["spec"].clone();
        runtimes.ctr(NAMESPACE, &["images", "import", "--snapshotter", "native", file]).expect_ok();
        let own_image = pod["containers"][0]["image"].as_str().expect("an image").to_owned();
        let images = runtimes.ctr(NAMESPACE, &["images", "list", "--quiet"]).expect_ok();
        assert!(images.lines().any(|known| known == own_image), "{images} is not what the manifest names");
        let root = world.folder().join("image-root");
        fs::create_dir(&root).expect("a folder");
        let mount =
            ["images", "mount", "--snapshotter", "native", "--rw", &own_image, &root.display().to_string()];
        runtimes.ctr(NAMESPACE, &mount).expect_ok();
        // The configuration of the manifest, and what a test may touch of a machine.
        let volume = world.folder().join("config");
        fs::create_dir(&volume).expect("a folder");
        let guarded = world.relative(&world.guarded());
        let given = config["data"]["enforcer.yaml"].as_str().expect("a file");
        let own = format!(
            "attach: {guarded}\nmanaged: [{guarded}/kubepods]\nkubeconfig: /etc/enforcer/kubeconfig\n"
        );
        let text = format!("{given}{own}");
        fs::write(volume.join("enforcer.yaml"), text).expect("the configuration");
        fs::write(volume.join("kubeconfig"), api.kubeconfig("")).expect("the way to the API server");
        for path in ["run/enforcer", "state"] {
            fs::create_dir_all(world.folder().join(path)).expect("a folder");
        }
        let agent = Agent::new(world);
        let socket = world.folder().join("run/enforcer/enforcer.sock");
        agent.configure(&[("socket", &socket.display().to_string())]);
        Self { world, runtimes, agent, pod }
    }

    /// Where a volume is, seen from containerd.
    fn volume(&self, name: &str) -> PathBuf {
        let volumes = self.pod["volumes"].as_array().expect("volumes");
        let volume =
            volumes.iter().find(|it| it["name"] == name).unwrap_or_else(|| panic!("no volume {name}"));
        match volume["hostPath"]["path"].as_str() {
            None if volume["configMap"].is_object() => self.world.folder().join("config"),
            None => panic!("neither a path nor the configuration: {volume}"),
            // The one that is not private to containerd here.
            Some("/var/lib/enforcer") => self.world.folder().join("state"),
            Some(path) => path.into(),
        }
    }

    /// What runc is asked for, as the kubelet would ask: no namespace of processes or of the network, no filter of system calls.
    fn spec(&self) -> Value {
        let container = &self.pod["containers"][0];
        let security = &container["securityContext"];
        assert_eq!((&security["privileged"], &security["runAsUser"]), (&json!(false), &json!(0)));
        assert_eq!((&self.pod["hostPID"], &self.pod["hostNetwork"]), (&json!(true), &json!(true)));
        assert_eq!(security["capabilities"]["drop"], json!(["ALL"]));
        let added = texts(&security["capabilities"]["add"]);
        let capabilities: Vec<String> = added.iter().map(|name| format!("CAP_{name}")).collect();
        let mut mounts = vec![
            json!({ "destination": "/proc", "type": "proc", "source": "proc" }),
            json!({ "destination": "/dev", "type": "tmpfs", "source": "tmpfs" }),
            json!({ "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"] }),
        ];
        for mount in container["volumeMounts"].as_array().expect("mounts") {
            let access = if mount["readOnly"] == true { "ro" } else { "rw" };
            // `HostToContainer`: what is mounted there later is seen.
            let follows = if mount["mountPropagation"].is_null() { "rprivate" } else { "rslave" };
            mounts.push(json!({
                "destination": mount["mountPath"], "type": "bind", "options": ["rbind", follows, access],
                "source": self.volume(mount["name"].as_str().expect("a name")),
            }));
        }
        let variable = |variable: &Value| {
            let value = match variable["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
                Some("spec.nodeName") => "n1",
                Some("metadata.namespace") => NAMESPACE,
                Some(other) => panic!("what is {other}?"),
                None => variable["value"].as_str().expect("a value"),
            };
            format!("{}={value}", variable["name"].as_str().expect("a name"))
        };
        let variables = container["env"].as_array().expect("variables").iter().map(variable);
        let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned();
        let mut arguments = vec!["/usr/bin/enforcer"];
        arguments.extend(texts(&container["args"]));
        json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": { "uid": 0, "gid": security["runAsGroup"] }, "cwd": "/",
                "args": arguments,
                "env": variables.chain([path]).collect::<Vec<_>>(),
                "noNewPrivileges": security["allowPrivilegeEscalation"] == false,
                "capabilities": { "bounding": &capabilities, "effective": &capabilities, "permitted": &capabilities },
            },
            "root": { "path": self.root(), "readonly": security["readOnlyRootFilesystem"] },
            "mounts": mounts,
            "linux": {
                "namespaces": [{ "type": "mount" }, { "type": "ipc" }],
                "cgroupsPath": self.world.relative(&self.world.agents().join("container")),
            },
        })
    }

    /// Where the image is unpacked and mounted.
    fn root(&self) -> PathBuf {
        self.world.folder().join("image-root")
    }

    /// Starts the agent, and waits until its probes are content.
    fn start(&self) {
        let container = &self.pod["containers"][0];
        let spec = self.world.folder().join("spec.json");
        fs::write(&spec, self.spec().to_string()).expect("the specification");
        let log = format!("file://{}", self.world.folder().join("agent.log").display());
        let config = spec.display().to_string();
        let started =
            self.runtimes.ctr(NAMESPACE, &["run", "--detach", "--log-uri", &log, "--config", &config, AGENT]);
        assert_eq!(started.code, 0, "{started:#?}");
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            let path = container[probe]["httpGet"]["path"].as_str().expect("a path");
            assert_eq!(container[probe]["httpGet"]["port"], 9962);
            patience::until(&format!("{probe} is content"), patience::seconds(30), || {
                let answer = self.agent.get(path);
                if answer.is_none() {
                    let tasks = self.runtimes.ctr(NAMESPACE, &["task", "list"]).stdout;
                    assert!(tasks.contains("RUNNING"), "{tasks}\n{}", self.agent.told());
                }
                answer.filter(|(code, _)| *code == 200)
            });
        }
    }

    /// The agent ends, and its container is removed.
    fn end(&self, signal: &str) {
        self.runtimes.ctr(NAMESPACE, &["task", "kill", "--signal", signal, AGENT]).expect_ok();
        patience::until_true("the agent has ended", patience::seconds(15), || {
            self.runtimes.ctr(NAMESPACE, &["task", "delete", AGENT]).code == 0
        });
        self.runtimes.ctr(NAMESPACE, &["container", "delete", AGENT]).expect_ok();
    }

    /// A command in the agent's container, as `kubectl exec` has it.
    fn execute(&self, words: &[&str]) -> Output {
        let exec = ["task", "exec", "--exec-id", "asked", AGENT, "enforcer"];
        self.runtimes.ctr(NAMESPACE, &[&exec[..], words].concat())
    }
}

fn put_cluster(api: &ApiServer) {
    api.install_definitions();
    for name in ["shop", NAMESPACE] {
        api.put(json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } }));
    }
    api.put(json!({
        "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n1" },
        "status": { "addresses": [{ "type": "InternalIP", "address": "192.0.2.1" }] },
    }));
    api.put(serde_json::from_str(POLICY).expect("JSON"));
}

/// A pod of one container, in its directory as the kubelet makes it.
fn start_pod(world: &World, api: &ApiServer, ctr: &Ctr<'_>, name: &str, number: u32) -> String {
    let uid = format!("{number:08x}-0f4a-4c6b-9d7e-{:012x}", std::process::id());
    let id = format!("{number:064x}");
    api.put(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "namespace": "shop", "name": name, "uid": uid, "labels": { "app": name } },
        "spec": { "nodeName": "n1", "serviceAccountName": "default", "containers": [{ "name": "main", "image": "x" }] },
        "status": { "phase": "Running", "hostIP": "192.0.2.1" },
    }));
    let directory = format!("kubepods/burstable/pod{uid}");
    world.directory(&directory);
    ctr.run("k8s.io", &id, &format!("{directory}/{id}"), &[]);
    id
}

pub(super) fn runs_as_the_manifest_says() {
    need();
    let Ok(file) = std::env::var(IMAGE_FILE) else {
        registry::skip(format!("{IMAGE_FILE} names no image: `cargo xtask cluster-test` makes one"));
    };
    let world = World::new("daemonset");
    let runtimes = Runtimes::start(&world);
    let api = world.inside(ApiServer::start);
    put_cluster(&api);
    let node = Node::new(&world, &runtimes, &api, &file);
    let guarded = world.relative(&world.guarded());
    let ctr = Ctr { runtimes: &runtimes, image: image(&world).display().to_string(), guarded };
    node.start();

    let api_pod = start_pod(&world, &api, &ctr, "api", 1);
    let web_pod = start_pod(&world, &api, &ctr, "web", 2);
    let db_pod = start_pod(&world, &api, &ctr, "db", 3);
    let serve =
        ["task", "exec", "--detach", "--exec-id", "serve", &db_pod, "/busybox", "nc", "-ll", "-p", "5432"];
    runtimes.ctr("k8s.io", &[&serve[..], &["-e", "/busybox", "true"]].concat()).expect_ok();
    for name in ["api", "web", "db"] {
        until_bound(&node.agent, &format!("shop/{name}"));
    }
    let judged = || {
        patience::until_true("the one pod may call", patience::seconds(10), || {
            ctr.call("k8s.io", &api_pod).code == 0
        });
        denied(&ctr.call("k8s.io", &web_pod));
        allowed(&ctr.call("k8s.io", &api_pod));
    };
    judged();

    let status: Status =
        serde_json::from_str(&node.execute(&["status", "-o", "json"]).expect_ok()).expect("a status");
    assert!(status.problems.is_empty(), "{:?}\n{}", status.problems, node.agent.told());
    let names = texts(&node.pod["containers"][0]["securityContext"]["capabilities"]["add"]);
    let kept = &status.confinement.capabilities;
    assert!(
        !kept.is_empty() && kept.iter().all(|name| names.contains(&name.trim_start_matches("CAP_"))),
        "{kept:?}"
    );

    // A rolling update: the old one ends, the kernel enforces, the new one takes over.
    node.end("SIGTERM");
    judged();
    node.start();
    judged();
    // And one that could not say goodbye.
    node.end("SIGKILL");
    judged();
    node.start();
    judged();
    let flows = node.execute(&["observe", "--all", "--verdict", "DROPPED"]).expect_ok();
    assert!(flows.contains("shop/web") && flows.contains("shop/db"), "{flows}");
}
