//! The chain: each line ends with a hash over the hash before it and every byte of its own.
//!
//! There is no canonical form to argue about. The text that is hashed is the line itself without its last member, so a
//! byte more or less, even white space between members, is a changed record.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::record::Record;
use crate::domain::timestamp::Timestamp;

/// A SHA-256 hash; 64 hexadecimal digits as text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// What stands before the first record of all.
    pub const GENESIS: Self = Self([0; 32]);

    /// The hash of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The hash of a record's text behind this one.
    fn then(self, text: &[u8]) -> Self {
        Self(Sha256::new().chain_update(self.0).chain_update(text).finalize().into())
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Lower case only: there is one way to write a hash.
impl FromStr for Hash {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no SHA-256 hash of 64 hexadecimal digits");
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let digits: Option<Vec<u8>> = text.bytes().map(digit).collect();
        let digits = digits.filter(|digits| digits.len() == 64).ok_or_else(wrong)?;
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(digits.chunks(2)) {
            *byte = pair[0] << 4 | pair[1];
        }
        Ok(Self(hash))
    }
}

impl TryFrom<String> for Hash {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Hash> for String {
    fn from(hash: Hash) -> Self {
        hash.to_string()
    }
}

/// A place in the chain: a record and its hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// Sequence number of the record; 0 before the first.
    pub sequence: u64,
    /// Its hash.
    pub hash: Hash,
}

/// `1234:9f86...`, to be noted down elsewhere.
impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.sequence, self.hash)
    }
}

impl FromStr for Head {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no SEQUENCE:HASH as `enforcer audit verify` prints it");
        let (sequence, hash) = text.split_once(':').ok_or_else(wrong)?;
        let sequence = sequence.parse().ok().ok_or_else(wrong)?;
        Ok(Self { sequence, hash: hash.parse()? })
    }
}

/// What is kept beside the log, so that a missing head or tail is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// What stood before the oldest record that is kept.
    pub before: Head,
    /// The last record that was written (and flushed, if the log flushes).
    pub last: Head,
}

/// A checkpoint with its own hash behind it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed {
    checkpoint: Checkpoint,
    hash: Hash,
}

impl Checkpoint {
    /// The text of its file.
    pub fn encode(&self) -> Result<String, serde_json::Error> {
        let hash = Hash::of(&serde_json::to_vec(self)?);
        serde_json::to_string(&Sealed { checkpoint: *self, hash }).map(|text| text + "\n")
    }

    /// Reads the text of its file.
    ///
    /// # Errors
    /// Says in a sentence what is wrong with it.
    pub fn decode(text: &[u8]) -> Result<Self, String> {
        let sealed: Sealed =
            serde_json::from_slice(text).map_err(|error| format!("it is no checkpoint: {error}"))?;
        let content = serde_json::to_vec(&sealed.checkpoint).map_err(|error| error.to_string())?;
        if Hash::of(&content) == sealed.hash {
            Ok(sealed.checkpoint)
        } else {
            Err("its hash is not that of its content".to_owned())
        }
    }
}

/// How a line ends: the last member of `event`, which is the last member of the record.
const BEFORE_HASH: &str = ",\"hash\":\"";
const AFTER_HASH: &str = "\"}}";
/// Bytes of a hash as text.
const DIGITS: usize = 64;

/// The line of a record behind `before` (without the newline), and the place that it has in the chain.
///
/// # Errors
/// What `serde_json` refuses, which no record contains.
pub fn seal(before: Head, record: &mut Record) -> Result<(String, Head), serde_json::Error> {
    record.event.sequence = before.sequence + 1;
    record.enforcer.previous_hash = before.hash;
    let mut line = serde_json::to_string(record)?;
    let hash = before.hash.then(line.as_bytes());
    line.truncate(line.len() - 2);
    line.extend([BEFORE_HASH, &hash.to_string(), AFTER_HASH]);
    Ok((line, Head { sequence: before.sequence + 1, hash }))
}

/// What a line says of its place in the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Its sequence number.
    pub sequence: u64,
    /// The hash that it says stands before it.
    pub previous: Hash,
    /// The hash at its end.
    pub hash: Hash,
    /// Whether that is the hash of what it says.
    pub is_whole: bool,
    /// When it was written.
    pub timestamp: Timestamp,
}

impl Opened {
    /// Its place in the chain.
    pub fn head(&self) -> Head {
        Head { sequence: self.sequence, hash: self.hash }
    }
}

#[derive(Deserialize)]
struct Place {
    #[serde(rename = "@timestamp")]
    timestamp: Timestamp,
    event: Sequence,
    enforcer: Previous,
}

#[derive(Deserialize)]
struct Sequence {
    sequence: u64,
}

#[derive(Deserialize)]
struct Previous {
    previous_hash: Hash,
}

/// Reads a line (without its newline).
///
/// # Errors
/// Says why it is no record.
pub fn open(line: &[u8]) -> Result<Opened, String> {
    let Ok(line) = std::str::from_utf8(line) else { return Err("it is no UTF-8 text".to_owned()) };
    let unsealed = || "it does not end with a hash".to_owned();
    let rest = line.strip_suffix(AFTER_HASH).ok_or_else(unsealed)?;
    let at = rest.len().checked_sub(DIGITS).ok_or_else(unsealed)?;
    let (rest, digits) = rest.split_at_checked(at).ok_or_else(unsealed)?;
    let hash: Hash = digits.parse()?;
    let text = rest.strip_suffix(BEFORE_HASH).ok_or_else(unsealed)?.to_owned() + "}}";
    let place: Place = serde_json::from_str(&text).map_err(|error| format!("it is no record: {error}"))?;
    let previous = place.enforcer.previous_hash;
    let is_whole = previous.then(text.as_bytes()) == hash;
    let (sequence, timestamp) = (place.event.sequence, place.timestamp);
    Ok(Opened { sequence, previous, hash, is_whole, timestamp })
}
