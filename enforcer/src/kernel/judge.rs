//! The verdict function as the kernel runs it, asked directly (`BPF_PROG_TEST_RUN`), so that kernel and host can be
//! compared on the same questions. Nothing is attached for it, and nothing is counted.

use std::mem::{offset_of, size_of};

use aya::Ebpf;
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use enforcer_common::abi::probe::{Answer, Question};
use enforcer_common::verdict::{Query, Verdict, Word};

use super::error::Error;

const PROGRAM: &str = "judge";
const QUESTION: usize = size_of::<Question>();
const PACKET: usize = QUESTION + size_of::<Answer>();

/// Asks the published table; the program is loaded with the first question.
pub(super) fn judge(ebpf: &mut Ebpf, query: &Query) -> Result<Verdict, Error> {
    let refused = |source| Error::Program { program: PROGRAM, source: Box::new(source) };
    let program: &mut SchedClassifier =
        ebpf.program_mut(PROGRAM).ok_or(Error::MissingProgram(PROGRAM))?.try_into().map_err(refused)?;
    if program.fd().is_err() {
        program.load().map_err(refused)?;
    }
    let packet = packet(query);
    let mut answer = [0; PACKET];
    let mut options = TestRunOptions::new();
    options.data_in = Some(&packet);
    options.data_out = Some(&mut answer);
    let result = program.test_run(options).map_err(refused)?;
    if result.return_value != 0 {
        return Err(Error::NoAnswer { code: result.return_value });
    }
    let word = |field| Word(u64_at(&answer, QUESTION + field));
    Ok(Verdict {
        enforced: word(offset_of!(Answer, enforced)),
        hypothetical: word(offset_of!(Answer, hypothetical)),
    })
}

/// The question, and room for the answer behind it.
fn packet(query: &Query) -> [u8; PACKET] {
    let mut packet = [0; PACKET];
    let fields: [(usize, &[u8]); 7] = [
        (offset_of!(Question, high), &query.address.high.to_ne_bytes()),
        (offset_of!(Question, low), &query.address.low.to_ne_bytes()),
        (offset_of!(Question, subject), &query.subject.0.to_ne_bytes()),
        (offset_of!(Question, peer), &query.peer.0.to_ne_bytes()),
        (offset_of!(Question, port), &query.port.to_ne_bytes()),
        (offset_of!(Question, protocol), &[query.protocol]),
        (offset_of!(Question, direction), &[query.direction as u8]),
    ];
    for (start, bytes) in fields {
        packet[start..start + bytes.len()].copy_from_slice(bytes);
    }
    packet
}

fn u64_at(bytes: &[u8], start: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[start..start + 8]);
    u64::from_ne_bytes(word)
}
