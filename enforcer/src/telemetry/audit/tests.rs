//! The log on a real file system: what a crash, a full queue and a thousand manipulations make of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use enforcer_common::abi::flow::{FlowKey, Outcome};
use enforcer_common::id::IdentityId;
use enforcer_common::reason::Reason;
use enforcer_common::verdict::Direction;

use super::files::{Flush, Log, Settings, files};
use super::read::{records, verify};
use super::writer::Writer;
use super::{Audit, Sample, lock};
use crate::domain::audit::Kind;
use crate::domain::audit::fact::Fact;
use crate::domain::audit::record::{Host, Record};
use crate::domain::audit::verify::{Finding, Range, What};
use crate::domain::counted::Epoch;
use crate::domain::labels::LabelSet;
use crate::domain::names::Names;
use crate::domain::registry::IdentityKey;
use crate::domain::timestamp::Timestamp;

fn now() -> Timestamp {
    Timestamp { seconds: 1_800_000_000, nanos: 7 }
}

fn settings(folder: &Path) -> Settings {
    Settings {
        directory: folder.join("audit"),
        file_size: 8_000,
        file_age: Duration::from_hours(24),
        total_size: 1 << 30,
        flush: Flush::Never,
    }
}

fn tell(audit: &Audit, message: &str) {
    assert!(audit.tell(repaired(message)), "there is room");
}

fn repaired(message: &str) -> Fact {
    Fact::Repaired { kind: "pin", message: message.to_owned() }
}

/// Lets a log run with what `tell` does, to its end.
fn run(settings: &Settings, tell: impl FnOnce(&Audit)) {
    let host =
        Host { hostname: "node".into(), boot: crate::domain::audit::record::Boot { id: "boot".into() } };
    let (audit, thread) = Audit::start(settings.clone(), host, now).unwrap();
    tell(&audit);
    audit.stop();
    thread.join().unwrap();
}

fn findings(settings: &Settings) -> Vec<Finding> {
    verify(&settings.directory, None, Range::default()).unwrap().findings
}

fn all(settings: &Settings) -> Vec<Record> {
    let mut all = Vec::new();
    records(&settings.directory, Range::default(), |_, record| {
        all.push(record);
        Ok(())
    })
    .unwrap();
    all
}

fn actions(settings: &Settings) -> Vec<String> {
    all(settings).into_iter().map(|record| record.event.action).collect()
}

/// A log of a few files with a few hundred records.
fn written(settings: &Settings) -> Vec<PathBuf> {
    for round in 0..3 {
        run(settings, |audit| {
            for number in 0..40 {
                audit.tell(repaired(&format!("round {round}, \"record\" {number}\nof é")));
                if number % 4 == 0 {
                    audit.flushed().blocking_recv().unwrap().unwrap();
                }
            }
        });
    }
    let files: Vec<PathBuf> = files(&settings.directory).unwrap().into_iter().map(|file| file.path).collect();
    assert!(files.len() >= 4, "{files:?}");
    files
}

struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap()
    }
}

