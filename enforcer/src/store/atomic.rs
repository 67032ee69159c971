//! Files that are whole or not there, and changes of several files that happen together or not at all.
//!
//! All contents are on disk under other names before the first name changes. Where more than one name has to change, a
//! journal that lists them is put in place first: that one rename is the moment at which the change has happened. What
//! is left to do after a crash is done by the next start.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::seal::{self, Sealing};
use super::{Error, VERSION};

/// How names of files begin that are not finished. Nothing else begins so.
pub(super) const UNFINISHED: &str = ".unfinished-";
/// The journal, in the directory that it is about.
const JOURNAL: &str = "journal.json";
/// Bytes that are written at once.
const BUFFER: usize = 64 << 10;

/// Changes of files below one directory.
#[derive(Debug)]
pub(super) struct Batch<'a> {
    root: &'a Path,
    /// Finished contents, and the names they get.
    ready: Vec<(PathBuf, PathBuf)>,
    remove: Vec<PathBuf>,
}

/// What the journal says. All paths are relative to its directory.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Journal {
    version: u32,
    rename: Vec<(PathBuf, PathBuf)>,
    remove: Vec<PathBuf>,
}

/// One call to the operating system; a crash can come before and after each.
#[derive(Debug)]
pub(super) enum Step {
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    Flush(PathBuf),
}

/// Writes a file, sealed, that only root may read, and waits until it is on disk.
pub(super) fn write_sealed(
    path: &Path,
    content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    let mut to = BufWriter::with_capacity(BUFFER, Sealing::new(file));
    content(&mut to)?;
    let file = to.into_inner()?.finish()?;
    file.sync_all()
}

impl<'a> Batch<'a> {
    pub(super) fn new(root: &'a Path) -> Self {
        Self { root, ready: Vec::new(), remove: Vec::new() }
    }

    /// Puts the content for `path`, a file below the directory, on disk under another name, sealed.
    pub(super) fn write(&mut self, path: &Path, content: &[u8]) -> Result<(), Error> {
        let unfinished = self.root.join(format!("{UNFINISHED}{}", self.ready.len()));
        self.ready.push((unfinished.clone(), path.to_owned()));
        let written = write_sealed(&unfinished, |file| file.write_all(content));
        fail_point!("file-unfinished");
        written.map_err(|source| Error::Io { operation: "write", path: path.to_owned(), source })
    }

    /// Whether there is nothing to change.
    pub(super) fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.remove.is_empty()
    }

    /// Removes a file; it need not be there.
    pub(super) fn remove(&mut self, path: PathBuf) {
        self.remove.push(path);
    }

    /// Makes the changes. What fails after the journal is in place can leave some files changed and some not.
    pub(super) fn commit(mut self) -> Result<(), Error> {
        let steps = self.steps()?;
        let journal = self.root.join(JOURNAL);
        let done = steps.iter().try_for_each(Step::perform).inspect_err(|_| {
            // The caller is told that it failed, and a later start must not do what is left of it. If even this fails,
            // that start tells the same error.
            fs::remove_file(&journal).ok();
        });
        if done.is_ok() {
            self.ready.clear();
        }
        done
    }

    /// What is to be done, in order. Writes the journal's content, if there is to be one.
    pub(super) fn steps(&mut self) -> Result<Vec<Step>, Error> {
        let mut steps: Vec<Step> =
            self.ready.iter().map(|(from, to)| Step::Rename(from.clone(), to.clone())).collect();
        steps.extend(self.remove.iter().map(|path| Step::Remove(path.clone())));
        let parents =
            self.ready.iter().map(|(_, to)| to).chain(&self.remove).filter_map(|path| path.parent());
        let mut touched: Vec<PathBuf> = parents.map(Path::to_owned).chain([self.root.to_owned()]).collect();
        touched.sort();
        touched.dedup();
        let flush = touched.into_iter().map(Step::Flush);
        if steps.len() < 2 {
            return Ok(steps.into_iter().chain(flush).collect());
        }
        let path = self.root.join(JOURNAL);
        let relative = |path: &PathBuf| path.strip_prefix(self.root).unwrap_or(path).to_owned();
        let journal = Journal {
            version: VERSION,
            rename: self.ready.iter().map(|(from, to)| (relative(from), relative(to))).collect(),
            remove: self.remove.iter().map(relative).collect(),
        };
        let text =
            serde_json::to_vec(&journal).map_err(|source| Error::Encode { path: path.clone(), source })?;
        self.write(&path, &text)?;
        let (from, to) = self.ready.last().cloned().unwrap_or_default();
        let root = || Step::Flush(self.root.to_owned());
        let begin = [Step::Rename(from, to), root()];
        Ok(begin.into_iter().chain(steps).chain(flush).chain([Step::Remove(path), root()]).collect())
    }
}

