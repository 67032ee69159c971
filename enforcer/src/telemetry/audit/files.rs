//! The log on disk.
//!
//! ```text
//! STATE_DIR/audit/           0700
//!   audit-NUMBER.jsonl       records, one a line; NUMBER is that of the first. The last file is written to
//!   checkpoint.json          the oldest kept and the newest record, see [`Checkpoint`]
//!   counted.json             what was made records of, up to a record; what is newer is read from the records
//!   torn-NUMBER              what stood behind the last whole record at a start, until record NUMBER says so
//! ```
//!
//! Invariants: a line is added whole or taken away again; a file's name says where it belongs, so that no rename has to
//! happen for a rotation; the checkpoint follows the log (and its flush) and never goes ahead of it.

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::domain::audit::chain::{self, Checkpoint, Head};
use crate::domain::audit::record::Record;
use crate::domain::timestamp::Timestamp;

const PREFIX: &str = "audit-";
const SUFFIX: &str = ".jsonl";
/// The checkpoint's file.
pub const CHECKPOINT: &str = "checkpoint.json";
const TORN: &str = "torn-";
/// What is longer than this is kept in its file, because no record should hold it.
const TORN_LIMIT: usize = 64 << 10;

/// When what was written has to be on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// Before anything else happens.
    Always,
    /// Within a second.
    Interval,
    /// When the kernel likes.
    Never,
}

/// Where the log is and how much is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Its directory.
    pub directory: PathBuf,
    /// Bytes after which a new file begins.
    pub file_size: u64,
    /// Time after which a new file begins.
    pub file_age: Duration,
    /// Bytes of all files together; beyond it the oldest goes.
    pub total_size: u64,
    /// When what was written has to be on disk.
    pub flush: Flush,
}

/// A file of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Where it is.
    pub path: PathBuf,
    /// Number of its first record, as its name says.
    pub first: u64,
    /// Its size in bytes.
    pub size: u64,
}

/// What a start found that was not as an end leaves it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Bytes behind the last whole record.
    pub(super) torn: Vec<u8>,
    /// The file that keeps them, where they are too many for a record.
    pub(super) torn_kept: Option<PathBuf>,
    /// Records that the checkpoint knows and the files do not.
    pub(super) missing: Option<(u64, u64)>,
    /// What is wrong with the checkpoint.
    pub(super) no_checkpoint: Option<String>,
}

/// What happened besides, and deserves a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// The oldest records were removed, because there is no room for them.
    Removed { from: u64, to: u64 },
    /// Somebody changed or removed the file that is written to.
    Touched { path: PathBuf },
}

/// The log, open for writing.
#[derive(Debug)]
pub(super) struct Log {
    settings: Settings,
    files: VecDeque<Kept>,
    file: Option<File>,
    /// When the first record of the file was written.
    since: Timestamp,
    checkpoint: Checkpoint,
    head: Head,
    /// Something was written since the last flush.
    dirty: bool,
    torn: Option<PathBuf>,
    /// What happened and was not told yet.
    notices: Vec<Notice>,
}

/// All files of a log, the oldest first.
///
/// # Errors
/// If the directory can't be listed.
pub fn files(directory: &Path) -> io::Result<Vec<Kept>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let number =
            name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse().ok());
        if let Some(first) = number {
            files.push(Kept { path: entry.path(), first, size: entry.metadata()?.len() });
        }
    }
    files.sort_by_key(|file| file.first);
    Ok(files)
}

