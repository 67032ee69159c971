//! `cargo xtask manifests`: writes `deploy/kubernetes` and `deploy/helm` from one source.
//!
//! The source is the templates beside this file and the table in [`values`]. The chart gets the templates as they are; the
//! plain manifests are the same templates filled in with the defaults, by [`template`].

mod template;
mod validate;
mod values;
mod yaml;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use serde_json::Value;

use self::template::{Scope, render};
pub(crate) use self::validate::Outcome;
use crate::shell;

/// Write the manifests and the chart of deploy/kubernetes and deploy/helm
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only say which are not as they would be written; exit 1 when one is not
    #[arg(long)]
    check: bool,
    /// Have `kubernetes-validate` (a Python package, put into target/) check them against three versions of Kubernetes
    #[arg(long)]
    validate: bool,
}

const NAMESPACE: &str = "enforcer-system";
const KUBERNETES: &str = "deploy/kubernetes";
const CHART: &str = "deploy/helm/enforcer";
const NOTE: &str = "# Written by `cargo xtask manifests`: change xtask/src/manifests instead.\n";

/// What every installation has; each is a file of the chart and of the plain manifests.
const ALWAYS: [(&str, &str); 3] = [
    ("rbac.yaml", include_str!("templates/rbac.yaml")),
    ("config.yaml", include_str!("templates/config.yaml")),
    ("daemonset.yaml", include_str!("templates/daemonset.yaml")),
];
/// What can be chosen: the value that asks for it in the chart, and the component of the plain manifests.
const CHOSEN: [(&str, &str, &str); 2] = [
    ("podMonitor", "pod-monitor", include_str!("templates/pod-monitor.yaml")),
    ("prometheusRule", "prometheus-rule", include_str!("templates/prometheus-rule.yaml")),
];
const DASHBOARD: &str = include_str!("templates/dashboard.yaml");
const DASHBOARDS: [&str; 6] = ["overview", "policy-verdicts", "workload", "world", "limits", "agent-health"];

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let root = shell::root()?;
    if arguments.validate {
        let outcome = check(&root)?;
        validate::say(&outcome);
        let valid = matches!(outcome, Outcome::Valid(_));
        return Ok(if valid { ExitCode::SUCCESS } else { ExitCode::from(2) });
    }
    let mut differ = false;
    for (name, new) in files(&root)? {
        let file = root.join(&name);
        if fs::read_to_string(&file).is_ok_and(|old| old == new) {
            continue;
        }
        differ = true;
        if arguments.check {
            println!("{name} is not as `cargo xtask manifests` writes it");
            continue;
        }
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        fs::write(&file, new).with_context(|| format!("cannot write {name}"))?;
        println!("{name}");
    }
    Ok(if differ && arguments.check { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

/// Whether Kubernetes would take what is written, as a step of `cargo xtask test`.
pub(crate) fn check(root: &Path) -> Result<Outcome> {
    validate::validate(root, files(root)?.into_keys())
}

/// Every file, by its path below the root.
fn files(root: &Path) -> Result<BTreeMap<String, String>> {
    let choices = values::all();
    let defaults = values::defaults(&choices);
    let extra = extra(root)?;
    let scope = Scope { namespace: NAMESPACE, values: &defaults, files: &extra };
    let mut out = Files { scope, files: BTreeMap::new() };
    out.plain("namespace.yaml", include_str!("templates/namespace.yaml"))?;
    for (name, text) in ALWAYS {
        out.plain(name, text)?;
        out.chart(&format!("templates/{name}"), text);
    }
    for (value, component, text) in CHOSEN {
        out.plain(&format!("components/{component}/{component}.yaml"), text)?;
        out.chart(&format!("templates/{component}.yaml"), &asked_for(value, text));
    }
    for name in DASHBOARDS {
        let text = DASHBOARD.replace("@NAME@", name);
        out.plain(&format!("components/dashboards/{name}.yaml"), &text)?;
        out.chart(&format!("templates/dashboard-{name}.yaml"), &asked_for("dashboards", &text));
    }
    out.plain("uninstall/uninstall.yaml", include_str!("templates/uninstall.yaml"))?;
    for (name, text) in kustomizations() {
        out.files.insert(format!("deploy/{name}"), format!("{NOTE}{text}"));
    }
    let crds = read(root, "deploy/kubernetes/crds.yaml")?;
    let chart = [
        ("crds/crds.yaml".to_owned(), crds),
        ("values.yaml".to_owned(), format!("{NOTE}{}", values::file(&choices))),
    ];
    let metadata = [
        ("Chart.yaml".to_owned(), chart_yaml()),
        (
            "values.schema.json".to_owned(),
            format!("{}\n", serde_json::to_string_pretty(&values::schema(&choices))?),
        ),
    ];
    for (name, text) in chart.into_iter().chain(metadata).chain(extra.clone()) {
        out.files.insert(format!("{CHART}/{name}"), text);
    }
    Ok(out.files)
}

struct Files<'a> {
    scope: Scope<'a>,
    files: BTreeMap<String, String>,
}

impl Files<'_> {
    fn plain(&mut self, name: &str, template: &str) -> Result<()> {
        let text = render(template, &self.scope).with_context(|| format!("template of {name}"))?;
        self.files.insert(format!("{KUBERNETES}/{name}"), format!("{NOTE}{text}"));
        Ok(())
    }

    fn chart(&mut self, name: &str, text: &str) {
        self.files.insert(format!("{CHART}/{name}"), format!("{NOTE}{text}"));
    }
}