impl Step {
    pub(super) fn perform(&self) -> Result<(), Error> {
        let failed = |operation: &'static str, path: &Path| {
            let path = path.to_owned();
            move |source| Error::Io { operation, path, source }
        };
        match self {
            Self::Rename(from, to) => {
                fs::rename(from, to).map_err(failed("rename to", to))?;
                fail_point!("file-renamed");
                Ok(())
            }
            Self::Remove(path) => match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
                _ => Ok(()),
            },
            Self::Flush(directory) => File::open(directory)
                .and_then(|directory| directory.sync_all())
                .map_err(failed("flush", directory)),
        }
    }
}

/// What was not committed is taken back, so that a full disk is not kept full by the attempts to write to it.
impl Drop for Batch<'_> {
    fn drop(&mut self) {
        for (unfinished, _) in &self.ready {
            // It may not be there; if it can't be removed, the next start does it.
            fs::remove_file(unfinished).ok();
        }
    }
}

/// Does what is left of a change that a crash interrupted.
pub(super) fn resume(root: &Path) -> Result<(), Error> {
    let path = root.join(JOURNAL);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(Error::Io { operation: "read", path, source }),
    };
    let corrupt = |problem: String| Error::Corrupt { path: path.clone(), problem };
    let content = seal::open(&text).map_err(|problem| corrupt(problem.to_owned()))?;
    let journal: Journal = serde_json::from_slice(content).map_err(|error| corrupt(error.to_string()))?;
    if journal.version != VERSION {
        return Err(Error::Version { path, found: journal.version, known: VERSION });
    }
    let named = journal.rename.iter().flat_map(|(from, to)| [from, to]).chain(&journal.remove);
    for name in named {
        if name.components().any(|part| !matches!(part, Component::Normal(_))) {
            return Err(corrupt(format!("{} is not below its directory", name.display())));
        }
    }
    let mut touched = vec![root.to_owned()];
    for (from, to) in journal.rename {
        let (from, to) = (root.join(from), root.join(to));
        touched.extend(to.parent().map(Path::to_owned));
        match (from.exists(), to.exists()) {
            (true, _) => Step::Rename(from, to).perform()?,
            (false, true) => {}
            (false, false) => return Err(corrupt(format!("{} is gone", from.display()))),
        }
    }
    for name in journal.remove {
        let name = root.join(name);
        touched.extend(name.parent().map(Path::to_owned));
        Step::Remove(name).perform()?;
    }
    touched.into_iter().try_for_each(|directory| Step::Flush(directory).perform())?;
    Step::Remove(path).perform()?;
    Step::Flush(root.to_owned()).perform()
}

/// Removes what a crash left behind.
pub(super) fn remove_unfinished(directory: &Path) -> Result<(), Error> {
    let failed = |source| Error::Io { operation: "clean up", path: directory.to_owned(), source };
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            fs::remove_file(entry.path()).map_err(failed)?;
        }
    }
    Ok(())
}
