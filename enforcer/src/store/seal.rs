//! Files that can tell whether they are what was written.
//!
//! A document that was cut short at the end of a line, or in which one letter changed, may well be a valid one with
//! another meaning. So every file ends with a line that counts and sums up what is before it.

use std::io::{self, Write};

/// How that line begins: as a comment, for those who read the files.
const MARK: &[u8] = b"# sealed: ";

/// Passes a content on, and its seal behind it.
#[derive(Debug)]
pub(super) struct Sealing<W> {
    to: W,
    length: u64,
    sum: crc32fast::Hasher,
}

impl<W: Write> Sealing<W> {
    pub(super) fn new(to: W) -> Self {
        Self { to, length: 0, sum: crc32fast::Hasher::new() }
    }

    /// Writes the seal.
    pub(super) fn finish(mut self) -> io::Result<W> {
        let line = line(self.length, self.sum.finalize());
        self.to.write_all(b"\n")?;
        self.to.write_all(MARK)?;
        self.to.write_all(line.as_bytes())?;
        self.to.write_all(b"\n")?;
        Ok(self.to)
    }
}

impl<W: Write> Write for Sealing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.length += written as u64;
        self.sum.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// The content of a file, if its seal says that it is whole.
pub(super) fn open(file: &[u8]) -> Result<&[u8], &'static str> {
    const MISSING: &str = "its last line is no seal: it was cut short, or not written by this agent";
    let line = file.strip_suffix(b"\n").ok_or(MISSING)?;
    let end = line.iter().rposition(|byte| *byte == b'\n').ok_or(MISSING)?;
    let found = line.get(end + 1..).and_then(|line| line.strip_prefix(MARK)).ok_or(MISSING)?;
    let content = line.get(..end).ok_or(MISSING)?;
    if found == sum(content).as_bytes() { Ok(content) } else { Err("it is not what its seal was made for") }
}

fn sum(content: &[u8]) -> String {
    line(content.len() as u64, crc32fast::hash(content))
}

fn line(length: u64, sum: u32) -> String {
    format!("{length} bytes, crc32 {sum:08x}")
}

/// The content with its seal.
#[cfg(test)]
pub(super) fn seal(content: &[u8]) -> Vec<u8> {
    let mut sealing = Sealing::new(Vec::new());
    // Piece by piece, as files are written.
    content.chunks(3).for_each(|piece| sealing.write_all(piece).expect("memory takes everything"));
    sealing.finish().expect("memory takes everything")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_is_opened_and_nothing_else() {
        for content in
            [&b""[..], b"a", b"a: b\n", b"{\"version\":1}", b"a\n# sealed: 1 bytes, crc32 00000000\n"]
        {
            let sealed = seal(content);
            assert_eq!(open(&sealed), Ok(content));
            for at in 0..sealed.len() {
                assert!(open(&sealed[..at]).is_err(), "cut at {at}");
                for bit in 0..8 {
                    let mut other = sealed.clone();
                    other[at] ^= 1 << bit;
                    assert!(open(&other).is_err(), "bit {bit} of byte {at}");
                }
            }
            assert!(open(content).is_err());
        }
    }
}
