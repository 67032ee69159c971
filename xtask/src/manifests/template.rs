//! The few forms of Helm's templates that ours have, with the same meaning as Helm gives them.
//!
//! Templates that need no more can be read without knowing Helm, and the plain manifests are the chart with its defaults,
//! by construction:
//!
//! * `{{ .Values.NAME }}`, `{{ .Values.NAME | quote }}`, `{{ .Release.Namespace }}`
//! * a line `{{- toYaml .Values.NAME | nindent N }}`
//! * a line `{{ .Files.Get "FILE" | indent N }}`
//! * lines `{{- if .Values.NAME }}` or `{{- if not .Values.NAME }}`, and `{{- end }}`

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::yaml;

/// What a template may ask for.
#[derive(Debug)]
pub(super) struct Scope<'a> {
    pub(super) namespace: &'a str,
    pub(super) values: &'a BTreeMap<&'a str, Value>,
    /// By path within the chart.
    pub(super) files: &'a BTreeMap<String, String>,
}

/// The text with everything filled in.
pub(super) fn render(template: &str, scope: &Scope<'_>) -> Result<String> {
    let mut text = String::new();
    let mut shown = vec![true];
    for (index, line) in template.lines().enumerate() {
        let place = || format!("line {}: {line}", index + 1);
        if let Some(condition) = statement(line, "{{- if ") {
            let (negated, name) = condition.strip_prefix("not ").map_or((false, condition), |it| (true, it));
            shown.push(scope.truth(name).with_context(place)? != negated);
        } else if line.trim() == "{{- end }}" {
            shown.pop();
            if shown.is_empty() {
                bail!("an `end` without an `if`, {}", place());
            }
        } else if shown.iter().all(|shown| *shown) {
            text.push_str(&scope.line(line).with_context(place)?);
        }
    }
    if shown.len() == 1 { Ok(text) } else { bail!("an `if` without an `end`") }
}

/// What stands between an opening and the closing braces, if that is the whole line.
fn statement<'a>(line: &'a str, opening: &str) -> Option<&'a str> {
    line.trim().strip_prefix(opening)?.strip_suffix("}}").map(str::trim)
}

impl Scope<'_> {
    fn line(&self, line: &str) -> Result<String> {
        if let Some(rest) = statement(line, "{{- toYaml ") {
            let (name, indent) = rest.split_once(" | nindent ").context("no ` | nindent N`")?;
            return Ok(indented(&yaml::block(self.value(name)?), indent.parse()?));
        }
        if let Some(rest) = statement(line, "{{ .Files.Get ") {
            let (name, indent) = rest.split_once(" | indent ").context("no ` | indent N`")?;
            let file = self.files.get(name.trim_matches('"')).with_context(|| format!("no file {name}"))?;
            return Ok(indented(file.trim_end(), indent.parse()?));
        }
        let (mut text, mut rest) = (String::new(), line);
        while let Some((before, after)) = rest.split_once("{{") {
            let (inner, after) = after.split_once("}}").context("`{{` without `}}`")?;
            text.push_str(before);
            text.push_str(&self.scalar(inner.trim())?);
            rest = after;
        }
        Ok(format!("{text}{rest}\n"))
    }

    fn scalar(&self, asked: &str) -> Result<String> {
        let (name, quoted) = asked.strip_suffix(" | quote").map_or((asked, false), |name| (name, true));
        if name == ".Release.Namespace" {
            return Ok(self.namespace.to_owned());
        }
        let value = self.value(name)?;
        Ok(match value {
            Value::String(text) if !quoted => text.clone(),
            Value::Array(_) | Value::Object(_) => bail!("{name} has parts: use toYaml"),
            other => other.to_string(),
        })
    }

    fn value(&self, name: &str) -> Result<&Value> {
        let name = name.strip_prefix(".Values.").with_context(|| format!("`{name}` is no value"))?;
        self.values.get(name).with_context(|| format!("there is no value `{name}`"))
    }

    fn truth(&self, name: &str) -> Result<bool> {
        self.value(name)?.as_bool().with_context(|| format!("{name} is neither true nor false"))
    }
}

/// Every line with so many blanks in front; empty lines stay empty, as nobody reads blanks.
fn indented(text: &str, blanks: usize) -> String {
    let blanks = " ".repeat(blanks);
    text.lines().fold(String::new(), |text, line| {
        let blanks = if line.is_empty() { "" } else { &blanks };
        text + blanks + line + "\n"
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rendered(template: &str) -> Result<String> {
        let values = BTreeMap::from([
            ("image", json!("a:1")),
            ("count", json!(3)),
            ("on", json!(true)),
            ("list", json!([{ "operator": "Exists" }])),
            ("none", json!({})),
        ]);
        let files = BTreeMap::from([("x".to_owned(), "a\n\n{{ b }}\n".to_owned())]);
        render(template, &Scope { namespace: "ns", values: &values, files: &files })
    }

    #[test]
    fn every_form_is_filled_in() {
        let text =
            rendered("n: {{ .Release.Namespace }} {{ .Values.count }}\ni: {{ .Values.image | quote }}\n");
        assert_eq!(text.unwrap(), "n: ns 3\ni: \"a:1\"\n");
        let text = rendered(
            "l:\n  {{- toYaml .Values.list | nindent 2 }}\nm:\n  {{- toYaml .Values.none | nindent 2 }}\n",
        );
        assert_eq!(text.unwrap(), "l:\n  - operator: Exists\nm:\n  {}\n");
        assert_eq!(rendered("{{ .Files.Get \"x\" | indent 1 }}\n").unwrap(), " a\n\n {{ b }}\n");
        let text = "{{- if .Values.on }}\na\n{{- end }}\n{{- if not .Values.on }}\nb\n{{- end }}\nc\n";
        assert_eq!(rendered(text).unwrap(), "a\nc\n");
    }

    #[test]
    fn what_is_not_known_is_an_error() {
        for template in [
            "{{ .Values.nothing }}",
            "{{ .Chart.Name }}",
            "{{ .Values.list }}",
            "{{- if .Values.image }}\n{{- end }}",
            "{{- if .Values.on }}",
            "{{- end }}",
            "{{ .Values.image",
            "{{ .Files.Get \"y\" | indent 1 }}",
        ] {
            assert!(rendered(template).is_err(), "{template}");
        }
    }
}
