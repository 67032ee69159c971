//! Against real directories, of which any will do.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use enforcer_common::id::CgroupId;
use enforcer_common::limits::CGROUP_DEPTH;
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinHandle;

use super::tree::{PORTION, Tree, Where};
use super::watches::{Inbox, Watches};
use super::{Directories, Directory, LIMIT, Moved};

/// Longer than any look takes, shorter than anybody wants to wait for a failure.
const DEADLINE: Duration = Duration::from_secs(20);
/// Longer than any test: what is told in between was noticed by inotify.
const NEVER: Duration = Duration::from_hours(1);
const UID: &str = "3b8c2d1e-0f4a-4c6b-9d7e-5a1b2c3d4e5f";
const ID: &str = "d0f1e2a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f";

/// A running index of a folder.
struct Running {
    directories: Directories,
    moved: broadcast::Receiver<Moved>,
    problems: mpsc::Receiver<Option<String>>,
    task: JoinHandle<Result<(), super::Error>>,
}

impl Running {
    async fn start(root: &Path, pause: Duration) -> Self {
        let directories = Directories::new(root.to_owned());
        let moved = directories.subscribe();
        let (sender, problems) = mpsc::channel(4);
        let task = tokio::spawn(directories.clone().run_with(sender, pause));
        directories.scanned().await;
        let mut running = Self { directories, moved, problems, task };
        assert_eq!(running.next().await, Moved::Rescanned);
        running
    }

    async fn next(&mut self) -> Moved {
        tokio::time::timeout(DEADLINE, self.moved.recv())
            .await
            .expect("news in time")
            .expect("nothing missed")
    }

    async fn came(&mut self) -> String {
        match self.next().await {
            Moved::Came(directory) => {
                assert_eq!(
                    self.directories.at(&directory.path),
                    Some(directory.clone()),
                    "known before it is told"
                );
                directory.path
            }
            other => panic!("{other:?}"),
        }
    }
}

fn id(path: &Path) -> CgroupId {
    CgroupId(fs::metadata(path).unwrap().ino())
}

/// What is there, by asking the file system alone.
fn truth(root: &Path) -> BTreeMap<String, CgroupId> {
    let mut found = BTreeMap::new();
    let mut pending = vec![root.to_owned()];
    while let Some(path) = pending.pop() {
        let below = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path());
        pending.extend(below.filter(|path| path.is_dir()));
        if path != root {
            found.insert(path.to_str().unwrap().replacen(root.to_str().unwrap(), "", 1), id(&path));
        }
    }
    found
}

