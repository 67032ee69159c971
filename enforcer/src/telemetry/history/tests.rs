//! The history on a real file system: sums are the kernel's, whatever happens in between.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use enforcer_common::abi::flow::{FlowKey, Outcome, Traffic, TrafficKey};
use enforcer_common::abi::identity::Role;
use enforcer_common::id::IdentityId;
use enforcer_common::reason::Reason;
use enforcer_common::verdict::Direction;

use super::query::query;
use super::write::Writer;
use super::{History, Sample, Settings};
use crate::domain::counted::Epoch;
use crate::domain::history::{HistoryEdge, HistoryQuery};
use crate::domain::labels::LabelSet;
use crate::domain::names::Names;
use crate::domain::registry::IdentityKey;
use crate::domain::timestamp::Timestamp;

const NOW: i64 = 1_800_000_000;

fn settings(folder: &Path) -> Settings {
    Settings { path: folder.join("flows.db"), age: Duration::from_hours(24), size: 64 << 20 }
}

fn names() -> Names {
    let key =
        |name: &str| IdentityKey::new("default", LabelSet([("app".to_owned(), name.to_owned())].into()));
    let identities = [(IdentityId(256), key("web")), (IdentityId(257), key("db"))];
    Names {
        identities: identities.map(|(id, key)| (id, Arc::new(key))).into_iter().collect(),
        ..Names::default()
    }
}

fn verdict(peer: u32, outcome: Outcome) -> FlowKey {
    FlowKey {
        subject: 256,
        peer,
        rule: 0,
        port: 5_432,
        protocol: 6,
        reason: Reason::Isolated as u8,
        direction: Direction::Egress as u8,
        outcome: outcome as u8,
        reserved: 0,
    }
}

const CARRIED: TrafficKey =
    TrafficKey { subject: 256, peer: 257, port: 5_432, protocol: 6, role: Role::Client as u8, reserved: 0 };

fn sample(seconds: i64, map: u32, rows: &[(FlowKey, u64)], bytes: u64) -> Sample {
    let epoch = Epoch { boot_id: "boot:1".into(), map };
    let traffic = Traffic { bytes_sent: bytes, bytes_received: 2 * bytes, ..Traffic::NONE };
    let traffic = if bytes > 0 { vec![(CARRIED, traffic)] } else { Vec::new() };
    Sample {
        at: Timestamp { seconds, nanos: 0 },
        verdicts: (epoch.clone(), rows.to_vec()),
        traffic: (epoch, traffic),
    }
}

fn all(settings: &Settings, per_minute: bool) -> Vec<HistoryEdge> {
    query(&settings.path, &HistoryQuery { per_minute, ..HistoryQuery::default() }).unwrap().edges
}

fn sums(settings: &Settings) -> (u64, u64, u64) {
    let all = all(settings, false);
    let sum = |of: fn(&HistoryEdge) -> u64| all.iter().map(of).sum();
    (
        sum(|edge| edge.verdicts),
        sum(|edge| edge.traffic.source_bytes),
        sum(|edge| edge.traffic.destination_bytes),
    )
}

#[test]
fn sums_are_those_of_the_kernel_over_restarts_and_new_maps() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    let allowed = verdict(257, Outcome::Forwarded);
    let write = |samples: &[Sample]| {
        let mut writer = Writer::new(settings.clone());
        for sample in samples {
            writer.write(sample, &names()).unwrap();
        }
    };
    write(&[sample(NOW, 1, &[(allowed, 5)], 100), sample(NOW + 10, 1, &[(allowed, 8)], 100)]);
    assert_eq!(sums(&settings), (8, 100, 200));
    // A restart: the same counters are not new.
    write(&[sample(NOW + 20, 1, &[(allowed, 8)], 100), sample(NOW + 130, 1, &[(allowed, 9)], 150)]);
    assert_eq!(sums(&settings), (9, 150, 300));
    // New maps: what they say comes on top, never less than nothing.
    write(&[sample(NOW + 140, 2, &[(allowed, 3)], 20)]);
    assert_eq!(sums(&settings), (12, 170, 340));
    let [one] = &all(&settings, false)[..] else { panic!("one edge") };
    assert_eq!(one.first_seen, Timestamp { seconds: NOW, nanos: 0 }.to_string());
    assert_eq!(one.last_seen, Timestamp { seconds: NOW + 140, nanos: 0 }.to_string());
    assert_eq!(
        (one.source.labels.as_slice(), one.verdict.as_str()),
        (&["app=web".to_owned()][..], "FORWARDED")
    );
    let minutes: Vec<u64> = all(&settings, true).iter().map(|edge| edge.verdicts).collect();
    assert_eq!(minutes, [8, 4]);
}

