//! Lines of the audit log and its checkpoint, as somebody may have left them.
#![cfg_attr(feature = "libfuzzer", no_main)]

#[cfg(not(feature = "libfuzzer"))]
use enforcer_fuzz::fuzz_target;
#[cfg(feature = "libfuzzer")]
use libfuzzer_sys::fuzz_target;

use enforcer::domain::audit::chain::{self, Checkpoint, Head};
use enforcer::domain::audit::record::Record;
use enforcer::domain::audit::verify::{Range, Verifier};

fuzz_target!(|data: &[u8]| {
    // The first line may be a checkpoint; whatever it is, the lines behind it are followed.
    let lines: Vec<&[u8]> = data.split(|byte| *byte == b'\n').collect();
    let checkpoint = Checkpoint::decode(lines[0]).map(Some);
    let follow = |lines: &[&[u8]], checkpoint| {
        let mut verifier = Verifier::new(checkpoint, None, Range::default());
        for (line, number) in lines.iter().zip(1..) {
            verifier.line("audit.json", number, line);
        }
        verifier.finish()
    };
    let report = follow(&lines, checkpoint);
    assert!(report.findings.iter().all(|finding| !finding.to_string().is_empty()));

    // What can be read as records makes a chain in which nothing is wrong, until a byte of it is changed.
    let mut sealed = Vec::new();
    let mut head = Head::default();
    for line in &lines {
        let Ok(mut record) = serde_json::from_slice::<Record>(line) else { continue };
        let (line, next) = chain::seal(head, &mut record).expect("a record is JSON");
        let opened = chain::open(line.as_bytes()).expect("what was sealed can be opened");
        assert!(opened.is_whole && opened.head() == next && opened.previous == head.hash);
        assert_eq!(serde_json::from_str::<Record>(&line).expect("a record"), record);
        sealed.push(line.into_bytes());
        head = next;
    }
    if sealed.is_empty() {
        return;
    }
    let checkpoint = Checkpoint { before: Head::default(), last: head };
    let again = Checkpoint::decode(checkpoint.encode().expect("a checkpoint is JSON").as_bytes());
    assert_eq!(again, Ok(checkpoint));
    let borrowed: Vec<&[u8]> = sealed.iter().map(Vec::as_slice).collect();
    let said = "\"action\":\"audit-checkpoint-lost\"";
    let is_clean = follow(&borrowed, Ok(Some(checkpoint))).findings.is_empty();
    assert!(is_clean || data.windows(said.len()).any(|part| part == said.as_bytes()));
    let place = data.len() % sealed.len();
    let byte = data.iter().map(|byte| usize::from(*byte)).sum::<usize>() % sealed[place].len();
    sealed[place][byte] ^= 1;
    let borrowed: Vec<&[u8]> = sealed.iter().map(Vec::as_slice).collect();
    assert!(!follow(&borrowed, Ok(Some(checkpoint))).findings.is_empty(), "byte {byte} of line {place}");
});
