//! The chain and its verifier, on values. What a log on disk is worth is tried in `telemetry::audit`.

use super::Kind;
use super::chain::{Checkpoint, Hash, Head, open, seal};
use super::export::ocsf;
use super::record::{Action, Host, Place, Record, Verdicts};
use super::verify::{Bound, Range, Report, Verifier, What};
use crate::domain::timestamp::Timestamp;

const ACTION: Action = Action {
    kind: Kind::Verdict,
    action: "flow-denied",
    category: "network",
    types: &["denied"],
    outcome: "failure",
};

fn record(number: u64) -> Record {
    let at = Timestamp { seconds: 1_000 + i64::try_from(number).unwrap(), nanos: 0 };
    let mut record = Record::new(at, &Host::default(), ACTION, format!("a \"quoted\"\nline, é, {number}"));
    record.source = Some(Place { address: "default/web".into(), ..Place::default() });
    record.enforcer.verdicts = Some(Verdicts { count: number, ..Verdicts::default() });
    record
}

fn log(count: u64) -> (Vec<String>, Checkpoint) {
    let mut at = Head::default();
    let lines = (1..=count).map(|number| {
        let (line, head) = seal(at, &mut record(number)).unwrap();
        at = head;
        line
    });
    let lines = lines.collect();
    (lines, Checkpoint { before: Head::default(), last: at })
}

fn verify(lines: &[String], checkpoint: Checkpoint, range: Range) -> Report {
    let mut verifier = Verifier::new(Ok(Some(checkpoint)), None, range);
    for (number, line) in (1..).zip(lines) {
        verifier.line("log", number, line.as_bytes());
    }
    verifier.finish()
}

fn found(lines: &[String], checkpoint: Checkpoint) -> Vec<What> {
    verify(lines, checkpoint, Range::default()).findings.into_iter().map(|finding| finding.what).collect()
}

#[test]
fn a_line_is_what_was_sealed() {
    let (lines, checkpoint) = log(2);
    let opened = open(lines[1].as_bytes()).unwrap();
    assert!(opened.is_whole);
    assert_eq!(opened.head(), checkpoint.last);
    assert_eq!(opened.previous, open(lines[0].as_bytes()).unwrap().hash);
    assert!(!lines[1].contains('\n'));
    let read: Record = serde_json::from_str(&lines[1]).unwrap();
    assert_eq!(read.message, "a \"quoted\"\nline, é, 2");
    assert_eq!(read.event.sequence, 2);
    let value: serde_json::Value = serde_json::from_str(&lines[1]).unwrap();
    assert_eq!(value["event"]["hash"], checkpoint.last.hash.to_string());
    assert_eq!(value["@timestamp"], "1970-01-01T00:16:42.000000000Z");
    assert_eq!(value["enforcer"]["verdicts"]["count"], 2);
}

#[test]
fn what_is_whole_raises_no_alarm() {
    for count in [0, 1, 2, 100] {
        let (lines, checkpoint) = log(count);
        let report = verify(&lines, checkpoint, Range::default());
        assert_eq!((report.findings, report.records, report.head), (Vec::new(), count, checkpoint.last));
    }
    // More than the checkpoint knows: it is written behind the log.
    let (lines, _) = log(5);
    let (_, checkpoint) = log(3);
    assert_eq!(found(&lines, checkpoint), []);
}

