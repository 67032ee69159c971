//! Things, directories, and what is told of both.

use std::fs;
use std::time::Duration;

use super::*;
use crate::domain::cgroup_path::{ContainerId, PodUid};

const UID: &str = "3b8c2d1e-0f4a-4c6b-9d7e-5a1b2c3d4e5f";
const OTHER: &str = "77c1b263d6feb1b70a4d4041548834fd";
const ID: &str = "d0f1e2a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f";

fn thing(name: &str, place: Place, made: i64) -> Thing {
    let key = WorkloadKey { namespace: "ns".to_owned(), name: name.to_owned() };
    Thing { key, of: None, labels: LabelSet::default(), left_out: 0, place, made }
}

fn pod(name: &str, uid: &str, made: i64) -> Thing {
    thing(name, Place::Pod(PodUid::parse(uid).unwrap()), made)
}

/// A container of the pod `p`.
fn inner(name: &str, uid: &str, id: &str, made: i64) -> Thing {
    let place = Place::Container(ContainerId::parse(id).unwrap());
    Thing { of: Some((PodUid::parse(uid).unwrap(), name.to_owned())), ..thing("p", place, made) }
}

/// Names and paths that were told, and names of what is gone.
async fn next(told: &mut mpsc::Receiver<WorkloadEvent>) -> (Vec<String>, Vec<String>) {
    let event = tokio::time::timeout(Duration::from_secs(20), told.recv()).await.unwrap().unwrap();
    let (workloads, gone) = match event {
        WorkloadEvent::Snapshot { workloads, .. } => (workloads, Vec::new()),
        WorkloadEvent::Changes { changes, .. } => (changes.workloads, changes.gone),
        other => panic!("{other:?}"),
    };
    let told = workloads
        .iter()
        .map(|it| format!("{} {}", it.workload.key.name, it.workload.cgroup.as_ref().unwrap()));
    (told.collect(), gone.into_iter().map(|key| key.name).collect())
}

async fn follow(telling: &mut Telling) {
    let moved = tokio::time::timeout(Duration::from_secs(20), telling.moved()).await.unwrap().unwrap();
    telling.follow(moved).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thing_is_told_while_its_directory_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    fs::create_dir(root.join(format!("pod{UID}"))).unwrap();
    let directories = Directories::new(root.to_owned());
    let (sender, mut told) = mpsc::channel(16);
    let mut telling = Telling::new("test", directories.clone(), sender);
    let (problems, _kept) = mpsc::channel(1);
    let task = tokio::spawn(directories.clone().run(problems));
    telling.ready().await;
    follow(&mut telling).await;

    let container = thing("c", Place::Container(ContainerId::parse(ID).unwrap()), 0);
    let things = [("1".to_owned(), pod("p", UID, 1)), ("2".to_owned(), container)].into();
    telling.replace(things).await.unwrap();
    assert_eq!(next(&mut told).await, (vec![format!("p /pod{UID}")], vec![]));

    // The same name in a directory of its own: the later one has it, the other one has its identity still.
    telling.upsert("3", pod("p", OTHER, 2)).await.unwrap();
    fs::create_dir(root.join(format!("pod{OTHER}"))).unwrap();
    follow(&mut telling).await;
    let (now, gone) = next(&mut told).await;
    assert_eq!(
        (now.len(), now[0].as_str(), gone.len()),
        (2, format!("p /pod{OTHER}").as_str(), 0),
        "{now:?}"
    );
    assert!(now[1].starts_with("p-1-") && now[1].ends_with(UID), "{now:?}");

    // In the directory of a pod it is the pod's; elsewhere it is told, and gone with its directory.
    fs::create_dir(root.join(format!("pod{UID}/{ID}"))).unwrap();
    follow(&mut telling).await;
    fs::remove_dir(root.join(format!("pod{UID}/{ID}"))).unwrap();
    follow(&mut telling).await;
    fs::create_dir(root.join(ID)).unwrap();
    follow(&mut telling).await;
    assert_eq!(next(&mut told).await, (vec![format!("c /{ID}")], vec![]));
    fs::remove_dir(root.join(ID)).unwrap();
    follow(&mut telling).await;
    assert_eq!(next(&mut told).await, (vec![], vec!["c".to_owned()]));

    telling.remove("3").await.unwrap();
    let (now, gone) = next(&mut told).await;
    assert_eq!((now, gone.len()), (vec![format!("p /pod{UID}")], 1));
    telling.replace(BTreeMap::new()).await.unwrap();
    assert_eq!(next(&mut told).await, (vec![], vec!["p".to_owned()]));
    task.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_come_with_the_pod_in_whose_directory_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let (pod_path, other) = (format!("pod{UID}"), format!("pod{OTHER}"));
    let ids: Vec<String> = (1..5).map(|number| format!("{number:064x}")).collect();
    for path in [format!("{pod_path}/{}", ids[0]), format!("{other}/{}", ids[1])] {
        fs::create_dir_all(root.join(path)).unwrap();
    }
    let directories = Directories::new(root.to_owned());
    let (sender, mut told) = mpsc::channel(16);
    let mut telling = Telling::new("test", directories.clone(), sender);
    let (problems, _kept) = mpsc::channel(1);
    let task = tokio::spawn(directories.clone().run(problems));
    telling.ready().await;
    follow(&mut telling).await;
    // The second one lies, or its labels do: its directory is in another pod.
    let things = [
        ("s".to_owned(), pod("p", UID, 1)),
        ("1".to_owned(), inner("main", UID, &ids[0], 1)),
        ("2".to_owned(), inner("proxy", UID, &ids[1], 1)),
    ];
    telling.replace(things.into()).await.unwrap();
    let whole = vec![format!("p /{pod_path}"), format!("p/main /{pod_path}/{}", ids[0])];
    assert_eq!(next(&mut told).await, (whole, vec![]));

    // One that is started again is another one of that name, known before its directory is there.
    telling.upsert("3", inner("main", UID, &ids[2], 2)).await.unwrap();
    fs::create_dir(root.join(format!("{pod_path}/{}", ids[2]))).unwrap();
    follow(&mut telling).await;
    assert_eq!(next(&mut told).await, (vec![format!("p/main /{pod_path}/{}", ids[2])], vec![]));
    fs::remove_dir(root.join(format!("{pod_path}/{}", ids[2]))).unwrap();
    follow(&mut telling).await;
    assert_eq!(next(&mut told).await, (vec![format!("p/main /{pod_path}/{}", ids[0])], vec![]));

    telling.remove("1").await.unwrap();
    assert_eq!(next(&mut told).await, (vec![], vec!["p/main".to_owned()]));
    telling.remove("s").await.unwrap();
    assert_eq!(next(&mut told).await, (vec![], vec!["p".to_owned()]));
    task.abort();
}
