//! `cargo xtask dashboards`: writes the dashboards of `deploy/grafana`.
//!
//! Six dashboards by hand would drift apart in their variables, matchers and looks. Here each is a list of panels with a
//! query, and [`layout`] knows how Grafana writes that down.

mod health;
mod layout;
mod limits;
mod overview;
mod panel;
mod verdicts;
mod workload;
mod world;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use self::layout::Dashboard;
use crate::shell;

/// Where they lie, below the root.
const FOLDER: &str = "deploy/grafana";

/// Write the dashboards of deploy/grafana
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only say which are not as they would be written; exit 1 when one is not
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let folder = shell::root()?.join(FOLDER);
    let mut differ = false;
    for dashboard in all() {
        let file = folder.join(format!("{}.json", dashboard.name));
        let (new, old) = (text(&dashboard)?, fs::read_to_string(&file).unwrap_or_default());
        if new == old {
            continue;
        }
        differ = true;
        if arguments.check {
            println!("{} is not as `cargo xtask dashboards` writes it", file.display());
        } else {
            write(&file, &new)?;
        }
    }
    Ok(if differ && arguments.check { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    println!("{}", file.display());
    Ok(())
}

/// Every dashboard.
fn all() -> [Dashboard; 6] {
    [
        overview::dashboard(),
        verdicts::dashboard(),
        workload::dashboard(),
        world::dashboard(),
        limits::dashboard(),
        health::dashboard(),
    ]
}

fn text(dashboard: &Dashboard) -> Result<String> {
    Ok(format!("{}\n", serde_json::to_string_pretty(&dashboard.json())?))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn what_lies_there_is_what_is_written() {
        let folder = shell::root().unwrap().join(FOLDER);
        let mut known = BTreeSet::new();
        for dashboard in all() {
            let name = format!("{}.json", dashboard.name);
            let found = fs::read_to_string(folder.join(&name)).unwrap_or_default();
            assert!(found == text(&dashboard).unwrap(), "{name}: `cargo xtask dashboards` writes it anew");
            known.insert(name);
        }
        let files =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let json: BTreeSet<String> =
            files.filter(|name| Path::new(name).extension().is_some_and(|end| end == "json")).collect();
        assert_eq!(json, known);
    }

    #[test]
    fn identifiers_are_stable_and_differ() {
        let uids: BTreeSet<&str> = all().iter().map(|dashboard| dashboard.uid).collect();
        assert_eq!(uids.len(), all().len());
        for uid in uids {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
            assert!(uid.len() <= 40 && uid.bytes().all(fits), "{uid}");
        }
    }

    #[test]
    fn every_panel_asks_the_chosen_data_source_and_says_what_it_shows() {
        for dashboard in all() {
            let json = dashboard.json();
            for panel in json["panels"].as_array().unwrap() {
                let title = &panel["title"];
                if panel["type"] == "row" {
                    continue;
                }
                assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
                assert!(!panel["description"].as_str().unwrap().is_empty(), "{title}");
                assert!(!panel["fieldConfig"]["defaults"]["unit"].as_str().unwrap().is_empty(), "{title}");
                for target in panel["targets"].as_array().unwrap() {
                    assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
                    let query = target["expr"].as_str().unwrap();
                    assert!(query.contains("cluster=~\"$cluster|\""), "{title}: {query}");
                    assert!(!query.contains('@'), "{title}: {query}");
                }
            }
        }
    }

    #[test]
    fn variables_come_in_the_order_that_people_expect() {
        const ORDER: [&str; 7] = [
            "datasource",
            "cluster",
            "instance",
            "namespace",
            "source_namespace",
            "destination_namespace",
            "workload",
        ];
        for dashboard in all() {
            let json = dashboard.json();
            let variables = json["templating"]["list"].as_array().unwrap();
            let names: Vec<&str> =
                variables.iter().map(|variable| variable["name"].as_str().unwrap()).collect();
            let places: Vec<_> = names.iter().map(|name| ORDER.iter().position(|it| it == name)).collect();
            assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{names:?}");
            // A variable that no query uses is a promise that nothing keeps.
            let panels = json["panels"].to_string();
            for name in &names {
                assert!(
                    panels.contains(&format!("${name}")) || panels.contains(&format!("${{{name}}}")),
                    "{name}"
                );
            }
        }
    }
}