fn asked_for(value: &str, text: &str) -> String {
    format!("{{{{- if .Values.{value} }}}}\n{text}{{{{- end }}}}\n")
}

/// Files that templates put in as they are, by their path within the chart.
fn extra(root: &Path) -> Result<BTreeMap<String, String>> {
    let mut extra = BTreeMap::new();
    extra.insert("files/rules.yaml".to_owned(), read(root, "deploy/prometheus/rules.yaml")?);
    for name in DASHBOARDS {
        // On one line: Grafana does not care, and nobody reads the copy.
        let board: Value = serde_json::from_str(&read(root, &format!("deploy/grafana/{name}.json"))?)
            .with_context(|| format!("deploy/grafana/{name}.json"))?;
        extra.insert(format!("files/{name}.json"), format!("{board}\n"));
    }
    Ok(extra)
}

fn read(root: &Path, name: &str) -> Result<String> {
    fs::read_to_string(root.join(name)).with_context(|| format!("cannot read {name}"))
}

fn chart_yaml() -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "{NOTE}apiVersion: v2\nname: enforcer\ndescription: Who may talk to whom, decided in the kernel by workload label\n\
         type: application\nversion: {version}\nappVersion: \"{version}\"\nkubeVersion: \">=1.30.0-0\"\n"
    )
}

/// What belongs together, and what can be added.
fn kustomizations() -> Vec<(String, String)> {
    const HEAD: &str = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n";
    const COMPONENT: &str = "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\n";
    let list = |field: &str, names: &[&str]| {
        names.iter().fold(format!("{field}:\n"), |text, name| format!("{text}  - {name}\n"))
    };
    let component = |field: &str, names: &[&str]| format!("{COMPONENT}{}", list(field, names));
    // A kustomization may not name a folder that it lies in, so what is put together lies outside.
    let together = |components: &[&str]| {
        let paths: Vec<String> =
            components.iter().map(|name| format!("../../kubernetes/components/{name}")).collect();
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        format!("{HEAD}resources:\n  - ../../kubernetes\n{}", list("components", &paths))
    };
    let base = ["namespace.yaml", "crds.yaml", "rbac.yaml", "config.yaml", "daemonset.yaml"];
    let boards = DASHBOARDS.map(|name| format!("{name}.yaml"));
    let boards: Vec<&str> = boards.iter().map(String::as_str).collect();
    let monitor = list("resources", &["pod-monitor.yaml"]) + &list("patches", &["path: listen.yaml"]);
    [
        ("kubernetes/kustomization.yaml", format!("{HEAD}{}", list("resources", &base))),
        (
            "kubernetes/uninstall/kustomization.yaml",
            format!("{HEAD}{}", list("resources", &["uninstall.yaml"])),
        ),
        ("kubernetes/components/privileged/kustomization.yaml", component("patches", &["path: patch.yaml"])),
        ("kubernetes/components/privileged/patch.yaml", PRIVILEGED.replace("@NAMESPACE@", NAMESPACE)),
        ("kubernetes/components/pod-monitor/kustomization.yaml", format!("{COMPONENT}{monitor}")),
        ("kubernetes/components/pod-monitor/listen.yaml", LISTEN.replace("@NAMESPACE@", NAMESPACE)),
        (
            "kubernetes/components/prometheus-rule/kustomization.yaml",
            component("resources", &["prometheus-rule.yaml"]),
        ),
        ("kubernetes/components/dashboards/kustomization.yaml", component("resources", &boards)),
        ("overlays/privileged/kustomization.yaml", together(&["privileged"])),
        ("overlays/observed/kustomization.yaml", together(&["pod-monitor", "prometheus-rule", "dashboards"])),
    ]
    .map(|(name, text)| (name.to_owned(), text))
    .into()
}