/// What the checkpoint says; `Ok(None)` if there is none.
///
/// # Errors
/// Says in a sentence what is wrong with it.
pub fn checkpoint(directory: &Path) -> Result<Option<Checkpoint>, String> {
    let path = directory.join(CHECKPOINT);
    match fs::read(&path) {
        Ok(text) => {
            Checkpoint::decode(&text).map(Some).map_err(|problem| format!("{}: {problem}", path.display()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("read {}: {error}", path.display())),
    }
}

impl Log {
    /// Opens the log behind its last whole record, and tells what was not as it should be.
    pub(super) fn open(settings: &Settings) -> io::Result<(Self, Found)> {
        let directory = &settings.directory;
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let mut files: VecDeque<Kept> = files(directory)?.into();
        let mut found = Found::default();
        let checkpoint = checkpoint(directory).unwrap_or_else(|problem| {
            found.no_checkpoint = Some(problem);
            None
        });
        let (tail, since, torn) = whole_end(&mut files)?;
        let tail_head = tail.unwrap_or_default();
        if checkpoint.is_none() && tail.is_some() && found.no_checkpoint.is_none() {
            found.no_checkpoint = Some(format!("{} is not there", directory.join(CHECKPOINT).display()));
        }
        let mut head = tail_head;
        if let Some(Checkpoint { last, .. }) = checkpoint {
            if last.sequence > tail_head.sequence {
                found.missing = Some((tail_head.sequence + 1, last.sequence));
            }
            // The place of a record that is gone or was replaced stays empty, for whoever verifies.
            if last.sequence >= tail_head.sequence {
                head = last;
            }
        }
        let before = match checkpoint {
            Some(checkpoint) => checkpoint.before,
            None => files.front().and_then(|file| before(&file.path)).unwrap_or(if tail.is_some() {
                Head::default()
            } else {
                head
            }),
        };
        let mut log = Self {
            settings: settings.clone(),
            files,
            file: None,
            since,
            checkpoint: Checkpoint { before, last: head },
            head,
            dirty: false,
            torn: None,
            notices: Vec::new(),
        };
        log.set_aside(&torn, &mut found)?;
        Ok((log, found))
    }

    /// Puts what stands behind the last whole record into a file of its own, and cuts it off.
    fn set_aside(&mut self, torn: &[u8], found: &mut Found) -> io::Result<()> {
        let mut aside = None;
        for entry in fs::read_dir(&self.settings.directory)? {
            let path = entry?.path();
            let is_torn = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(TORN));
            if is_torn && fs::metadata(&path)?.len() <= TORN_LIMIT as u64 {
                aside = Some(path);
            }
        }
        if torn.is_empty() {
            if let Some(path) = &aside {
                found.torn = fs::read(path)?;
            }
        } else {
            let path = self.settings.directory.join(format!("{TORN}{:020}", self.head.sequence + 1));
            write_whole(&path, torn)?;
            found.torn = torn.to_vec();
            if torn.len() > TORN_LIMIT {
                found.torn_kept = Some(path);
            } else {
                aside = Some(path);
            }
            if let Some(file) = self.files.back() {
                let open = OpenOptions::new().write(true).open(&file.path)?;
                open.set_len(file.size)?;
                open.sync_all()?;
            }
        }
        self.torn = aside;
        Ok(())
    }

    /// The newest record.
    pub(super) fn head(&self) -> Head {
        self.head
    }

    /// The files, the oldest first.
    pub(super) fn files(&self) -> impl Iterator<Item = &Kept> {
        self.files.iter()
    }

    /// Adds records, all or none. What else happened since records were added last.
    pub(super) fn append(&mut self, records: &mut [Record], now: Timestamp) -> io::Result<Vec<Notice>> {
        self.make_room(now)?;
        let mut text = String::new();
        let mut head = self.head;
        for record in records {
            let (line, next) = chain::seal(head, record).map_err(io::Error::other)?;
            text.extend([&line, "\n"]);
            head = next;
        }
        let (Some(file), Some(kept)) = (&mut self.file, self.files.back_mut()) else {
            return Err(io::Error::other("no file is open"));
        };
        let flush = self.settings.flush == Flush::Always;
        let written =
            file.write_all(text.as_bytes()).and_then(|()| if flush { file.sync_data() } else { Ok(()) });
        if let Err(error) = written {
            // A part of it may be there. If it can't be cut off now, the next attempt finds a file of another size than it
            // should have, and goes on in a new one.
            file.set_len(kept.size).ok();
            return Err(error);
        }
        kept.size += text.len() as u64;
        self.head = head;
        self.dirty = true;
        if let Some(torn) = self.torn.take() {
            fs::remove_file(torn)?;
        }
        if flush {
            self.flush()?;
        }
        Ok(std::mem::take(&mut self.notices))
    }

    /// Brings what was written to the disk, as the settings say, and the checkpoint after it.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if !self.dirty {
            return Ok(());
        }
        if let (Some(file), true) = (&self.file, self.settings.flush == Flush::Interval) {
            file.sync_data()?;
        }
        self.checkpoint.last = self.head;
        self.write_checkpoint()?;
        self.dirty = false;
        Ok(())
    }

    fn write_checkpoint(&self) -> io::Result<()> {
        let text = self.checkpoint.encode().map_err(io::Error::other)?;
        let path = self.settings.directory.join(CHECKPOINT);
        if self.settings.flush == Flush::Never {
            write_unflushed(&path, text.as_bytes())
        } else {
            write_whole(&path, text.as_bytes())
        }
    }

    /// Begins a new file where the present one is full, old, or not what was written; removes the oldest beyond the limit.
    fn make_room(&mut self, now: Timestamp) -> io::Result<()> {
        // Also where the clock was set back: else no file would be old until the clock is there again.
        let age = now.seconds.abs_diff(self.since.seconds);
        let mut begin = self.files.back().is_none_or(|file| file.size >= self.settings.file_size)
            || age >= self.settings.file_age.as_secs();
        if let (None, Some(file), false) = (&self.file, self.files.back(), begin) {
            self.file = Some(OpenOptions::new().append(true).open(&file.path)?);
        }
        if let (Some(file), Some(kept)) = (&self.file, self.files.back()) {
            let seen = file.metadata()?;
            // Not the name: a file that was moved away is found when it is verified.
            if seen.nlink() == 0 || seen.len() != kept.size {
                self.notices.push(Notice::Touched { path: kept.path.clone() });
                begin = true;
            }
        }
        if begin {
            if self.dirty {
                self.flush()?;
            }
            self.begin_file(now)?;
        }
        let mut total: u64 = self.files.iter().map(|file| file.size).sum();
        while total > self.settings.total_size && self.files.len() > 1 {
            let (oldest, next) = (self.files[0].clone(), &self.files[1]);
            // The checkpoint first: what it does not ask for may be gone, and not the reverse. An unreadable file's place
            // is told by its name.
            let next_before = before(&next.path);
            self.checkpoint.before = next_before.unwrap_or(if next.first == self.head.sequence + 1 {
                self.head
            } else {
                Head { sequence: next.first - 1, ..self.checkpoint.before }
            });
            self.write_checkpoint()?;
            fs::remove_file(&oldest.path)?;
            self.notices.push(Notice::Removed { from: oldest.first, to: next.first - 1 });
            total -= oldest.size;
            self.files.pop_front();
        }
        Ok(())
    }

    fn begin_file(&mut self, now: Timestamp) -> io::Result<()> {
        let first = self.head.sequence + 1;
        let path = self.settings.directory.join(format!("{PREFIX}{first:020}{SUFFIX}"));
        // A file of this name that has no record in it is what an attempt left that failed.
        if self.files.back().is_some_and(|file| file.first == first) {
            fs::remove_file(&path).or_else(gone_is_well)?;
            self.files.pop_back();
        }
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&path)?;
        if self.settings.flush != Flush::Never {
            File::open(&self.settings.directory)?.sync_all()?;
        }
        self.file = Some(file);
        self.files.push_back(Kept { path, first, size: 0 });
        self.since = now;
        Ok(())
    }
}

