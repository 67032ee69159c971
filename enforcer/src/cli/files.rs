//! Policy files that a command line names: files, directories, standard input.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::domain::cluster_file::MAX_BYTES;
use crate::domain::command::PolicyFile;

/// More than the agent takes anyway; keeps `-f /dev/zero` from filling the memory.
const LIMIT: u64 = 8 << 20;
/// How deep directories are searched.
const DEPTH: usize = 16;
/// What standard input is called in diagnostics.
const STDIN: &str = "<stdin>";
/// Verdicts that examples are expected to give. They stand beside policies and are none.
const EXPECTATIONS: [&str; 2] = [".expect.yaml", ".expect.yml"];

/// Reads them all, directories recursively in the order of names.
pub(super) fn read(paths: &[PathBuf]) -> anyhow::Result<Vec<PolicyFile>> {
    read_with(paths, &mut std::io::stdin().lock())
}

/// Reads files of a cluster, which are longer than policies.
pub(super) fn read_clusters(paths: &[PathBuf]) -> anyhow::Result<Vec<PolicyFile>> {
    let limit = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX);
    let one = |path: &PathBuf| {
        if path.as_os_str() == "-" {
            let text = text(STDIN, &mut std::io::stdin().lock(), limit)?;
            return Ok(PolicyFile { name: STDIN.to_owned(), text });
        }
        file(path, limit)
    };
    paths.iter().map(one).collect()
}

/// The expectation files among them; directories are searched.
pub(super) fn expectations(paths: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in paths {
        let name = path.display();
        if !fs::metadata(path).with_context(|| format!("read {name}"))?.is_dir() {
            found.push(path.clone());
            continue;
        }
        let before = found.len();
        search(path, DEPTH, is_expectation, &mut found)?;
        if found.len() == before {
            bail!("no *.expect.yaml file in {name}; is it the right directory?");
        }
    }
    Ok(found)
}

fn is_expectation(name: &str) -> bool {
    EXPECTATIONS.iter().any(|end| name.ends_with(end))
}

fn is_policy(name: &str) -> bool {
    let end = Path::new(name).extension();
    !is_expectation(name) && end.is_some_and(|end| end == "yaml" || end == "yml")
}

fn read_with(paths: &[PathBuf], stdin: &mut dyn Read) -> anyhow::Result<Vec<PolicyFile>> {
    let mut files = Vec::new();
    for path in paths {
        if path.as_os_str() == "-" {
            files.push(PolicyFile { name: STDIN.to_owned(), text: text(STDIN, stdin, LIMIT)? });
            continue;
        }
        let name = path.display();
        let metadata = fs::metadata(path).with_context(|| format!("read {name}"))?;
        if metadata.is_dir() {
            let mut found = Vec::new();
            search(path, DEPTH, is_policy, &mut found)?;
            if found.is_empty() {
                bail!("no *.yaml or *.yml file in {name}; is it the right directory?");
            }
            for path in found {
                files.push(file(&path, LIMIT)?);
            }
        } else {
            files.push(file(path, LIMIT)?);
        }
    }
    Ok(files)
}

fn file(path: &Path, limit: u64) -> anyhow::Result<PolicyFile> {
    let name = path.display().to_string();
    let mut reader = fs::File::open(path).with_context(|| format!("read {name}"))?;
    let text = text(&name, &mut reader, limit)?;
    Ok(PolicyFile { name, text })
}

fn text(name: &str, reader: &mut dyn Read, limit: u64) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    reader.take(limit + 1).read_to_end(&mut bytes).with_context(|| format!("read {name}"))?;
    if bytes.len() as u64 > limit {
        bail!("{name} has more than {} MiB, which is too much to be read as a whole", limit >> 20);
    }
    String::from_utf8(bytes).with_context(|| format!("{name} is no UTF-8 text"))
}

fn search(
    folder: &Path,
    depth: usize,
    is_meant: fn(&str) -> bool,
    found: &mut Vec<PathBuf>,
) -> anyhow::Result<()> {
    let name = folder.display();
    if depth == 0 {
        bail!("{name} is more than {DEPTH} directories deep; name the directory itself");
    }
    let entries = fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let mut entries = entries.with_context(|| format!("read the directory {name}"))?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let name = entry.file_name();
        let name = name.to_string_lossy();
        // Hidden ones are editors' and, with two dots, the versions behind a mounted ConfigMap.
        if name.starts_with('.') {
            continue;
        }
        // A link to a file is followed, one to a directory is not: it could lead round in a circle.
        if entry.file_type().with_context(|| format!("look at {}", path.display()))?.is_dir() {
            search(&path, depth - 1, is_meant, found)?;
        } else if is_meant(&name) && !path.is_dir() {
            found.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(files: &[PolicyFile], root: &Path) -> Vec<String> {
        let root = format!("{}/", root.display());
        files.iter().map(|file| file.name.replace(&root, "")).collect()
    }

    #[test]
    fn directories_are_searched_in_order_and_only_for_policies() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir_all(root.join("b/deep")).unwrap();
        for name in
            ["c.yaml", "a.yml", "b/deep/x.yaml", "b/a.yaml", "notes.md", ".hidden.yaml", "a.expect.yaml"]
        {
            fs::write(root.join(name), name).unwrap();
        }
        let files = read_with(&[root.to_owned(), "-".into()], &mut "from stdin".as_bytes()).unwrap();
        assert_eq!(names(&files, root), ["a.yml", "b/a.yaml", "b/deep/x.yaml", "c.yaml", "<stdin>"]);
        assert_eq!(files[4].text, "from stdin");
        let expectations = read_with(&[root.join("a.expect.yaml")], &mut std::io::empty()).unwrap();
        assert_eq!(expectations.len(), 1, "what is named is read");
    }

    #[test]
    fn what_is_missing_empty_or_no_text_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let error =
            |path: &Path| format!("{:#}", read_with(&[path.to_owned()], &mut std::io::empty()).unwrap_err());
        assert!(error(root).starts_with("no *.yaml or *.yml file in "));
        assert!(error(&root.join("x.yaml")).contains("No such file"));
        fs::write(root.join("x.yaml"), [0xff, 0xfe]).unwrap();
        assert!(error(&root.join("x.yaml")).contains("is no UTF-8 text"));
        assert!(error(Path::new("/dev/zero")).contains("more than 8 MiB"));
    }
}