/// For kernels or runtimes that ask for more than the capabilities give.
const PRIVILEGED: &str = include_str!("templates/privileged.patch.yaml");
/// For a Prometheus that comes by the node's address.
const LISTEN: &str = include_str!("templates/listen.patch.yaml");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_there_is_what_is_written() {
        let root = shell::root().unwrap();
        let written = files(&root).unwrap();
        for (name, text) in &written {
            let found = fs::read_to_string(root.join(name)).unwrap_or_default();
            assert!(found == *text, "{name}: `cargo xtask manifests` writes it anew");
        }
        for folder in [KUBERNETES, CHART, "deploy/overlays"] {
            for name in below(&root, folder) {
                let by_others = name == "deploy/kubernetes/crds.yaml";
                assert!(by_others || written.contains_key(&name), "{name}: nothing writes it");
            }
        }
    }

    fn below(root: &Path, folder: &str) -> Vec<String> {
        let mut names = Vec::new();
        for entry in fs::read_dir(root.join(folder)).unwrap().map(Result::unwrap) {
            let name = format!("{folder}/{}", entry.file_name().to_str().unwrap());
            if entry.file_type().unwrap().is_dir() {
                names.extend(below(root, &name));
            } else {
                names.push(name);
            }
        }
        names
    }

    #[test]
    fn the_plain_manifests_are_the_chart_with_its_defaults() {
        let root = shell::root().unwrap();
        let written = files(&root).unwrap();
        let choices = values::all();
        let mut defaults = values::defaults(&choices);
        for (name, text) in written.iter().filter(|(name, _)| name.contains("/templates/")) {
            let file = name.rsplit('/').next().unwrap();
            // What is left out by default is as plain as the rest when it is asked for.
            for wanted in ["podMonitor", "prometheusRule", "dashboards"] {
                defaults.insert(wanted, Value::Bool(true));
            }
            let extra = extra(&root).unwrap();
            let scope = Scope { namespace: NAMESPACE, values: &defaults, files: &extra };
            let rendered = render(text, &scope).unwrap();
            let plain = written
                .iter()
                .filter(|(plain, _)| plain.starts_with(KUBERNETES))
                .find(|(_, text)| **text == rendered);
            assert!(plain.is_some(), "{file} is no file of {KUBERNETES} when it is filled in");
        }
    }

    #[test]
    fn every_choice_is_used() {
        let templates: String = files(&shell::root().unwrap())
            .unwrap()
            .into_iter()
            .filter(|(name, _)| name.contains("/templates/"))
            .map(|(_, text)| text)
            .collect();
        for choice in values::all() {
            assert!(templates.contains(&format!(".Values.{} ", choice.name)), "{}", choice.name);
        }
    }

    #[test]
    fn rights_are_no_more_than_they_should_be() {
        let rbac = ALWAYS[0].1;
        assert!(!rbac.contains('*'), "no wildcard");
        for word in ["secrets", "impersonate", "escalate", "bind]", "pods/exec", "nodes/proxy"] {
            assert!(!rbac.contains(word), "{word}");
        }
        // Each rule of the agent's own roles says above itself what it is for.
        let own = &rbac[..rbac.find("name: enforcer-view").unwrap()];
        let lines: Vec<&str> = own.lines().collect();
        for (index, line) in lines.iter().enumerate().filter(|(_, line)| line.starts_with("  - apiGroups")) {
            // Two resources of one purpose follow each other.
            let reason = lines[..index].iter().rev().find(|line| !line.starts_with("    "));
            assert!(
                reason.is_some_and(|line| line.starts_with("  #") || line.starts_with("  - apiGroups")),
                "{line}"
            );
        }
    }
}