fn gone_is_well(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// The last whole record of the files, when the first record of its file was written, and what stands behind it. Files
/// are left as far as they are whole.
fn whole_end(files: &mut VecDeque<Kept>) -> io::Result<(Option<Head>, Timestamp, Vec<u8>)> {
    let mut torn = Vec::new();
    while let Some(file) = files.back_mut() {
        let content = fs::read(&file.path)?;
        let (end, head) = last_whole(&content);
        let mut behind = content[end..].to_vec();
        behind.append(&mut torn);
        torn = behind;
        if let Some(head) = head {
            file.size = end as u64;
            let since = content.split(|byte| *byte == b'\n').find_map(|line| chain::open(line).ok());
            return Ok((Some(head), since.map_or(Timestamp::EARLIEST, |opened| opened.timestamp), torn));
        }
        if files.len() == 1 {
            break;
        }
        // Nothing in it is whole, so a crash came with its first record.
        let Some(file) = files.pop_back() else { break };
        if content.is_empty() {
            fs::remove_file(&file.path)?;
        } else {
            fs::rename(&file.path, file.path.with_extension("damaged"))?;
        }
    }
    if let Some(file) = files.back_mut() {
        file.size = 0;
    }
    Ok((None, Timestamp::EARLIEST, torn))
}

/// Where the last whole record ends (behind its newline), and its place in the chain.
fn last_whole(content: &[u8]) -> (usize, Option<Head>) {
    let mut end = content.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    while end > 0 {
        let begin = content[..end - 1].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        match chain::open(&content[begin..end - 1]) {
            Ok(opened) if opened.is_whole => return (end, Some(opened.head())),
            _ => end = begin,
        }
    }
    (0, None)
}

/// What stands before the first record of a file.
fn before(path: &Path) -> Option<Head> {
    use std::io::{BufRead as _, BufReader};
    let mut line = Vec::new();
    BufReader::new(File::open(path).ok()?).read_until(b'\n', &mut line).ok()?;
    let opened = chain::open(line.strip_suffix(b"\n")?).ok()?;
    Some(Head { sequence: opened.sequence - 1, hash: opened.previous })
}

/// Writes a file that is whole or as it was, and on disk.
pub(super) fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    let file = write_beside(path, content)?;
    file.1.sync_all()?;
    fs::rename(&file.0, path)?;
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

/// The same, on disk when the kernel likes.
fn write_unflushed(path: &Path, content: &[u8]) -> io::Result<()> {
    let file = write_beside(path, content)?;
    fs::rename(&file.0, path)
}

fn write_beside(path: &Path, content: &[u8]) -> io::Result<(PathBuf, File)> {
    let beside = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    match file.write_all(content) {
        Ok(()) => Ok((beside, file)),
        Err(error) => {
            // So that a full disk is not kept full.
            fs::remove_file(&beside).ok();
            Err(error)
        }
    }
}