/// Does something to the files; says what, or `None` if it happened to change nothing.
fn manipulate(files: &[PathBuf], dice: &mut Dice) -> Option<String> {
    let path = &files[dice.below(files.len())];
    let text = fs::read(path).unwrap();
    let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    let line = dice.below(lines.len());
    let write = |lines: Vec<&[u8]>| fs::write(path, lines.concat()).unwrap();
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let what = match dice.below(9) {
        0 => {
            let mut changed = text.clone();
            changed[dice.below(text.len())] ^= 1 << dice.below(8);
            fs::write(path, changed).unwrap();
            "a bit"
        }
        1 => {
            let mut changed = text.clone();
            changed.insert(dice.below(text.len()), b' ');
            fs::write(path, changed).unwrap();
            "a byte more"
        }
        2 => {
            let mut lines = lines.clone();
            lines.remove(line);
            write(lines);
            "a record removed"
        }
        3 => {
            let other = dice.below(lines.len());
            let mut swapped = lines.clone();
            swapped.swap(line, other);
            if swapped == lines {
                return None;
            }
            write(swapped);
            "two records swapped"
        }
        4 => {
            let mut lines = lines.clone();
            let copy = lines[dice.below(lines.len())];
            lines.insert(line, copy);
            write(lines);
            "a record inserted"
        }
        5 => {
            let last = files.last().unwrap();
            let text = fs::read(last).unwrap();
            fs::write(last, &text[..dice.below(text.len())]).unwrap();
            "the tail cut"
        }
        6 => {
            let first = fs::read(&files[0]).unwrap();
            fs::write(&files[0], &first[1 + dice.below(first.len() - 1)..]).unwrap();
            "the head cut"
        }
        7 => {
            fs::remove_file(path).unwrap();
            "a file removed"
        }
        _ => {
            let other = &files[dice.below(files.len())];
            if other == path {
                return None;
            }
            let content = fs::read(other).unwrap();
            fs::write(other, text).unwrap();
            fs::write(path, content).unwrap();
            "two files mixed up"
        }
    };
    Some(format!("{what} in {name}, line {}", line + 1))
}

#[test]
fn a_thousand_manipulations_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    let files = written(&settings);
    let good: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let mut tried = 0;
    while tried < 1_000 {
        if let Some(what) = manipulate(&files, &mut dice) {
            tried += 1;
            assert_ne!(findings(&settings), [], "{what}");
        }
        for (file, content) in files.iter().zip(&good) {
            fs::write(file, content).unwrap();
        }
        if tried % 50 == 0 {
            assert_eq!(findings(&settings), [], "what was put back is whole");
        }
    }
}

#[test]
fn what_a_crash_tore_is_set_aside_and_said() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    let files = written(&settings);
    let last = files.last().unwrap();
    let whole = fs::read(last).unwrap();
    fs::write(last, [&whole[..], b"{\"@timestamp\":\"20"].concat()).unwrap();
    run(&settings, |_| {});
    assert_eq!(findings(&settings), []);
    let record = all(&settings).pop().unwrap();
    assert_eq!(
        (record.event.action.as_str(), record.event.original.as_str()),
        ("audit-torn-line", "{\"@timestamp\":\"20")
    );
    assert!(
        !fs::read_dir(&settings.directory)
            .unwrap()
            .any(|entry| { entry.unwrap().file_name().to_string_lossy().starts_with("torn-") })
    );
}

#[test]
fn a_tail_that_was_cut_stays_missing_after_a_start() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    let files = written(&settings);
    let last = files.last().unwrap();
    let text = fs::read(last).unwrap();
    let keep = text[..text.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap();
    fs::write(last, &text[..=keep]).unwrap();
    run(&settings, |audit| tell(audit, "later"));
    let found = findings(&settings);
    assert!(matches!(found[..], [Finding { what: What::Missing { from: 120, to: 120 }, .. }]), "{found:?}");
    assert_eq!(actions(&settings)[119..], ["audit-records-missing", "repaired"]);
    // Without the checkpoint nobody knows of a tail; but then that is said.
    fs::remove_file(settings.directory.join(super::files::CHECKPOINT)).unwrap();
    run(&settings, |_| {});
    assert!(findings(&settings).iter().any(|finding| finding.what == What::CheckpointWasLost));
}

#[test]
fn the_oldest_records_go_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { total_size: 30_000, ..settings(folder.path()) };
    written(&settings);
    assert_eq!(findings(&settings), []);
    let kept = files(&settings.directory).unwrap();
    assert!(kept[0].first > 1 && kept.iter().map(|file| file.size).sum::<u64>() < 40_000, "{kept:?}");
    assert!(actions(&settings).iter().any(|action| action == "audit-retention"));
    fs::remove_file(&kept[0].path).unwrap();
    assert!(matches!(findings(&settings)[0].what, What::HeadCut { .. }));
}

