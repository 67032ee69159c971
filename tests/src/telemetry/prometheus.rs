//! The server: started in the world's network namespace, asked over HTTP, ended with its handle.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::boards::{Chosen, Question, Shape, label_values, query_result};
use super::{promql, tool};
use crate::world::{World, inside};
use crate::{patience, puppet};

/// Where it listens; the namespace is the world's own.
const LISTEN: &str = "127.0.0.1:9090";
/// Seconds that a query over time looks back.
const BACK: f64 = 8.0;

/// See the module.
#[derive(Debug)]
pub(super) struct Prometheus {
    child: Child,
    namespace: OwnedFd,
}

/// A rule as the server knows it.
#[derive(Debug)]
pub(super) struct Rule(Value);

impl Prometheus {
    /// Starts it with the configuration of `deploy`, but for the times.
    pub(super) fn start(world: &World, deploy: &Path) -> Self {
        let folder = world.folder().join("prometheus");
        fs::create_dir(&folder).expect("a folder for the server");
        let config = folder.join("prometheus.yaml");
        tool::rewrite(
            &deploy.join("scrape.yaml"),
            &config,
            &[
                ("scrape_interval: 15s", "scrape_interval: 1s"),
                ("evaluation_interval: 15s", "evaluation_interval: 1s"),
            ],
        );
        fs::copy(deploy.join("rules.yaml"), folder.join("rules.yaml")).expect("copy the rules");
        let program = std::env::var_os("ENFORCER_PROMETHEUS").unwrap_or_else(|| "prometheus".into());
        let log = fs::File::create(folder.join("log")).expect("the log");
        let mut command = Command::new(&program);
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address={LISTEN}"))
            .arg("--log.level=warn")
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        puppet::enter(&mut command, &world.agents(), world.namespace());
        let child = command.spawn().unwrap_or_else(|error| panic!("start {}: {error}", program.display()));
        let namespace = world.namespace().try_clone_to_owned().expect("a copy of the descriptor");
        let mut server = Self { child, namespace };
        patience::until_true("Prometheus is ready", patience::seconds(30), || {
            if let Some(status) = server.child.try_wait().expect("its status") {
                let told = fs::read_to_string(folder.join("log")).unwrap_or_default();
                panic!("Prometheus ended with {status}:\n{told}");
            }
            server.page("/-/ready").is_some_and(|(code, _)| code == 200)
        });
        server
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Code and body of a page. By HTTP 1.0 the body comes in one piece.
    fn page(&self, path: &str) -> Option<(u16, String)> {
        inside(self.namespace.as_fd(), || {
            let mut stream = TcpStream::connect(LISTEN).ok()?;
            stream.set_read_timeout(Some(patience::seconds(10))).expect("a timeout");
            write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
            let mut text = String::new();
            stream.read_to_string(&mut text).ok()?;
            let (head, body) = text.split_once("\r\n\r\n")?;
            Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
        })
    }

    /// The data of an answer of its API, or what it says is wrong.
    fn api(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value, String> {
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
        let (code, body) = self.page(&format!("/api/v1/{path}?{query}")).ok_or("no answer")?;
        let mut json: Value =
            serde_json::from_str(&body).map_err(|error| format!("{code} {error}: {body}"))?;
        if json["status"] == "success" { Ok(json["data"].take()) } else { Err(json["error"].to_string()) }
    }

    fn moment(&self, query: &str) -> Result<Value, String> {
        self.api("query", &[("query", query)])
    }

    /// Time as the server has it.
    fn now(&self) -> f64 {
        self.value("time()").expect("the time")
    }

    /// The only value of a query.
    pub(super) fn value(&self, query: &str) -> Option<f64> {
        let data = self.moment(query).ok()?;
        let sample =
            if data["resultType"] == "scalar" { &data["result"] } else { &data["result"][0]["value"] };
        sample[1].as_str()?.parse().ok()
    }

    /// The only value of a query as a whole number; nothing is 0.
    pub(super) fn count(&self, query: &str) -> u64 {
        self.value(query).map_or(0, |value| format!("{value}").parse().unwrap_or(u64::MAX))
    }

    /// Names of the series of a metric.
    pub(super) fn names(&self, metric: &str) -> Vec<Value> {
        let selector = format!("{{__name__=~\"{metric}(_bucket|_sum|_count)?\"}}");
        let found = self.api("series", &[("match[]", &selector)]);
        found.ok().and_then(|data| data.as_array().cloned()).unwrap_or_default()
    }

    /// Values of a label in the answer to a question of the moment.
    pub(super) fn labels(&self, question: &Question, label: &str) -> Vec<String> {
        let data = self.moment(&Chosen::All.fill(&question.query)).unwrap_or_default();
        let series = data["result"].as_array().cloned().unwrap_or_default();
        series.iter().filter_map(|one| one["metric"][label].as_str().map(str::to_owned)).collect()
    }

    /// The value of the row of a table that has these labels, as a whole number.
    pub(super) fn row(&self, question: &Question, labels: &[(&str, &str)]) -> u64 {
        let data = self.moment(&Chosen::All.fill(&question.query)).unwrap_or_default();
        let rows = data["result"].as_array().cloned().unwrap_or_default();
        let wanted = |row: &&Value| labels.iter().all(|(name, value)| row["metric"][name] == *value);
        let sample = rows.iter().find(wanted).and_then(|row| row["value"][1].as_str()?.parse().ok());
        sample.unwrap_or_default()
    }

    /// Whether a question is answered with at least one number, or value.
    pub(super) fn answers(&self, question: &Question, choice: Chosen) -> Result<(), String> {
        let query = choice.fill(&question.query);
        if query
            .split('$')
            .skip(1)
            .any(|rest| rest.starts_with(|it: char| it.is_ascii_alphabetic() || it == '_'))
        {
            // `$1` is a group of a regular expression.
            return Err(format!("a variable is not known: {query}"));
        }
        match question.shape {
            Shape::Moment => some_number(&self.moment(&query)?["result"]),
            Shape::Range => {
                let now = self.now();
                let (start, end) = (format!("{}", now - BACK), format!("{now}"));
                let parameters = [("query", query.as_str()), ("start", &start), ("end", &end), ("step", "2")];
                some_number(&self.api("query_range", &parameters)?["result"])
            }
            Shape::Labels => match query_result(&query) {
                Some(query) => some_number(&self.moment(query)?["result"]),
                None => self.label_values(&query),
            },
        }
    }

    /// Whether there is any value of a label.
    fn label_values(&self, query: &str) -> Result<(), String> {
        let (metric, label) =
            label_values(query).ok_or("no label_values(METRIC, LABEL), no query_result(QUERY)")?;
        let values = self.api(&format!("label/{label}/values"), &[("match[]", metric)])?;
        let any = values.as_array().is_some_and(|values| values.iter().any(|value| value != ""));
        if any { Ok(()) } else { Err("no value".to_owned()) }
    }

    /// Every rule.
    pub(super) fn rules(&self) -> Vec<Rule> {
        let evaluated = |rule: &Rule| rule.0["health"] == "ok";
        let all = || -> Vec<Rule> {
            let data = self.api("rules", &[]).unwrap_or_default();
            let groups = data["groups"].as_array().cloned().unwrap_or_default();
            groups
                .iter()
                .flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default())
                .map(Rule)
                .collect()
        };
        patience::until("all rules are evaluated", patience::seconds(10), || {
            Some(all()).filter(|rules| !rules.is_empty() && rules.iter().all(evaluated))
        })
    }
}

/// Whether a result has a number in it that is one.
fn some_number(result: &Value) -> Result<(), String> {
    let series = result.as_array().ok_or("no series")?;
    if series.is_empty() {
        return Err("no series".to_owned());
    }
    let is_number = |sample: &Value| {
        sample[1].as_str().and_then(|text| text.parse::<f64>().ok()).is_some_and(f64::is_finite)
    };
    let any = series.iter().any(|one| {
        let values = one["values"].as_array();
        values.map_or_else(|| is_number(&one["value"]), |values| values.iter().any(is_number))
    });
    if any { Ok(()) } else { Err("series without a number".to_owned()) }
}

impl Rule {
    pub(super) fn is_alert(&self) -> bool {
        self.0["type"] == "alerting"
    }

