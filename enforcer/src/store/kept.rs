//! Files that can be done without: what is known of others, kept so that it is known again after a restart.
//!
//! They are written by whoever learned it, beside the owner of the rest and without its journal. One that is damaged is told
//! and not used: unlike the registry it can be learned again.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::{Error, atomic, seal};

/// A file that is whole or not there.
#[derive(Clone, Debug)]
pub struct Kept {
    path: PathBuf,
}

impl Kept {
    pub(super) fn new(root: &Path, name: &str) -> Self {
        Self { path: root.join(name) }
    }

    /// Puts a content in the place of the last one.
    ///
    /// # Errors
    /// If the operating system refuses; the last content is there then.
    pub fn save(&self, content: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Error> {
        let name = self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let unfinished = self.path.with_file_name(format!("{}{name}", atomic::UNFINISHED));
        let failed = |operation, source| Error::Io { operation, path: self.path.clone(), source };
        let written = atomic::write_sealed(&unfinished, content);
        if let Err(source) = written {
            // A full disk is not kept full by the attempt; the next start removes what can't be removed now.
            fs::remove_file(&unfinished).ok();
            return Err(failed("write", source));
        }
        fs::rename(&unfinished, &self.path).map_err(|source| failed("rename to", source))?;
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(|source| failed("flush", source))
    }

    /// The last content, if there is one.
    ///
    /// # Errors
    /// If it can't be read, or is not what was written.
    pub fn read(&self) -> Result<Option<Vec<u8>>, Error> {
        let mut bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::Io { operation: "read", path: self.path.clone(), source }),
        };
        let content = seal::open(&bytes)
            .map_err(|problem| Error::Corrupt { path: self.path.clone(), problem: problem.to_owned() })?;
        bytes.truncate(content.len());
        Ok(Some(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_last_is_there_whole() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::new(folder.path(), "known.json");
        assert_eq!(kept.read().unwrap(), None);
        // More than is written at once.
        let large = || (0..40_000).map(|number| format!("{number}\n"));
        kept.save(|to| large().try_for_each(|line| to.write_all(line.as_bytes()))).unwrap();
        let expected = large().collect::<String>().into_bytes();
        assert_eq!(kept.read().unwrap().as_ref(), Some(&expected));
        // One that ends half-way leaves the last one, and nothing else.
        let failed = kept.save(|to| {
            large().try_for_each(|line| to.write_all(line.as_bytes()))?;
            Err(io::Error::other("no more"))
        });
        assert!(failed.unwrap_err().to_string().contains("no more"));
        assert_eq!(kept.read().unwrap(), Some(expected));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        kept.save(|to| to.write_all(b"other")).unwrap();
        assert_eq!(kept.read().unwrap(), Some(b"other".to_vec()));
    }
}
