//! The manual's part about Docker: its own policy, and containers with the labels that Compose gives them.

use std::fs;

use enforcer_tests::agent::{Agent, Output};
use enforcer_tests::patience;
use enforcer_tests::runtimes::{IMAGE, Runtimes};
use enforcer_tests::world::World;

use super::{allowed, denied, until_bound};
use crate::pages;

/// Where the page's policy lets its clients in, and where it does not.
const PORTS: [&str; 2] = ["5432", "5433"];

/// Containers of projects, as `docker compose up` would have them.
struct Projects<'a> {
    runtimes: &'a Runtimes<'a>,
    parent: &'a str,
}

impl Projects<'_> {
    fn up(&self, project: &str, service: &str) {
        let name = format!("{project}-{service}-1");
        let labels = [
            ("project", project),
            ("service", service),
            ("container-number", "1"),
            ("oneoff", "False"),
            ("project.working_dir", "/srv/shop"),
        ]
        .map(|(key, value)| format!("com.docker.compose.{key}={value}"));
        let mut words =
            vec!["run", "--detach", "--network", "host", "--cgroup-parent", self.parent, "--name", &name];
        words.extend(labels.iter().flat_map(|label| ["--label", label]));
        words.push(IMAGE);
        self.runtimes.docker(&words).expect_ok();
    }

    /// A server in a container, which goes on.
    fn serve(&self, name: &str, port: &str) {
        let words = ["exec", "--detach", name, "/busybox", "nc", "-ll", "-p", port, "-e", "/busybox", "true"];
        self.runtimes.docker(&words).expect_ok();
    }

    fn call(&self, name: &str, port: &str) -> Output {
        self.runtimes.docker(&["exec", name, "/busybox", "nc", "127.0.0.1", port, "-e", "/busybox", "true"])
    }
}

pub(super) fn as_the_page_says(world: &World, agent: &Agent, runtimes: &Runtimes<'_>, parent: &str) {
    let projects = Projects { runtimes, parent };
    for (project, service) in [("shop", "db"), ("shop", "api"), ("shop", "web"), ("blog", "api")] {
        projects.up(project, service);
        let bound = until_bound(agent, &format!("docker/{project}-{service}-1"));
        let expected = ["project", "service"].into_iter().zip([project, service]);
        let expected: Vec<String> =
            expected.map(|(key, value)| format!("com.docker.compose.{key}={value}")).collect();
        assert_eq!(bound.labels, expected, "of Compose's labels these two are kept");
    }
    for port in PORTS {
        projects.serve("shop-db-1", port);
        patience::until_true("whoever likes may call", patience::seconds(10), || {
            projects.call("shop-web-1", port).code == 0
        });
    }
    let policy =
        pages::documents(pages::HOST, "apiVersion:").find(|text| text.contains("com.docker.compose"));
    let file = world.folder().join("page.yaml");
    fs::write(&file, policy.expect("the page has a policy about Compose")).expect("the policy");
    agent.cli(&["policy", "apply", "-f", file.to_str().expect("a path")]).expect_ok();
    let [open, closed] = PORTS;
    allowed(&projects.call("shop-api-1", open));
    denied(&projects.call("shop-web-1", open));
    denied(&projects.call("blog-api-1", open));
    denied(&projects.call("shop-api-1", closed));
    let names = ["shop-db-1", "shop-api-1", "shop-web-1", "blog-api-1"];
    runtimes.docker(&[&["rm", "--force"], &names[..]].concat()).expect_ok();
}
