//! What is in the binary: a list in the format `CycloneDX` 1.5 of components, from what cargo resolved.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::layout::digest;
use crate::{release, shell};

/// The list, for both halves of the binary: the daemon and the kernel programs inside it.
pub(crate) fn write(root: &Path, time: u64) -> Result<String> {
    let mut components = BTreeMap::new();
    for (folder, package) in [("", "enforcer"), ("enforcer-ebpf", "enforcer-ebpf")] {
        let folder = root.join(folder);
        let metadata = metadata(&folder)?;
        let sums =
            checksums(&fs::read_to_string(folder.join("Cargo.lock")).context("cannot read Cargo.lock")?);
        let linked = linked(&metadata, package).with_context(|| format!("cargo does not know {package}"))?;
        for package in linked {
            let (name, version) = (package["name"].as_str(), package["version"].as_str());
            let (Some(name), Some(version)) = (name, version) else { continue };
            let sum = sums.get(&(name.to_owned(), version.to_owned()));
            components.insert(format!("{name}@{version}"), component(package, name, version, sum));
        }
    }
    let mut list: Vec<Value> = components.into_values().collect();
    list.extend(runtime(root)?);
    let content = json!({ "components": list });
    let bom = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": serial(&digest(content.to_string().as_bytes())),
        "version": 1,
        "metadata": {
            "timestamp": release::timestamp(time),
            "component": {
                "type": "application",
                "bom-ref": "enforcer",
                "name": "enforcer",
                "version": env!("CARGO_PKG_VERSION"),
            },
        },
        "components": content["components"],
    });
    Ok(format!("{}\n", serde_json::to_string_pretty(&bom)?))
}

/// How many components a list has.
pub(super) fn count(bom: &str) -> Result<usize> {
    let bom: Value = serde_json::from_str(bom)?;
    Ok(bom["components"].as_array().map_or(0, Vec::len))
}

/// What cargo knows of the workspace in this folder, without the network if it can.
fn metadata(folder: &Path) -> Result<Value> {
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut cargo = shell::cargo(folder);
    cargo.args(["metadata", "--format-version", "1", "--locked", "--filter-platform", &platform]);
    serde_json::from_str(&shell::capture(&mut cargo, "asking cargo for the dependencies")?)
        .context("cargo metadata is no JSON")
}

/// The packages that end up in what is built from this one: itself and normal dependencies, theirs included. What is needed
/// to build or test only is left out.
fn linked<'a>(metadata: &'a Value, package: &str) -> Option<Vec<&'a Value>> {
    let packages: BTreeMap<&str, &Value> =
        metadata["packages"].as_array()?.iter().filter_map(|it| Some((it["id"].as_str()?, it))).collect();
    let nodes: BTreeMap<&str, &Value> = metadata["resolve"]["nodes"]
        .as_array()?
        .iter()
        .filter_map(|it| Some((it["id"].as_str()?, it)))
        .collect();
    let start = packages.iter().find(|(_, it)| it["name"] == package)?.0;
    let (mut seen, mut todo) = (BTreeSet::from([*start]), vec![*start]);
    while let Some(id) = todo.pop() {
        for dependency in nodes.get(id)?["deps"].as_array()? {
            let normal = dependency["dep_kinds"].as_array()?.iter().any(|kind| kind["kind"].is_null());
            let id = dependency["pkg"].as_str()?;
            if normal && seen.insert(id) {
                todo.push(id);
            }
        }
    }
    Some(seen.iter().filter_map(|id| packages.get(id).copied()).collect())
}

