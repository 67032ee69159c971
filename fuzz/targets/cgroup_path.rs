//! Directories of the cgroup tree as people write them: whatever is accepted stays inside the tree.
#![cfg_attr(feature = "libfuzzer", no_main)]

#[cfg(not(feature = "libfuzzer"))]
use enforcer_fuzz::fuzz_target;
#[cfg(feature = "libfuzzer")]
use libfuzzer_sys::fuzz_target;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::LazyLock;

use enforcer::config::Config;
use enforcer::domain::command::PolicyFile;
use enforcer::domain::workload_file::parse_workloads;
use enforcer::sources::CgroupTree;

/// A tree with a neighbour that is none of its business.
struct World {
    tree: CgroupTree,
    inside: BTreeSet<u64>,
    _folder: tempfile::TempDir,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = folder.path().join("tree");
    let inside = ["", "a", "a/b", "a/b/c", "web.slice"].map(|name| root.join(name));
    for path in inside.iter().chain([&folder.path().join("a"), &folder.path().join("web.slice")]) {
        fs::create_dir_all(path).expect("a directory");
    }
    let inode = |path: &Path| fs::metadata(path).expect("it was made above").ino();
    World {
        inside: inside.iter().map(|path| inode(path)).collect(),
        tree: CgroupTree::new(root),
        _folder: folder,
    }
});

fuzz_target!(|data: &[u8]| {
    let Ok(path) = std::str::from_utf8(data) else { return };
    let accepted = [as_workload(path), as_managed(path)].into_iter().flatten();
    for path in accepted {
        if let Some(cgroup) = WORLD.tree.resolve(&path) {
            assert!(WORLD.inside.contains(&cgroup.0), "{path:?} leads out of the tree");
        }
    }
});

/// The path as a workload file gives it on, if it does.
fn as_workload(path: &str) -> Option<String> {
    let quoted = serde_json::to_string(path).expect("a string");
    let text = format!("workloads:\n- name: web\n  cgroup: {quoted}\n");
    let workloads =
        parse_workloads(&PolicyFile { name: "workloads.yaml".into(), text }).into_result().ok()?.workloads;
    let found = workloads.into_iter().next()?.cgroup?;
    assert_eq!(found, path, "another path than was written");
    let parts: Vec<&str> = found.split('/').collect();
    assert!(parts.len() > 1 && parts[0].is_empty(), "{found:?} is not absolute");
    for part in &parts[1..] {
        assert!(!["", ".", ".."].contains(part) && !part.contains(char::is_control), "{found:?}");
    }
    Some(found)
}

/// The path as a setting, if that is accepted.
fn as_managed(path: &str) -> Option<String> {
    let config =
        Config { managed: vec![path.to_owned()], attach: Some(path.to_owned()), ..Config::default() };
    config.problems().is_empty().then(|| path.to_owned())
}
