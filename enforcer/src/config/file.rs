//! The configuration file: one YAML mapping of settings.

use super::settings::{SETTINGS, Setting};
use super::value::Value;
use crate::domain::command::PolicyFile;
use crate::domain::policy::diagnostic::{Code, Diagnostic, Source};
use crate::domain::yaml::{self, Mapping, Node, Reader};

/// One line of the file.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) setting: &'static Setting,
    pub(super) value: Value,
}

/// More items than any setting needs.
const LONGEST_LIST: usize = 1024;

/// Reads the settings of a file and hands each to `take`, which may refuse it with a sentence.
pub(super) fn read(
    file: &PolicyFile,
    mut take: impl FnMut(Given, usize) -> Result<(), String>,
) -> Vec<Diagnostic> {
    let source = Source::new(0, file);
    let mut reader = Reader::new(&source);
    let documents = yaml::parse(&mut reader);
    if let Some(second) = documents.get(1) {
        let span = second.root.span.start..second.root.span.start;
        reader.error(
            &span,
            Code::Duplicate,
            "a configuration file has one document, and here starts another",
        );
    }
    let known: Vec<_> = SETTINGS.iter().map(|setting| setting.key).collect();
    let root = documents.first().map(|document| &document.root);
    let mapping = root.and_then(|root| reader.mapping(root, "the configuration", &known));
    for entry in mapping.iter().flat_map(Mapping::entries) {
        let Some(setting) = SETTINGS.iter().find(|setting| setting.key == entry.key) else { continue };
        let Some(value) = value(&mut reader, setting, &entry.value) else { continue };
        let line = reader.location(&entry.span).line;
        if let Err(message) = take(Given { setting, value }, line) {
            reader.error(&entry.value.span, Code::UnknownValue, format!("`{}`: {message}", setting.key));
        }
    }
    reader.finish()
}

fn value(reader: &mut Reader<'_>, setting: &Setting, node: &Node) -> Option<Value> {
    let what = format!("`{}`", setting.key);
    match &node.value {
        yaml::Value::Null => Some(Value::Null),
        yaml::Value::Text(text) if !setting.repeated => Some(Value::Text(text.clone())),
        yaml::Value::Integer(number) if setting.number => Some(Value::Number(*number)),
        // `off` is a mode and, to some versions of YAML, a boolean: the word counts as it is written.
        yaml::Value::Bool(_) if !setting.repeated => {
            Some(Value::Text(reader.source().text().get(node.span.clone())?.to_owned()))
        }
        yaml::Value::List(_) if setting.repeated => {
            let items = reader.list(node, &what, LONGEST_LIST)?;
            let texts: Option<Vec<_>> =
                items.iter().map(|item| reader.text(item, &what).map(str::to_owned)).collect();
            texts.map(Value::List)
        }
        _ if setting.repeated => reader.list(node, &what, LONGEST_LIST).map(|_| Value::Null),
        _ => reader.text(node, &what).map(|text| Value::Text(text.to_owned())),
    }
}
