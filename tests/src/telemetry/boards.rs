//! The questions of a dashboard.

use std::fs;
use std::path::Path;

use serde_json::Value;

/// A dashboard.
#[derive(Debug)]
pub(super) struct Board {
    pub(super) title: String,
    json: Value,
}

/// What a dashboard asks.
#[derive(Clone, Debug)]
pub(super) struct Question {
    /// The panel, variable or annotation.
    pub(super) place: String,
    /// As it stands there.
    pub(super) query: String,
    pub(super) shape: Shape,
}

/// How an answer comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Values of the moment.
    Moment,
    /// Values over time.
    Range,
    /// Values of a label.
    Labels,
}

/// What somebody has chosen in the variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chosen {
    /// Nothing: all of it.
    All,
    /// Values, by name.
    Some,
}

/// Variables with what Grafana puts in their place: where all is chosen, where some is.
const VALUES: [(&str, &str, &str); 9] = [
    ("$__rate_interval", "8s", "8s"),
    ("$__interval", "2s", "2s"),
    ("$__range", "60s", "60s"),
    ("$cluster", ".*", "default"),
    ("$instance", ".*", "127.0.0.1:9962"),
    ("$source_namespace", ".*", "(shop|jobs)"),
    ("$destination_namespace", ".*", "(shop|data)"),
    ("$namespace", ".*", "(shop|data)"),
    ("$workload", ".*", "(web|api|db)"),
];

impl Chosen {
    /// The query that is sent.
    pub(super) fn fill(self, query: &str) -> String {
        VALUES.iter().fold(query.to_owned(), |text, (name, all, some)| {
            text.replace(name, if self == Self::All { all } else { some })
        })
    }
}

impl Question {
    /// Whether it is one of a variable.
    pub(super) fn is_variable(&self) -> bool {
        self.shape == Shape::Labels
    }

    /// The same with a letter too few in the name of its metric.
    pub(super) fn misspelt(&self) -> Self {
        Self { query: self.query.replacen("enforcer_", "enforce_", 1), ..self.clone() }
    }
}

impl Board {
    /// Every question: of panels, of variables, of annotations.
    pub(super) fn questions(&self) -> Vec<Question> {
        let mut questions = Vec::new();
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        for variable in list(&self.json["templating"]["list"]) {
            if variable["type"] == "query" {
                let place = format!("variable {}", text(&variable["name"]));
                questions.push(Question {
                    place,
                    query: text(&variable["query"]["query"]),
                    shape: Shape::Labels,
                });
            }
        }
        for annotation in list(&self.json["annotations"]["list"]) {
            let place = format!("annotation {}", text(&annotation["name"]));
            questions.push(Question { place, query: text(&annotation["expr"]), shape: Shape::Range });
        }
        for panel in list(&self.json["panels"]) {
            for target in list(&panel["targets"]) {
                let place = format!("{} {}", text(&panel["title"]), text(&target["refId"]));
                let shape = if target["instant"] == true { Shape::Moment } else { Shape::Range };
                questions.push(Question { place, query: text(&target["expr"]), shape });
            }
        }
        questions
    }
}

/// Every dashboard of a folder.
pub(super) fn all(folder: &Path) -> Vec<Board> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|file| file.extension().is_some_and(|end| end == "json"));
    files.sort();
    let read = |file: &std::path::PathBuf| {
        let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let json: Value =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        Board { title: json["title"].as_str().expect("a title").to_owned(), json }
    };
    files.iter().map(read).collect()
}

/// `query_result(QUERY)`: the query.
pub(super) fn query_result(query: &str) -> Option<&str> {
    query.strip_prefix("query_result(")?.strip_suffix(')')
}

/// `label_values(METRIC, LABEL)`: both.
pub(super) fn label_values(query: &str) -> Option<(&str, &str)> {
    let (metric, label) = query.strip_prefix("label_values(")?.strip_suffix(')')?.rsplit_once(',')?;
    Some((metric.trim(), label.trim()))
}