#[test]
fn what_does_not_match_is_not_told() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    let rows = [(verdict(257, Outcome::Forwarded), 5), (verdict(2, Outcome::Dropped), 7)];
    Writer::new(settings.clone()).write(&sample(NOW, 1, &rows, 10), &names()).unwrap();
    let count = |conditions: &[(&str, &str)]| {
        let mut asked = HistoryQuery::default();
        for (key, value) in conditions {
            asked.add(key, value).unwrap();
        }
        let mut copy = HistoryQuery::default();
        for (key, value) in asked.parameters() {
            copy.add(&key, &value).unwrap();
        }
        assert_eq!(copy, asked);
        query(&settings.path, &asked).unwrap().edges.iter().map(|edge| edge.verdicts).sum::<u64>()
    };
    assert_eq!(count(&[]), 12);
    assert_eq!(count(&[("verdict", "dropped")]), 7);
    assert_eq!(count(&[("to_label", "app=db")]), 5);
    assert_eq!(count(&[("to_label", "reserved:world")]), 7);
    assert_eq!(count(&[("port", "80")]), 0);
    assert_eq!(count(&[("until", "2020-01-01T00:00:00Z")]), 0);
    assert_eq!(count(&[("since", "2020-01-01T00:00:00Z"), ("last", "1")]), 7);
    assert!(HistoryQuery::default().add("colour", "red").is_err());
}

#[test]
fn a_damaged_database_is_set_aside_and_said() {
    for damage in [&b"this is no database, and longer than a header has to be to be one ................................."[..], b"SQLite"] {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(folder.path());
        let row = [(verdict(257, Outcome::Forwarded), 5)];
        Writer::new(settings.clone()).write(&sample(NOW, 1, &row, 0), &names()).unwrap();
        fs::write(&settings.path, damage).unwrap();
        let mut writer = Writer::new(settings.clone());
        writer.write(&sample(NOW + 10, 1, &row, 0), &names()).unwrap();
        assert_eq!((writer.set_aside, sums(&settings).0), (1, 5), "what the kernel counted is in the new one");
        let said = writer.damage().unwrap();
        let aside = folder.path().join(format!("flows.db.damaged-{}", NOW + 10));
        assert!(said.contains(&aside.display().to_string()), "{said}");
        assert_eq!(fs::read(&aside).unwrap(), damage);
        fs::remove_file(&aside).unwrap();
        assert_eq!(writer.damage(), None, "somebody has taken it away");
    }
}

#[test]
fn a_page_that_was_overwritten_is_found_too() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    let rows: Vec<(FlowKey, u64)> = (0..5_000).map(|peer| (verdict(peer, Outcome::Dropped), 1)).collect();
    Writer::new(settings.clone()).write(&sample(NOW, 1, &rows, 0), &names()).unwrap();
    let mut bytes = fs::read(&settings.path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 8_192].fill(0xa5);
    fs::write(&settings.path, bytes).unwrap();
    let mut writer = Writer::new(settings.clone());
    writer.write(&sample(NOW + 10, 1, &rows, 0), &names()).unwrap();
    assert_eq!((writer.set_aside, sums(&settings).0), (1, 5_000));
}

#[test]
fn a_directory_that_is_not_there_costs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(folder.path());
    settings.path = folder.path().join("later/flows.db");
    let mut writer = Writer::new(settings.clone());
    let row = |count| [(verdict(257, Outcome::Forwarded), count)];
    assert!(writer.write(&sample(NOW, 1, &row(5), 0), &names()).unwrap_err().contains("wait in the kernel"));
    fs::create_dir(folder.path().join("later")).unwrap();
    writer.write(&sample(NOW + 10, 1, &row(9), 0), &names()).unwrap();
    assert_eq!(sums(&settings).0, 9);
}

