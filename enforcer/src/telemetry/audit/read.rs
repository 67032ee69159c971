//! Reading a log, with or without an agent that writes it.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::path::Path;

use super::files::{checkpoint, files};
use crate::domain::audit::chain::{self, Head};
use crate::domain::audit::record::Record;
use crate::domain::audit::verify::{Range, Report, Verifier};

/// Times that a log is read again because its oldest file was removed meanwhile.
const ATTEMPTS: usize = 3;

/// Verifies the log in a directory.
///
/// # Errors
/// If a file can't be read.
pub fn verify(directory: &Path, noted: Option<Head>, range: Range) -> io::Result<Report> {
    let mut attempts = ATTEMPTS;
    loop {
        attempts -= 1;
        // The checkpoint first: the log may grow beyond it while it is read, and is never behind it.
        let before = checkpoint(directory);
        let mut verifier = Verifier::new(before.clone(), noted, range);
        let read = lines(directory, |file, line, text| {
            verifier.line(file, line, text);
            Ok(())
        });
        let is_same = || {
            checkpoint(directory).map(|it| it.map(|it| it.before)) == before.map(|it| it.map(|it| it.before))
        };
        if attempts == 0 || is_same() {
            return read.map(|()| verifier.finish());
        }
    }
}

/// Hands over the records of a range, in order. Lines that are no records are left out: `verify` tells them.
///
/// # Errors
/// If a file can't be read, or what `take` says.
pub fn records(
    directory: &Path,
    range: Range,
    mut take: impl FnMut(&str, Record) -> io::Result<()>,
) -> io::Result<()> {
    lines(directory, |_, _, text| {
        let Ok(opened) = chain::open(text) else { return Ok(()) };
        if !range.contains(opened.sequence, opened.timestamp) {
            return Ok(());
        }
        let Ok(line) = std::str::from_utf8(text) else { return Ok(()) };
        match serde_json::from_str(line) {
            Ok(record) => take(line, record),
            Err(_) => Ok(()),
        }
    })
}

/// All lines of all files. What an agent is writing at this moment has no newline yet and is not read as a line, but for
/// what stands at the end of a file that is not the last.
fn lines(directory: &Path, mut take: impl FnMut(&str, u64, &[u8]) -> io::Result<()>) -> io::Result<()> {
    for kept in files(directory)? {
        let name = kept.path.display().to_string();
        let mut reader = BufReader::new(File::open(&kept.path)?);
        let mut text = Vec::new();
        let mut number = 0;
        while reader.read_until(b'\n', &mut text)? > 0 {
            number += 1;
            take(&name, number, text.strip_suffix(b"\n").unwrap_or(&text))?;
            text.clear();
        }
    }
    Ok(())
}
