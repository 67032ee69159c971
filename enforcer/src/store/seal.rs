//! Files that can tell whether they are what was written.
//!
//! A document that was cut short at the end of a line, or in which one letter changed, may well be a valid one with
//! another meaning. So every file ends with a line that counts and sums up what is before it.

/// How that line begins: as a comment, for those who read the files.
const MARK: &[u8] = b"# sealed: ";

/// The content with its seal.
pub(super) fn seal(content: &[u8]) -> Vec<u8> {
    let mut sealed = content.to_vec();
    sealed.push(b'\n');
    sealed.extend(MARK);
    sealed.extend(sum(content).as_bytes());
    sealed.push(b'\n');
    sealed
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
    format!("{} bytes, crc32 {:08x}", content.len(), crc32fast::hash(content))
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
