//! Files that are whole or not there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::{Error, seal};

/// How names of files begin that are not finished. Nothing else begins so.
const UNFINISHED: &str = ".unfinished-";

/// Changes of files in one directory that take effect together as well as a file system allows: all contents are on
/// disk before the first name changes, and the names are flushed once.
#[derive(Debug)]
pub(super) struct Batch<'a> {
    directory: &'a Path,
    /// Finished contents, and the names they get.
    ready: Vec<(PathBuf, PathBuf)>,
    remove: Vec<PathBuf>,
}

impl<'a> Batch<'a> {
    pub(super) fn new(directory: &'a Path) -> Self {
        Self { directory, ready: Vec::new(), remove: Vec::new() }
    }

    /// Puts the content for `path`, a file of the directory, on disk under another name, sealed.
    pub(super) fn write(&mut self, path: &Path, content: &[u8]) -> Result<(), Error> {
        let unfinished = self.directory.join(format!("{UNFINISHED}{}", self.ready.len()));
        self.ready.push((unfinished.clone(), path.to_owned()));
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&unfinished)
            .and_then(|mut file| file.write_all(&seal::seal(content)).and_then(|()| file.sync_all()));
        fail_point!("file-unfinished");
        written.map_err(|source| Error::Io { operation: "write", path: path.to_owned(), source })
    }

    /// Removes a file; it need not be there.
    pub(super) fn remove(&mut self, path: PathBuf) {
        self.remove.push(path);
    }

    /// Gives all contents their names and flushes the names.
    pub(super) fn commit(mut self) -> Result<(), Error> {
        for (unfinished, path) in &self.ready {
            fs::rename(unfinished, path).map_err(|source| Error::Io {
                operation: "rename to",
                path: path.clone(),
                source,
            })?;
            fail_point!("file-renamed");
        }
        self.ready.clear();
        for path in &self.remove {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::Io { operation: "remove", path: path.clone(), source: error });
                }
                _ => {}
            }
        }
        File::open(self.directory).and_then(|directory| directory.sync_all()).map_err(|source| Error::Io {
            operation: "flush",
            path: self.directory.to_owned(),
            source,
        })
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
