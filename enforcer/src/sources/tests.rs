//! Against real files. The id of a cgroup is an inode number, so any directory will do for a cgroup.

use std::fs;
use std::path::Path;
use std::time::Duration;

use enforcer_common::id::CgroupId;
use tokio::sync::{mpsc, watch};

use super::*;
use crate::domain::command::PolicyFile;
use crate::domain::workload::{Changes, Resolved, WorkloadEvent};

/// Longer than any look takes, shorter than anybody wants to wait for a failure.
const DEADLINE: Duration = Duration::from_secs(20);
/// Longer than any test: what is told in between was noticed by inotify.
const PAUSE: Duration = Duration::from_hours(1);

struct Running<E> {
    events: mpsc::Receiver<E>,
    demand: watch::Sender<u64>,
}

impl<E: Send + std::fmt::Debug + 'static> Running<E> {
    fn start<L: Look<Event = E>>(source: L) -> Self {
        let (sender, events) = mpsc::channel(16);
        let (demand, demanded) = watch::channel(0);
        tokio::spawn(run::run_with(source, sender, demanded, PAUSE));
        Self { events, demand }
    }

    async fn next(&mut self) -> E {
        tokio::time::timeout(DEADLINE, self.events.recv())
            .await
            .expect("an event in time")
            .expect("a living source")
    }

    async fn silence(&mut self) {
        let event = tokio::time::timeout(Duration::from_millis(300), self.events.recv()).await;
        assert!(event.is_err(), "{event:?}");
    }
}

fn id(path: &Path) -> Option<CgroupId> {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata(path).ok().map(|found| CgroupId(found.ino()))
}

fn snapshot(event: WorkloadEvent) -> Vec<(String, Option<CgroupId>)> {
    let WorkloadEvent::Snapshot { source, workloads, .. } = event else { panic!("{event:?}") };
    assert_eq!(source, STATIC);
    workloads
        .into_iter()
        .map(|Resolved { workload, cgroup, .. }| (workload.key.name.clone(), cgroup))
        .collect()
}

fn problem(event: WorkloadEvent) -> String {
    let WorkloadEvent::Problem { message, .. } = event else { panic!("{event:?}") };
    message
}

/// As editors do it.
fn replace(path: &Path, text: &str) {
    let other = path.with_extension("tmp~");
    fs::write(&other, text).unwrap();
    fs::rename(other, path).unwrap();
}

const TWO: &str = "workloads:\n- {name: web, cgroup: /app/web}\n- {name: db, cgroup: /db}\n";

