//! Tar archives whose bytes follow from their content alone: sorted, one time for all, owners by number.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use tar::{Builder, EntryType, Header};

/// User and group of a file, by number.
pub(crate) type Owner = (u64, u64);

/// The administrator.
pub(crate) const ROOT: Owner = (0, 0);

/// One file or directory of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Permission bits.
    pub(crate) mode: u32,
    pub(crate) owner: Owner,
    /// `None` for a directory.
    pub(crate) content: Option<Vec<u8>>,
}

/// What is to be archived, by path without a leading slash. The map sorts, so that a directory comes before what is in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tree(BTreeMap<String, Entry>);

impl Tree {
    /// Adds a file.
    pub(crate) fn file(&mut self, path: &str, mode: u32, owner: Owner, content: impl Into<Vec<u8>>) {
        self.0.insert(path.to_owned(), Entry { mode, owner, content: Some(content.into()) });
    }

    /// Adds a directory.
    pub(crate) fn directory(&mut self, path: &str, mode: u32, owner: Owner) {
        self.0.insert(path.to_owned(), Entry { mode, owner, content: None });
    }

    /// Adds the directories above everything that have not been added, owned by root.
    pub(crate) fn complete(&mut self) {
        let paths: Vec<String> = self.0.keys().cloned().collect();
        for path in paths {
            for (end, _) in path.match_indices('/') {
                let above = Entry { mode: 0o755, owner: ROOT, content: None };
                self.0.entry(path[..end].to_owned()).or_insert(above);
            }
        }
    }

    /// Gives everything to one owner.
    #[cfg(test)]
    pub(crate) fn owned_by(&mut self, owner: Owner) {
        self.0.values_mut().for_each(|entry| entry.owner = owner);
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.0.iter().map(|(path, entry)| (path.as_str(), entry))
    }

    /// The archive; `time` is in seconds since 1970.
    pub(crate) fn tar(&self, time: u64) -> Result<Vec<u8>> {
        let mut builder = Builder::new(Vec::new());
        for (path, entry) in self.entries() {
            let mut header = Header::new_ustar();
            let content = entry.content.as_deref().unwrap_or_default();
            let (kind, end) = match entry.content {
                Some(_) => (EntryType::Regular, ""),
                None => (EntryType::Directory, "/"),
            };
            header.set_entry_type(kind);
            header.set_mode(entry.mode);
            header.set_uid(entry.owner.0);
            header.set_gid(entry.owner.1);
            header.set_mtime(time);
            header.set_size(u64::try_from(content.len())?);
            builder
                .append_data(&mut header, format!("{path}{end}"), content)
                .with_context(|| format!("cannot put {path} into the archive"))?;
        }
        builder.into_inner().context("cannot close the archive")
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn what_goes_in_comes_out_in_order() {
        let mut tree = Tree::default();
        tree.file("usr/bin/b", 0o755, (7, 8), "two");
        tree.file("a", 0o644, ROOT, "one");
        tree.complete();
        let bytes = tree.tar(9).unwrap();
        let mut archive = tar::Archive::new(&*bytes);
        let mut seen = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let (path, header) = (entry.path().unwrap().display().to_string(), entry.header().clone());
            assert_eq!(header.mtime().unwrap(), 9);
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            seen.push((path, header.mode().unwrap(), header.uid().unwrap(), text));
        }
        let expected = [("a", 0o644, 0, "one"), ("usr/", 0o755, 0, ""), ("usr/bin/", 0o755, 0, "")];
        assert_eq!(&seen[..3], expected.map(|(path, mode, uid, text)| (path.into(), mode, uid, text.into())));
        assert_eq!(seen[3], ("usr/bin/b".into(), 0o755, 7, "two".into()));
        assert_eq!(tree.tar(9).unwrap(), bytes);
    }
}