#[test]
fn each_manipulation_has_its_name() {
    let (lines, checkpoint) = log(9);
    let with = |change: &dyn Fn(&mut Vec<String>)| {
        let mut lines = lines.clone();
        change(&mut lines);
        found(&lines, checkpoint)
    };
    assert_eq!(with(&|lines| lines[4] = lines[4].replace("quoted", "Quoted")), [What::Changed]);
    assert_eq!(with(&|lines| lines[4] = lines[4].replacen("\":", "\": ", 1)), [What::Changed]);
    assert_eq!(with(&|lines| drop(lines.remove(4))), [What::Missing { from: 5, to: 5 }]);
    assert_eq!(with(&|lines| drop(lines.drain(..2))), [What::HeadCut { from: 1, to: 2 }]);
    assert_eq!(with(&|lines| lines.truncate(6)), [What::TailCut { from: 7, to: 9 }]);
    assert_eq!(with(&|lines| lines.clear()), [What::TailCut { from: 1, to: 9 }]);
    assert_eq!(with(&|lines| lines.insert(4, lines[3].clone())), [What::Misplaced { expected: 5 }]);
    let swapped = with(&|lines| lines.swap(3, 4));
    assert_eq!(swapped[0], What::Missing { from: 4, to: 4 });
    // A record of one's own with a hash of its own: what follows does not hang on it.
    let forged = |lines: &mut Vec<String>| {
        let before = open(lines[3].as_bytes()).unwrap().head();
        lines[4] = seal(before, &mut record(500)).unwrap().0;
    };
    assert_eq!(with(&|lines| forged(lines)), [What::Detached]);
    // The same with the last record: only the checkpoint knows.
    let forged = |lines: &mut Vec<String>| {
        let before = open(lines[7].as_bytes()).unwrap().head();
        lines[8] = seal(before, &mut record(500)).unwrap().0;
    };
    assert_eq!(with(&|lines| forged(lines)), [What::Replaced]);
    let unreadable = with(&|lines| lines[4] = "{}".into());
    assert!(matches!(unreadable[..], [What::Unreadable(_)]), "{unreadable:?}");
}

#[test]
fn a_noted_head_finds_a_log_that_was_written_anew() {
    let (lines, checkpoint) = log(5);
    let noted = Head { sequence: 3, hash: Hash::of(b"another log") };
    let verify = |noted: Head| {
        let mut verifier = Verifier::new(Ok(Some(checkpoint)), Some(noted), Range::default());
        for line in &lines {
            verifier.line("log", 1, line.as_bytes());
        }
        verifier.finish().findings.into_iter().map(|finding| finding.what).collect::<Vec<_>>()
    };
    assert_eq!(verify(noted), [What::Replaced]);
    assert_eq!(verify(open(lines[2].as_bytes()).unwrap().head()), []);
    assert_eq!(verify(Head { sequence: 6, ..noted }), [What::NotReached]);
}

#[test]
fn a_range_tells_its_own_findings() {
    let (mut lines, checkpoint) = log(9);
    lines[2] = lines[2].replace("quoted", "Quoted");
    lines[6] = lines[6].replace("quoted", "Quoted");
    let within = |from, to| {
        let report = verify(&lines, checkpoint, Range { from, to });
        report.findings.into_iter().map(|finding| finding.sequence).collect::<Vec<_>>()
    };
    assert_eq!(within(None, None), [Some(3), Some(7)]);
    assert_eq!(within(Some(Bound::Sequence(4)), None), [Some(7)]);
    let at = |seconds| Some(Bound::Time(Timestamp { seconds, nanos: 0 }));
    assert_eq!(within(at(1_003), at(1_006)), [Some(3)]);
}

#[test]
fn a_checkpoint_is_read_back_or_refused() {
    let (_, checkpoint) = log(3);
    let text = checkpoint.encode().unwrap();
    assert_eq!(Checkpoint::decode(text.as_bytes()), Ok(checkpoint));
    let lower = text.replacen("\"sequence\":3", "\"sequence\":2", 1);
    assert_ne!(lower, text);
    assert!(Checkpoint::decode(lower.as_bytes()).is_err());
    assert!(Checkpoint::decode(b"").is_err());
    let head = checkpoint.last;
    assert_eq!(head.to_string().parse::<Head>(), Ok(head));
    assert!("3:abc".parse::<Head>().is_err());
}

#[test]
fn a_verdict_is_network_activity_in_ocsf() {
    let event = ocsf(&record(7)).unwrap();
    for (key, value) in
        [("class_uid", 4001), ("type_uid", 400_105), ("time", 1_007_000), ("action_id", 2), ("count", 7)]
    {
        assert_eq!(event[key], value, "{key}");
    }
    assert_eq!(event["src_endpoint"]["name"], "default/web");
}
