//! Selectors in query strings: of labels, with sets; of fields, with the fields that a kind has.

use serde_json::Value;

use super::kinds::Kind;
use super::status::Failure;

#[derive(Clone, Debug, PartialEq)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
}

/// Which objects of a collection are meant.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selector {
    labels: Vec<(String, Test)>,
    fields: Vec<(String, Test)>,
}

impl Selector {
    /// Reads both selectors of a request.
    pub fn parse(kind: &Kind, labels: &str, fields: &str) -> Result<Self, Failure> {
        let labels = split(labels).map(label).collect::<Result<_, _>>()?;
        let fields = split(fields).map(|term| field(kind, term)).collect::<Result<_, _>>()?;
        Ok(Self { labels, fields })
    }

    /// Whether everything is meant.
    pub fn is_all(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Whether this object is meant.
    pub fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.labels.iter().all(|(key, test)| holds(test, labels[key].as_str()))
            && self.fields.iter().all(|(path, test)| holds(test, Some(&text_at(object, path))))
    }
}

fn holds(test: &Test, value: Option<&str>) -> bool {
    match test {
        Test::In(values) => value.is_some_and(|value| values.iter().any(|one| one == value)),
        Test::NotIn(values) => value.is_none_or(|value| values.iter().all(|one| one != value)),
        Test::Exists => value.is_some(),
        Test::Absent => value.is_none(),
    }
}

/// A field as text; one that is missing is empty.
fn text_at(object: &Value, path: &str) -> String {
    let mut value = object;
    for name in path.split('.') {
        value = &value[name];
    }
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Terms between commas, but for those between brackets.
fn split(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0;
    text.split(move |letter| {
        match letter {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        letter == ',' && depth == 0
    })
    .map(str::trim)
    .filter(|term| !term.is_empty())
}

fn label(term: &str) -> Result<(String, Test), Failure> {
    if let Some((key, value)) = term.split_once("!=") {
        return Ok((key.trim().into(), Test::NotIn(vec![value.trim().into()])));
    }
    if let Some((key, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        return Ok((key.trim().into(), Test::In(vec![value.trim().into()])));
    }
    if let Some((left, values)) = term.strip_suffix(')').and_then(|term| term.split_once('(')) {
        let values: Vec<String> = values.split(',').map(|value| value.trim().to_owned()).collect();
        return match left.split_whitespace().collect::<Vec<_>>().as_slice() {
            [key, "in"] => Ok(((*key).into(), Test::In(values))),
            [key, "notin"] => Ok(((*key).into(), Test::NotIn(values))),
            _ => Err(Failure::bad_request(format!("unable to parse requirement: {term:?}"))),
        };
    }
    match term.strip_prefix('!') {
        Some(key) => Ok((key.trim().into(), Test::Absent)),
        None if term.contains(char::is_whitespace) => {
            Err(Failure::bad_request(format!("unable to parse requirement: {term:?}")))
        }
        None => Ok((term.into(), Test::Exists)),
    }
}

fn field(kind: &Kind, term: &str) -> Result<(String, Test), Failure> {
    let (path, test) = if let Some((path, value)) = term.split_once("!=") {
        (path, Test::NotIn(vec![value.into()]))
    } else if let Some((path, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        (path, Test::In(vec![value.into()]))
    } else {
        return Err(Failure::bad_request(format!("invalid field selector: {term:?}")));
    };
    let special: &[&str] = match kind.kind.as_str() {
        "Pod" => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
        "Event" => {
            &["involvedObject.kind", "involvedObject.name", "involvedObject.namespace", "reason", "type"]
        }
        "Namespace" => &["status.phase"],
        "Node" => &["spec.unschedulable"],
        "Secret" => &["type"],
        _ => &[],
    };
    let is_known = path == "metadata.name"
        || (path == "metadata.namespace" && kind.namespaced)
        || special.contains(&path);
    if !is_known {
        return Err(Failure::bad_request(format!(
            "Unable to find {:?} that match label selector \"\", field selector {term:?}: field label not supported: {path}",
            kind.resource()
        )));
    }
    Ok((path.to_owned(), test))
}