fn known(directories: &Directories) -> BTreeMap<String, CgroupId> {
    directories.all(|_| true).into_iter().map(|Directory { path, id, .. }| (path, id)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_come_go_and_come_again() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    fs::create_dir_all(root.join("kubepods/burstable")).unwrap();
    let mut running = Running::start(root, NEVER).await;
    let pod = format!("/kubepods/burstable/pod{UID}");
    let container = format!("{pod}/{ID}");
    assert_eq!(running.directories.pod(UID), None);

    fs::create_dir_all(root.join(&container[1..])).unwrap();
    assert_eq!(running.came().await, pod);
    assert_eq!(running.came().await, container);
    let found = running.directories.pod(&UID.replace('-', "_")).unwrap();
    let above = vec![id(&root.join("kubepods/burstable")), id(&root.join("kubepods"))];
    assert_eq!(found, Directory { path: pod.clone(), id: id(&root.join(&pod[1..])), above });
    let inner = running.directories.container(ID).unwrap();
    assert_eq!((inner.path.as_str(), inner.above.first()), (container.as_str(), Some(&found.id)));
    assert_eq!(running.directories.at(container.trim_start_matches('/')), Some(inner));

    // Kept open, so that its inode number is not given to the next directory.
    let _old = fs::File::open(root.join(&pod[1..])).unwrap();
    fs::remove_dir_all(root.join(&pod[1..])).unwrap();
    assert_eq!(running.next().await, Moved::Went(container));
    assert_eq!(running.next().await, Moved::Went(pod.clone()));
    assert_eq!((running.directories.pod(UID), running.directories.container(ID)), (None, None));
    fs::create_dir(root.join(&pod[1..])).unwrap();
    assert_eq!(running.came().await, pod);
    assert_ne!(running.directories.pod(UID).unwrap().id, found.id);

    drop(running.problems);
    running.task.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_say_the_same_the_one_outside_of_containers_is_meant() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let forged = format!("docker/{ID}/pod{UID}");
    fs::create_dir_all(root.join(&forged)).unwrap();
    let mut running = Running::start(root, NEVER).await;
    assert_eq!(running.directories.pod(UID).unwrap().path, format!("/{forged}"), "the only one");
    let real = format!("a/b/c/kubepods/pod{UID}");
    fs::create_dir_all(root.join(&real)).unwrap();
    while running.came().await != format!("/{real}") {}
    assert_eq!(running.directories.pod(UID).unwrap().path, format!("/{real}"));
    fs::create_dir_all(root.join(&real).join("x").join(ID)).unwrap();
    while running.came().await != format!("/{real}/x/{ID}") {}
    assert_eq!(running.directories.container(ID).unwrap().path, format!("/docker/{ID}"), "further out");
}

/// Directories are made, removed and moved while they are about to be watched. What is told adds up to what is there.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_missed_however_quickly_it_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_owned();
    let mut running = Running::start(&root, NEVER).await;
    let maker = {
        let root = root.clone();
        tokio::task::spawn_blocking(move || {
            let mut random = 1_u64;
            for round in 0..1_500 {
                random =
                    random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let number = (random >> 33) % 40;
                let path = root.join(format!("a{}/b{}/c{}", number % 2, number % 5, number % 7));
                match (random >> 60) % 4 {
                    0 => drop(fs::remove_dir_all(path.parent().unwrap())),
                    1 => drop(fs::rename(path.parent().unwrap(), root.join(format!("moved-{}", round % 9)))),
                    _ => fs::create_dir_all(path.join("d/e")).unwrap(),
                }
            }
        })
    };
    maker.await.unwrap();
    let truth = truth(&root);
    let deadline = Instant::now() + DEADLINE;
    while known(&running.directories) != truth {
        assert!(Instant::now() < deadline, "{:?} is not {truth:?}", known(&running.directories));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut told = BTreeMap::new();
    while let Ok(moved) = running.moved.try_recv() {
        match moved {
            Moved::Came(Directory { path, id, .. }) => assert_eq!(told.insert(path, id), None),
            Moved::Went(path) => assert!(told.remove(&path).is_some(), "{path}"),
            Moved::Rescanned => panic!("so much is not new at once"),
        }
    }
    assert_eq!(told, truth);
    assert_eq!(running.problems.try_recv().ok().flatten(), None);
}

/// A tree without inotify.
fn blind(root: &Path, limit: usize) -> (Tree, Directories) {
    (Tree::new(root.to_owned(), limit, Watches::new(None)), Directories::new(root.to_owned()))
}

#[test]
fn looking_alone_finds_everything() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let (mut tree, directories) = blind(root, LIMIT);
    let mut moved = directories.subscribe();
    fs::create_dir_all(root.join("a/b/c")).unwrap();
    tree.look(Where::All, &directories);
    assert_eq!(moved.try_recv().unwrap(), Moved::Rescanned);
    assert_eq!(known(&directories), truth(root));

    // One went and another came: the number of links above is the same.
    let old = fs::File::open(root.join("a/b")).unwrap();
    fs::remove_dir_all(root.join("a/b")).unwrap();
    fs::create_dir_all(root.join("a/other")).unwrap();
    tree.look(Where::All, &directories);
    assert_eq!(known(&directories), truth(root));
    // The same name, another directory.
    fs::remove_dir(root.join("a/other")).unwrap();
    fs::create_dir_all(root.join("a/b")).unwrap();
    tree.look(Where::All, &directories);
    let before = id(&root.join("a/b"));
    let _older = fs::File::open(root.join("a/b")).unwrap();
    fs::remove_dir(root.join("a/b")).unwrap();
    fs::create_dir_all(root.join("a/b/c")).unwrap();
    tree.look(Where::All, &directories);
    assert_eq!(known(&directories), truth(root));
    assert_ne!(directories.at("/a/b").unwrap().id, before);
    drop(old);
    let told: Vec<Moved> = std::iter::from_fn(|| moved.try_recv().ok()).collect();
    assert_eq!(told.len(), 8, "{told:?}");

    fs::remove_dir_all(root).unwrap();
    tree.look(Where::All, &directories);
    assert_eq!(known(&directories), BTreeMap::new());
    assert!(tree.problem().unwrap().contains("can't be read"), "{:?}", tree.problem());
}