fn component(package: &Value, name: &str, version: &str, sum: Option<&String>) -> Value {
    let purl = format!("pkg:cargo/{name}@{version}");
    let mut component =
        json!({ "type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl });
    if let Some(license) = package["license"].as_str() {
        // Old manifests write a slash for "or".
        component["licenses"] = json!([{ "expression": license.replace('/', " OR ") }]);
    }
    if let Some(sum) = sum {
        component["hashes"] = json!([{ "alg": "SHA-256", "content": sum }]);
    }
    if let Some(repository) = package["repository"].as_str() {
        component["externalReferences"] = json!([{ "type": "vcs", "url": repository }]);
    }
    component
}

/// Checksums by name and version, of a lock file.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let mut sums = BTreeMap::new();
    let (mut name, mut version) = (String::new(), String::new());
    for line in lock.lines() {
        let Some((key, value)) = line.split_once(" = ") else { continue };
        let value = value.trim_matches('"').to_owned();
        match key {
            "name" => name = value,
            "version" => version = value,
            "checksum" => {
                sums.insert((name.clone(), version.clone()), value);
            }
            _ => {}
        }
    }
    sums
}

/// What the linker adds besides crates: the standard library and the C library.
fn runtime(root: &Path) -> Result<Vec<Value>> {
    let rust = shell::capture(Command::new("rustc").arg("--version").current_dir(root), "asking rustc")?;
    let rust = rust.split_whitespace().nth(1).unwrap_or("unknown").to_owned();
    let libc = shell::capture(Command::new("getconf").arg("GNU_LIBC_VERSION"), "asking for the C library")?;
    let libc = libc.split_whitespace().nth(1).unwrap_or("unknown").to_owned();
    let of = |name: &str, version: String, license: &str| {
        json!({
            "type": "library",
            "bom-ref": format!("{name}@{version}"),
            "name": name,
            "version": version,
            "licenses": [{ "expression": license }],
        })
    };
    Ok(vec![of("glibc", libc, "LGPL-2.1-or-later"), of("rust-std", rust, "MIT OR Apache-2.0")])
}

/// A name for the list that follows from what is in it: a UUID of version 8, from a digest.
fn serial(digest: &str) -> String {
    let hex = digest.rsplit(':').next().unwrap_or_default();
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    format!("urn:uuid:{}-{}-8{}-8{}-{}", part(0, 8), part(8, 12), part(13, 16), part(17, 20), part(20, 32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_linked_is_listed() {
        let dependency = |pkg: &str, kind: Value| json!({ "pkg": pkg, "dep_kinds": [{ "kind": kind }] });
        let packages = ["us", "linked", "deeper", "tests", "build"].map(|id| json!({ "id": id, "name": id }));
        let metadata = json!({
            "packages": packages,
            "resolve": { "nodes": [
                { "id": "us", "deps": [
                    dependency("linked", Value::Null), dependency("tests", json!("dev")), dependency("build", json!("build")),
                ] },
                { "id": "linked", "deps": [dependency("deeper", Value::Null), dependency("us", Value::Null)] },
                { "id": "deeper", "deps": [] },
                { "id": "tests", "deps": [] },
                { "id": "build", "deps": [] },
            ] },
        });
        let names: Vec<_> =
            linked(&metadata, "us").unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["deeper", "linked", "us"]);
        assert!(linked(&metadata, "nobody").is_none());
    }

    #[test]
    fn checksums_belong_to_their_package() {
        let lock = "[[package]]\nname = \"a\"\nversion = \"1\"\n\n[[package]]\nname = \"b\"\nversion = \"2\"\nchecksum = \"cc\"\n";
        assert_eq!(checksums(lock), BTreeMap::from([(("b".to_owned(), "2".to_owned()), "cc".to_owned())]));
    }

    #[test]
    fn the_list_of_this_checkout_is_whole() {
        let root = shell::root().unwrap();
        let bom: Value = serde_json::from_str(&write(&root, 0).unwrap()).unwrap();
        let components = bom["components"].as_array().unwrap();
        let find = |name: &str| components.iter().find(|it| it["name"] == name);
        for name in ["enforcer", "enforcer-ebpf", "enforcer-common", "aya", "aya-ebpf", "tokio", "glibc"] {
            assert!(find(name).is_some(), "{name}");
        }
        assert!(find("proptest").is_none(), "tests are not linked");
        assert_eq!(find("tokio").unwrap()["hashes"][0]["content"].as_str().unwrap().len(), 64);
        for component in components {
            assert!(component["licenses"][0]["expression"].is_string(), "{component}");
        }
    }
}