#[test]
fn a_queue_that_nobody_reads_loses_what_it_counts() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    let (audit, inbox) = Audit::new(now);
    for number in 0..super::QUEUE + 500 {
        audit.tell(repaired(&number.to_string()));
    }
    assert_eq!(audit.status().lost[&Kind::Repair], 500);
    audit.stop();
    let shared = Arc::clone(&audit.shared);
    drop(audit);
    Writer::new(settings.clone(), Host::default(), Arc::clone(&shared)).run(&inbox);
    let all = all(&settings);
    assert_eq!((all.len(), all[0].enforcer.lost[&Kind::Repair]), (super::QUEUE, 500));
    assert!(all[1..].iter().all(|record| record.enforcer.lost.is_empty()));
    assert_eq!(lock(&shared.status).written[&Kind::Repair], super::QUEUE as u64);
    assert_eq!(shared.queued.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[test]
fn a_directory_that_is_not_there_is_a_problem_and_costs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    fs::write(&settings.directory, "a file stands in the way").unwrap();
    let directory = settings.directory.clone();
    run(&settings, |audit| {
        audit.tell(repaired("waits"));
        assert!(audit.flushed().blocking_recv().unwrap().unwrap_err().contains("can't be written"));
        assert!(audit.status().problem.is_some());
        fs::remove_file(&directory).unwrap();
        assert_eq!(audit.flushed().blocking_recv().unwrap(), Ok(()));
        assert_eq!(audit.status().problem, None);
    });
    assert_eq!((actions(&settings), findings(&settings)), (vec!["repaired".to_owned()], Vec::new()));
}

#[test]
fn a_file_that_is_changed_while_it_is_written_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    run(&settings, |audit| {
        audit.tell(repaired("one"));
        audit.flushed().blocking_recv().unwrap().unwrap();
        fs::remove_file(&files(&settings.directory).unwrap()[0].path).unwrap();
        audit.tell(repaired("two"));
    });
    assert_eq!(actions(&settings), ["repaired", "audit-file-touched"]);
    assert!(matches!(findings(&settings)[..], [Finding { what: What::HeadCut { from: 1, to: 1 }, .. }]));
}

fn key(peer: u32, outcome: Outcome) -> FlowKey {
    FlowKey {
        subject: 256,
        peer,
        rule: 0,
        port: 80,
        protocol: 6,
        reason: Reason::Isolated as u8,
        direction: Direction::Egress as u8,
        outcome: outcome as u8,
        reserved: 0,
    }
}

/// Counts by peer, summed over all records.
fn counted(settings: &Settings) -> std::collections::BTreeMap<u32, u64> {
    let mut counted = std::collections::BTreeMap::new();
    for verdicts in all(settings).into_iter().filter_map(|record| record.enforcer.verdicts) {
        *counted.entry(verdicts.edge[1]).or_default() += verdicts.count;
    }
    counted
}

#[test]
fn counts_are_those_of_the_kernel_whatever_happens_to_the_agent() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    let sample = |map, rows: &[(FlowKey, u64)]| Sample {
        at: now(),
        epoch: Epoch { boot_id: "boot".into(), map },
        rows: rows.to_vec(),
    };
    let (denied, audited, allowed) =
        (key(1, Outcome::Dropped), key(2, Outcome::Audit), key(3, Outcome::Forwarded));
    run(&settings, |audit| audit.sample(sample(1, &[(denied, 5), (audited, 1), (allowed, 9)])));
    run(&settings, |audit| audit.sample(sample(1, &[(denied, 7), (audited, 1), (allowed, 10)])));
    assert_eq!(counted(&settings), [(1, 7), (2, 1)].into());
    // The state is lost, and read from the records.
    fs::remove_file(settings.directory.join("counted.json")).unwrap();
    run(&settings, |audit| audit.sample(sample(1, &[(denied, 100), (audited, 1)])));
    assert_eq!(counted(&settings), [(1, 100), (2, 1)].into());
    // New maps begin anew.
    run(&settings, |audit| audit.sample(sample(2, &[(denied, 30), (audited, 2)])));
    assert_eq!(counted(&settings), [(1, 130), (2, 3)].into());
    assert_eq!(findings(&settings), []);
}