    /// What is wrong with it, in one sentence.
    pub(super) fn problem(&self, server: &Prometheus, runbooks: &str) -> Option<String> {
        let name = self.0["name"].as_str().unwrap_or_default();
        let query = self.0["query"].as_str().unwrap_or_default();
        if promql::metrics(query).is_empty() {
            return Some(format!("{name} asks for no metric"));
        }
        if !self.is_alert() {
            let values = server.moment(name).map(|data| some_number(&data["result"]));
            return (!matches!(values, Ok(Ok(())))).then(|| format!("the recording {name} has no value"));
        }
        let annotations = &self.0["annotations"];
        if self.0["labels"]["severity"].as_str().is_none() {
            return Some(format!("{name} has no severity"));
        }
        for text in ["summary", "description", "runbook_url"] {
            if annotations[text].as_str().is_none_or(str::is_empty) {
                return Some(format!("{name} has no {text}"));
            }
        }
        let anchor =
            annotations["runbook_url"].as_str().and_then(|url| url.strip_prefix("docs/runbooks.md#"));
        let found = anchor.is_some_and(|anchor| {
            let heading = |line: &str| line.strip_prefix("## ").is_some_and(|it| it.to_lowercase() == anchor);
            runbooks.lines().any(heading)
        });
        (!found).then(|| format!("{name}: docs/runbooks.md has no heading of its runbook_url"))
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // Its data goes with the world; gone already is as good.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