#[tokio::test]
async fn what_is_named_need_not_wait_for_everything() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    (0..2 * PORTION).for_each(|n| fs::create_dir(root.join(format!("d{n:04}"))).unwrap());
    let inbox = Inbox::new();
    let mut tree = Tree::new(root.to_owned(), LIMIT, inbox.watches());
    let directories = Directories::new(root.to_owned());
    tree.look(Where::All, &directories);
    assert_eq!(known(&directories), truth(root), "at first everything is taken in at once");
    assert!(!tree.is_through(), "and looked at once more, in portions");
    fs::create_dir(root.join("new")).unwrap();
    let first = 1;
    tree.look(Where::Named([(first, Some("new".into()))].into()), &directories);
    assert!(!tree.is_through());
    assert_eq!(known(&directories), truth(root));
    let portions = (0..).take_while(|_| {
        tree.look(Where::Rest, &directories);
        !tree.is_through()
    });
    assert_eq!(portions.count(), 1, "three portions in all");
    assert_eq!(known(&directories), truth(root));
}

#[test]
fn what_is_left_out_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let deep: PathBuf = (0..CGROUP_DEPTH + 2).map(|level| format!("d{level}")).collect();
    fs::create_dir_all(root.join(deep)).unwrap();
    let (mut tree, directories) = blind(root, LIMIT);
    tree.look(Where::All, &directories);
    assert_eq!(known(&directories).len(), CGROUP_DEPTH, "as deep as the hooks look");
    assert_eq!(tree.problem(), None);

    let (mut tree, directories) = blind(root, 4);
    tree.look(Where::All, &directories);
    assert_eq!(
        known(&directories).keys().map(String::as_str).collect::<Vec<_>>(),
        ["/d0", "/d0/d1", "/d0/d1/d2"]
    );
    assert!(tree.problem().unwrap().starts_with("1 cgroup directories"), "{:?}", tree.problem());
    fs::remove_dir_all(root.join("d0/d1/d2/d3")).unwrap();
    tree.look(Where::All, &directories);
    assert_eq!(tree.problem(), None);
    let name: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(&[0xff]);
    fs::create_dir(root.join(name)).unwrap();
    tree.look(Where::All, &directories);
    assert!(tree.problem().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_events_are_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let room = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let room: usize = room.trim().parse().unwrap();
    let mut inbox = Inbox::new();
    assert!(inbox.watches().add(&"".into(), root));
    // Each is two events, and no two in a row are the same.
    for _ in 0..=room / 2 {
        fs::create_dir(root.join("a")).unwrap();
        fs::remove_dir(root.join("a")).unwrap();
    }
    let mut names = BTreeSet::new();
    loop {
        let happened = tokio::time::timeout(DEADLINE, inbox.next()).await.unwrap();
        names.extend(happened.events);
        if happened.lost {
            break;
        }
    }
    assert_eq!(names.len(), 1);
}