#[tokio::test(flavor = "multi_thread")]
async fn directories_that_come_go_and_come_again() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("cgroup");
    fs::create_dir_all(root.join("db")).unwrap();
    let file = folder.path().join("workloads.yaml");
    fs::write(&file, TWO).unwrap();
    let mut source = Running::start(StaticFile::new(file, CgroupTree::new(root.clone()), false));
    let db = id(&root.join("db"));
    let expect = |web, db| vec![("web".to_owned(), web), ("db".to_owned(), db)];
    assert_eq!(snapshot(source.next().await), expect(None, db));
    source.silence().await;

    fs::create_dir_all(root.join("app/web")).unwrap();
    let web = id(&root.join("app/web"));
    assert_eq!(snapshot(source.next().await), expect(web, db));

    // Kept open, so that its inode number is not given to the next directory.
    let _old = fs::File::open(root.join("app/web")).unwrap();
    fs::remove_dir(root.join("app/web")).unwrap();
    assert_eq!(snapshot(source.next().await), expect(None, db));
    fs::create_dir(root.join("app/web")).unwrap();
    let new = id(&root.join("app/web"));
    assert_ne!(new, web);
    assert_eq!(snapshot(source.next().await), expect(new, db));

    fs::remove_dir_all(root.join("app")).unwrap();
    assert_eq!(snapshot(source.next().await), expect(None, db));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_edited_broken_removed_and_mended() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("cgroup");
    fs::create_dir_all(root.join("db")).unwrap();
    let file = folder.path().join("workloads.yaml");
    fs::write(&file, TWO).unwrap();
    let mut source = Running::start(StaticFile::new(file.clone(), CgroupTree::new(root.clone()), true));
    assert_eq!(snapshot(source.next().await).len(), 2);

    replace(&file, "workloads:\n- {name: db, cgroup: /db}\n");
    assert_eq!(snapshot(source.next().await), [("db".to_owned(), id(&root.join("db")))]);

    fs::write(&file, "workloads:\n- {name: db, cgruop: /db}\n").unwrap();
    let message = problem(source.next().await);
    assert!(message.contains("workloads.yaml:2:") && message.contains("last good one stays"), "{message}");

    // The directories of the last good file are followed all the same, and the problem is not forgotten.
    let _old = fs::File::open(root.join("db")).unwrap();
    fs::remove_dir(root.join("db")).unwrap();
    assert_eq!(snapshot(source.next().await), [("db".to_owned(), None)]);
    assert_eq!(problem(source.next().await), message);

    fs::remove_file(&file).unwrap();
    assert!(problem(source.next().await).contains("does not exist"));
    replace(&file, TWO);
    assert_eq!(snapshot(source.next().await).len(), 2);
    source.demand.send_modify(|count| *count += 1);
    source.silence().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_long_file_only_what_differs_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("workloads.yaml");
    let text = |names: &mut dyn Iterator<Item = u32>| {
        let lines: Vec<String> =
            names.map(|number| format!("- {{name: w-{number}, cgroup: /w-{number}}}\n")).collect();
        format!("namespaces: []\nworkloads:\n{}", lines.concat())
    };
    fs::write(&file, text(&mut (0..40))).unwrap();
    let mut source =
        Running::start(StaticFile::new(file.clone(), CgroupTree::new(folder.path().to_owned()), false));
    assert_eq!(snapshot(source.next().await).len(), 40);
    let mut changes = async |text: String| {
        replace(&file, &text);
        let event = source.next().await;
        let WorkloadEvent::Changes { source, changes } = event else { panic!("{event:?}") };
        assert_eq!(source, STATIC);
        let Changes { workloads, gone, namespaces, gone_namespaces, services, gone_services } = *changes;
        assert_eq!((namespaces.len(), services.len()), (0, 0));
        assert_eq!((gone_namespaces.len(), gone_services.len()), (0, 0));
        let names: Vec<String> = workloads.iter().map(|resolved| resolved.workload.key.to_string()).collect();
        let gone: Vec<String> = gone.iter().map(ToString::to_string).collect();
        (names.join(" "), gone.join(" "))
    };
    assert_eq!(changes(text(&mut (0..41))).await, ("default/w-40".into(), String::new()));
    let other = text(&mut (1..41)).replace("/w-7}", "/other}");
    assert_eq!(changes(other).await, ("default/w-7".into(), "default/w-0".into()));
    replace(&file, &text(&mut (20..41)));
    assert_eq!(snapshot(source.next().await).len(), 21, "what is mostly new is told as a whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_file_is_empty_if_it_may_be() {
    let folder = tempfile::tempdir().unwrap();
    let tree = CgroupTree::new(folder.path().to_owned());
    let file = folder.path().join("etc/workloads.yaml");
    let mut optional = Running::start(StaticFile::new(file.clone(), tree.clone(), true));
    let mut required = Running::start(StaticFile::new(file.clone(), tree, false));
    assert_eq!(snapshot(optional.next().await), []);
    // It is no more missing at a second look.
    optional.demand.send_replace(1);
    optional.silence().await;
    assert!(problem(required.next().await).contains("etc/workloads.yaml does not exist"));
    fs::create_dir(folder.path().join("etc")).unwrap();
    replace(&file, TWO);
    assert_eq!(snapshot(optional.next().await).len(), 2);
    assert_eq!(snapshot(required.next().await).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn managed_directories() {
    let folder = tempfile::tempdir().unwrap();
    let names = ["/a".to_owned(), "b/c".to_owned()];
    let mut source = Running::start(Managed::new(CgroupTree::new(folder.path().to_owned()), names.clone()));
    let expect = |a, c| names.iter().cloned().zip([a, c]).collect();
    assert_eq!(source.next().await, expect(None, None));
    fs::create_dir(folder.path().join("a")).unwrap();
    assert_eq!(source.next().await, expect(id(&folder.path().join("a")), None));
    fs::create_dir_all(folder.path().join("b/c")).unwrap();
    assert_eq!(source.next().await, expect(id(&folder.path().join("a")), id(&folder.path().join("b/c"))));
}

fn files(event: PolicyEvent, root: &Path) -> Vec<(String, String)> {
    let PolicyEvent::Files(files) = event else { panic!("{event:?}") };
    let root = format!("{}/", root.display());
    files.into_iter().map(|PolicyFile { name, text }| (name.replace(&root, ""), text)).collect()
}

fn named(names: &[&str]) -> Vec<(String, String)> {
    names.iter().map(|name| ((*name).to_owned(), (*name).to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn policy_files_are_told_as_a_whole() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    fs::create_dir_all(root.join("d/deep")).unwrap();
    for name in ["d/b.yaml", "d/a.yml", "d/deep/x.yaml", "d/n.md", "d/.h.yaml", "d/a.expect.yaml", "one.yaml"]
    {
        fs::write(root.join(name), name).unwrap();
    }
    let path = |name: &str, optional| PolicyPath { path: root.join(name), optional };
    let paths = vec![path("d", true), path("one.yaml", false), path("later", true)];
    let mut source = Running::start(PolicyDir::new(paths));
    let all = named(&["d/a.yml", "d/b.yaml", "d/deep/x.yaml", "one.yaml"]);
    assert_eq!(files(source.next().await, root), all);

    fs::remove_file(root.join("d/a.yml")).unwrap();
    assert_eq!(files(source.next().await, root), all[1..]);
    fs::create_dir(root.join("later")).unwrap();
    fs::write(root.join("later/z.yaml"), "later/z.yaml").unwrap();
    assert_eq!(files(source.next().await, root).len(), 4);

    fs::rename(root.join("later"), root.join("away")).unwrap();
    let PolicyEvent::Problem(message) = source.next().await else { panic!() };
    assert!(message.contains("later of the setting `policies` does not exist"), "{message}");
    fs::rename(root.join("away"), root.join("later")).unwrap();
    assert_eq!(files(source.next().await, root).len(), 4);
}

/// What a mounted `ConfigMap` does: files are links through `..data`, which is replaced.
#[tokio::test(flavor = "multi_thread")]
async fn a_swapped_link_is_a_change() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let version = |name: &str, text: &str| {
        fs::create_dir(root.join(name)).unwrap();
        fs::write(root.join(name).join("p.yaml"), text).unwrap();
    };
    version("..1", "one");
    std::os::unix::fs::symlink("..1", root.join("..data")).unwrap();
    std::os::unix::fs::symlink("..data/p.yaml", root.join("p.yaml")).unwrap();
    let mut source =
        Running::start(PolicyDir::new(vec![PolicyPath { path: root.to_owned(), optional: false }]));
    assert_eq!(files(source.next().await, root), [("p.yaml".to_owned(), "one".to_owned())]);
    version("..2", "two");
    std::os::unix::fs::symlink("..2", root.join("..new")).unwrap();
    fs::rename(root.join("..new"), root.join("..data")).unwrap();
    assert_eq!(files(source.next().await, root), [("p.yaml".to_owned(), "two".to_owned())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_read_is_told_and_mended() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.yaml");
    fs::write(&path, [0xff, 0xfe]).unwrap();
    let mut source = Running::start(PolicyDir::new(vec![PolicyPath { path: path.clone(), optional: false }]));
    let PolicyEvent::Problem(message) = source.next().await else { panic!() };
    assert!(message.contains("p.yaml is no UTF-8 text"), "{message}");
    fs::write(&path, "fine").unwrap();
    assert_eq!(files(source.next().await, folder.path()), [("p.yaml".to_owned(), "fine".to_owned())]);
}