#[test]
fn the_mode_of_a_file_is_its_owners_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    run(&settings, |audit| tell(audit, "one"));
    for entry in fs::read_dir(&settings.directory).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{entry:?}");
    }
    assert_eq!(fs::metadata(&settings.directory).unwrap().permissions().mode() & 0o777, 0o700);
    let (log, found) = Log::open(&settings).unwrap();
    assert_eq!((log.head().sequence, found), (1, super::files::Found::default()));
}

static CLOCK: AtomicI64 = AtomicI64::new(0);

#[test]
fn a_clock_that_jumps_leaves_order_and_chain() {
    const YEARS: i64 = 315_360_000;
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { file_size: 1 << 20, ..settings(folder.path()) };
    let start = now().seconds;
    let clock = || Timestamp { seconds: CLOCK.load(Ordering::SeqCst), nanos: 0 };
    let host = Host::default();
    let times = [start, start + YEARS, start + 1];
    CLOCK.store(start, Ordering::SeqCst);
    let (audit, thread) = Audit::start(settings.clone(), host, clock).unwrap();
    for (step, time) in (1..).zip(times) {
        CLOCK.store(time, Ordering::SeqCst);
        tell(&audit, &time.to_string());
        let at = Timestamp { seconds: time, nanos: 0 };
        let rows = vec![(key(1, Outcome::Dropped), 10 * step)];
        audit.sample(Sample { at, epoch: Epoch { boot_id: "boot".into(), map: 1 }, rows });
        // A look is taken once a second; each of these is told apart.
        let looked = || {
            all(&settings).iter().filter(|record| record.enforcer.verdicts.is_some()).count() as u64 == step
        };
        for _ in 0..500 {
            audit.flushed().blocking_recv().unwrap().unwrap();
            if looked() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(looked(), "step {step}");
    }
    audit.stop();
    thread.join().unwrap();
    assert_eq!(findings(&settings), []);
    let all = all(&settings);
    assert!(
        all.iter().map(|record| record.event.sequence).eq(1..=all.len() as u64),
        "in the order of events"
    );
    let told: Vec<&str> =
        all.iter().filter(|it| it.event.action == "repaired").map(|it| it.message.as_str()).collect();
    assert!(told.iter().zip(times).all(|(told, time)| told.contains(&time.to_string())), "{told:?}");
    assert_eq!(counted(&settings), [(1, 30)].into());
    let backwards = all.iter().filter(|it| it.event.start.is_some_and(|start| Some(start) > it.event.end));
    assert_eq!(backwards.count(), 0, "no interval ends before it begins");
    // A file for each jump of more than its age, and not one for each record.
    assert_eq!(files(&settings.directory).unwrap().len(), times.len());
}

#[test]
fn names_from_strangers_stay_on_their_line() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    let odd = "a\"b\\c\nd\u{1}\u{2028}é\u{1f980}";
    let labels = LabelSet([("app".to_owned(), odd.to_owned())].into());
    let identity = Arc::new(IdentityKey::new(odd, labels));
    let names = Names { identities: [(IdentityId(256), identity)].into_iter().collect(), ..Names::default() };
    run(&settings, |audit| {
        audit.names(&Arc::new(names));
        audit.flushed().blocking_recv().unwrap().unwrap();
        let rows = vec![(key(1, Outcome::Dropped), 3)];
        audit.sample(Sample { at: now(), epoch: Epoch { boot_id: "boot".into(), map: 1 }, rows });
    });
    assert_eq!(findings(&settings), []);
    let [one] = &all(&settings)[..] else { panic!("one record") };
    assert_eq!(one.labels["source_labels"], format!("app={odd}"));
    assert_eq!(one.source.as_ref().unwrap().address, format!("{odd}/app={odd}"));
    let file = &files(&settings.directory).unwrap()[0].path;
    assert_eq!(fs::read_to_string(file).unwrap().lines().count(), 1, "one record, one line");
}