#[test]
fn age_and_size_are_bounded_and_the_newest_stays() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { size: 2 << 20, ..settings(folder.path()) };
    let mut writer = Writer::new(settings.clone());
    let mut all = 0;
    // 10^6 distinct flows, as many in the kernel's map at once as it has room for; in a few minutes each.
    let (rounds, each) = if cfg!(debug_assertions) { (20, 10_000) } else { (20, 50_000) };
    for round in 0..rounds {
        let rows: Vec<(FlowKey, u64)> =
            (0..each).map(|at| (verdict(1_000 + round * each + at, Outcome::Forwarded), 1)).collect();
        writer.write(&sample(NOW + i64::from(round) * 60, 1, &rows, 0), &names()).unwrap();
        all += rows.len();
    }
    let last = [(verdict(257, Outcome::Forwarded), 7)];
    for round in 0..7 {
        writer.write(&sample(NOW + 1_800 + round, 1, &last, 0), &names()).unwrap();
    }
    assert!(writer.size <= 2 << 20, "{} bytes after {all} flows", writer.size);
    let newest = query(&settings.path, &HistoryQuery { last: 1, ..HistoryQuery::default() }).unwrap();
    assert_eq!((newest.edges[0].verdicts, newest.more), (7, true));
    for round in 0..70 {
        writer.write(&sample(NOW + 200_000 + round, 1, &last, 0), &names()).unwrap();
    }
    assert_eq!(sums(&settings).0, 0, "older than a day");
}

#[test]
fn a_clock_that_jumps_changes_no_sum() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    let mut writer = Writer::new(settings.clone());
    // An hour back, half a day ahead, and where it was.
    let times = [NOW, NOW - 3_600, NOW + 43_200, NOW + 60];
    for (step, time) in (1..).zip(times) {
        let row = [(verdict(257, Outcome::Forwarded), 10 * step)];
        writer.write(&sample(time, 1, &row, 100 * step), &names()).unwrap();
    }
    assert_eq!(sums(&settings), (40, 400, 800));
    let [one] = &all(&settings, false)[..] else { panic!("one edge") };
    let text = |seconds| Timestamp { seconds, nanos: 0 }.to_string();
    assert_eq!(
        (one.first_seen.as_str(), one.last_seen.as_str()),
        (&*text(NOW - 3_600), &*text(NOW + 43_200))
    );
    let mut minutes: Vec<(String, u64)> =
        all(&settings, true).into_iter().map(|edge| (edge.first_seen, edge.verdicts)).collect();
    minutes.sort();
    let expected = [NOW - 3_600, NOW, NOW + 60, NOW + 43_200].map(|time| (text(time), 10));
    assert_eq!(minutes, expected, "each count is where the clock stood");
    // Years ahead everything is too old, and what comes then is not.
    for _ in 0..70 {
        let row = [(verdict(257, Outcome::Forwarded), 45)];
        writer.write(&sample(NOW + 315_360_000, 1, &row, 0), &names()).unwrap();
    }
    assert_eq!(sums(&settings).0, 5);
    // And back: what the kernel counted since is there.
    let row = [(verdict(257, Outcome::Forwarded), 47)];
    writer.write(&sample(NOW + 120, 1, &row, 0), &names()).unwrap();
    assert_eq!((sums(&settings).0, writer.set_aside), (7, 0));
}

#[test]
fn names_from_strangers_come_back_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    let odd = "a\"b'c\\d\n\u{1}\0);DROP TABLE flows;--é\u{1f980}";
    let labels = LabelSet([("app".to_owned(), odd.to_owned())].into());
    let mut names = names();
    names.identities.insert_mut(IdentityId(256), Arc::new(IdentityKey::new(odd, labels)));
    let row = [(verdict(257, Outcome::Dropped), 5)];
    Writer::new(settings.clone()).write(&sample(NOW, 1, &row, 0), &names).unwrap();
    let [one] = &all(&settings, false)[..] else { panic!("one edge") };
    assert_eq!(one.source.labels, [format!("app={odd}")]);
    assert_eq!(one.source.namespace, odd);
    let mut asked = HistoryQuery::default();
    asked.add("from_label", &format!("app={odd}")).unwrap();
    assert_eq!(query(&settings.path, &asked).unwrap().edges.len(), 1);
}

#[test]
fn a_thread_writes_the_last_sample_before_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    let (history, thread) = History::start(settings.clone()).unwrap();
    history.sample(sample(NOW, 1, &[(verdict(257, Outcome::Forwarded), 5)], 0));
    history.stop();
    drop(history);
    thread.join().unwrap();
    assert_eq!(sums(&settings).0, 5);
    assert_eq!(fs::metadata(&settings.path).unwrap().permissions().mode() & 0o777, 0o600);
}
