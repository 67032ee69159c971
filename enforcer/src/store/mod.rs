//! What has to survive a restart of the host: the registry of numbers, the policies that were pushed, and who is in
//! quarantine.
//!
//! ```text
//! STATE_DIR/            0700, owned by the agent's user
//!   lock                held (flock) as long as the agent runs; its process id inside
//!   registry.json       numbers of identities and rules
//!   registry.N.json     those that were given since, one file each time; see `parts.rs`
//!   policies/           one file per pushed policy: NAMESPACE.NAME.yaml, as it was pushed, and its seal
//!   unconfirmed.json    while a push is not confirmed: the documents in force; `policies/` has those before it
//!   quarantines.json    workloads in quarantine
//!   cluster.json        what the cluster's API told last; see `kept.rs`
//!   journal.json        while several files change: what is left to do, see [`atomic`]
//! ```
//!
//! Invariants:
//! * A file is whole or not there: it is written beside its place, flushed, and renamed. After a crash at any point
//!   the old or the new content is found, never a part.
//! * Files that change together are all old or all new after a crash: a push of many documents, or its confirmation.
//! * A file that was changed behind our back is noticed: each ends with a seal (see `seal.rs`), because a document that
//!   was cut short may be a valid one that allows more.
//! * What can't be read is never guessed, repaired or passed over. The agent refuses to start and names the file,
//!   because with other numbers the counters in the kernel would be someone else's, and without a pushed policy
//!   something it closes would be open.
//! * One instance has the directory: the lock proves it and goes away with the process, however that ends.

mod atomic;
mod error;
mod kept;
mod lock;
mod parts;
mod seal;

#[cfg(test)]
mod tests;

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use self::atomic::Batch;
pub use self::error::Error;
pub use self::kept::Kept;
use self::lock::Lock;
use self::parts::Parts;
use crate::domain::command::PolicyFile;
use crate::domain::policy::check::check;
use crate::domain::policy::model::{PolicyKey, PolicyKind};
use crate::domain::quarantine::{Quarantine, Quarantines};
use crate::domain::registry::Registry;
use crate::domain::unconfirmed::{Confirmation, UnconfirmedPush};
use crate::domain::workload::WorkloadKey;

/// Version of the saved forms. Another one is refused.
const VERSION: u32 = 1;
/// A policy file is never larger than what the API takes and a seal; anything larger was not written here.
const DOCUMENT_LIMIT: u64 = (8 << 20) + 256;

const REGISTRY: &str = "registry.json";
const POLICIES: &str = "policies";
const QUARANTINES: &str = "quarantines.json";
const UNCONFIRMED: &str = "unconfirmed.json";
const CLUSTER: &str = "cluster.json";
const EXTENSION: &str = "yaml";

/// The state directory of the one running instance.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    policies: PathBuf,
    parts: Parts,
    /// Held, not read: it ends with the store.
    _lock: Lock,
}

/// What an earlier agent saved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// Numbers; empty on a new host.
    pub registry: Registry,
    /// Pushed policies, one per file, named by their paths.
    pub documents: Vec<PolicyFile>,
    /// Workloads in quarantine.
    pub quarantines: Quarantines,
    /// Whether a push was not confirmed when the agent ended.
    pub confirmation: Confirmation,
}

/// What is to be saved. Nothing else changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The registry.
    pub registry: Option<Registry>,
    /// Documents to write.
    pub write: Vec<(PolicyKey, String)>,
    /// Documents to remove; they need not be there.
    pub remove: Vec<PolicyKey>,
    /// All quarantines.
    pub quarantines: Option<Quarantines>,
    /// What waits to be confirmed.
    pub confirmation: Option<Confirmation>,
}

/// The saved form of quarantines: a list, because JSON has no structured keys.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct QuarantineFile {
    version: u32,
    quarantines: Vec<(WorkloadKey, Quarantine)>,
}

/// The saved form of an unconfirmed push.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct UnconfirmedFile {
    version: u32,
    push: UnconfirmedPush,
}

/// The saved form of the registry.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RegistryFile {
    version: u32,
    registry: Registry,
}

impl Store {
    /// Opens the directory, making it if needed, and reads what is saved there.
    pub fn open(root: &Path) -> Result<(Self, Saved), Error> {
        let policies = root.join(POLICIES);
        private_directory(root)?;
        let lock = Lock::take(root)?;
        private_directory(&policies)?;
        atomic::resume(root)?;
        for directory in [root, &policies] {
            atomic::remove_unfinished(directory)?;
        }
        let (parts, registry) = Parts::open(root)?;
        let saved = Saved {
            registry,
            documents: read_documents(&policies)?,
            quarantines: read_quarantines(&root.join(QUARANTINES))?,
            confirmation: read_unconfirmed(&root.join(UNCONFIRMED))?,
        };
        Ok((Self { root: root.to_owned(), policies, parts, _lock: lock }, saved))
    }

    /// Fails if an agent runs that has this directory.
    pub fn require_stopped(root: &Path) -> Result<(), Error> {
        if root.is_dir() { Lock::take(root).map(drop) } else { Ok(()) }
    }

    /// What is known of the cluster.
    pub fn cluster(&self) -> Kept {
        Kept::new(&self.root, CLUSTER)
    }

    /// Saves the registry (if given) and then everything else, together. When it returns, all of it is on disk; when it
    /// fails, each file is as it was or as it should be.
    pub fn save(&mut self, changes: &Changes) -> Result<(), Error> {
        if let Some(registry) = &changes.registry {
            // New numbers do no harm without what uses them; the reverse does.
            self.parts.save(&self.root, registry)?;
        }
        let batch = self.batch(changes)?;
        if batch.is_empty() { Ok(()) } else { batch.commit() }
    }

    /// Everything but the registry, written and not yet in its place.
    fn batch(&self, changes: &Changes) -> Result<Batch<'_>, Error> {
        let mut batch = Batch::new(&self.root);
        for (key, text) in &changes.write {
            batch.write(&self.document(key)?, text.as_bytes())?;
        }
        for key in &changes.remove {
            batch.remove(self.document(key)?);
        }
        if let Some(quarantines) = &changes.quarantines {
            let quarantines = quarantines.clone().into_iter().collect();
            write(
                &mut batch,
                &self.root.join(QUARANTINES),
                &QuarantineFile { version: VERSION, quarantines },
            )?;
        }
        match &changes.confirmation {
            Some(Confirmation::Awaited(push)) => {
                let file = UnconfirmedFile { version: VERSION, push: push.clone() };
                write(&mut batch, &self.root.join(UNCONFIRMED), &file)?;
            }
            Some(Confirmation::Settled) => batch.remove(self.root.join(UNCONFIRMED)),
            None => {}
        }
        Ok(batch)
    }

    /// Path of a pushed policy.
    fn document(&self, key: &PolicyKey) -> Result<PathBuf, Error> {
        let stem = stem(key).ok_or_else(|| Error::Name { key: key.to_string() })?;
        Ok(self.policies.join(format!("{stem}.{EXTENSION}")))
    }
}

/// Name of the file of a policy, without its extension: `NAMESPACE.NAME`, behind `KIND@` for all kinds but the first that
/// there was. A namespace has no dot, so the first dot ends it. Checked policies have such names; a path is made from
/// nothing else.
fn stem(PolicyKey { kind, namespace, name }: &PolicyKey) -> Option<String> {
    let plain = |text: &str, others: &str| {
        !text.is_empty()
            && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || others.contains(c))
    };
    let name = match kind.is_namespaced() {
        true if plain(namespace, "-") && plain(name, "-.") => format!("{namespace}.{name}"),
        false if namespace.is_empty() && plain(name, "-.") => name.clone(),
        _ => return None,
    };
    Some(match kind {
        PolicyKind::TrafficPolicy => name,
        kind => format!("{}@{name}", kind.prefix()),
    })
}

/// Makes the directory for this user only, or makes sure that it is so.
fn private_directory(path: &Path) -> Result<(), Error> {
    let failed =
        |operation: &'static str| move |source| Error::Io { operation, path: path.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed("create"))?;
    let found = fs::metadata(path).map_err(failed("look at"))?;
    let own = nix::unistd::geteuid().as_raw();
    if found.uid() != own {
        return Err(Error::Owner { path: path.to_owned(), owner: found.uid(), own });
    }
    if found.mode() & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(failed("set the mode of"))?;
    }
    Ok(())
}

/// The text of the registry's file.
pub fn encode_registry(registry: &Registry) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&RegistryFile { version: VERSION, registry: registry.clone() })
}

/// The registry in the text of its file; `path` is what errors name.
pub fn decode_registry(path: &Path, text: &[u8]) -> Result<Registry, Error> {
    decode(path, text, |file: &RegistryFile| file.version).map(|file| file.registry)
}

/// Puts JSON into a batch.
fn write(batch: &mut Batch<'_>, path: &Path, file: &impl Serialize) -> Result<(), Error> {
    let text = serde_json::to_vec(file).map_err(|source| Error::Encode { path: path.to_owned(), source })?;
    batch.write(path, &text)
}

/// What a file says and its version; nothing if there is no such file.
fn read<T: DeserializeOwned>(path: &Path, version: fn(&T) -> u32) -> Result<Option<T>, Error> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::Io { operation: "read", path: path.to_owned(), source }),
    };
    let content = seal::open(&text)
        .map_err(|problem| Error::Corrupt { path: path.to_owned(), problem: problem.to_owned() })?;
    decode(path, content, version).map(Some)
}

/// What the text of a file says, if it is of this version.
fn decode<T: DeserializeOwned>(path: &Path, text: &[u8], version: fn(&T) -> u32) -> Result<T, Error> {
    let file: T = serde_json::from_slice(text)
        .map_err(|error| Error::Corrupt { path: path.to_owned(), problem: error.to_string() })?;
    match version(&file) {
        VERSION => Ok(file),
        found => Err(Error::Version { path: path.to_owned(), found, known: VERSION }),
    }
}

fn read_quarantines(path: &Path) -> Result<Quarantines, Error> {
    let Some(file) = read(path, |file: &QuarantineFile| file.version)? else { return Ok(Quarantines::new()) };
    let count = file.quarantines.len();
    let quarantines: Quarantines = file.quarantines.into_iter().collect();
    if quarantines.len() != count {
        let problem = "a workload is listed twice".to_owned();
        return Err(Error::Corrupt { path: path.to_owned(), problem });
    }
    Ok(quarantines)
}

fn read_unconfirmed(path: &Path) -> Result<Confirmation, Error> {
    let file = read(path, |file: &UnconfirmedFile| file.version)?;
    Ok(file.map_or(Confirmation::Settled, |file| Confirmation::Awaited(file.push)))
}

fn read_documents(directory: &Path) -> Result<Vec<PolicyFile>, Error> {
    let failed = |source| Error::Io { operation: "list", path: directory.to_owned(), source };
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|end| end == EXTENSION) {
            paths.push(path);
        }
    }
    paths.sort();
    paths.iter().map(|path| read_document(path)).collect()
}

fn read_document(path: &Path) -> Result<PolicyFile, Error> {
    let corrupt = |problem: &str| Error::Corrupt { path: path.to_owned(), problem: problem.to_owned() };
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(DOCUMENT_LIMIT + 1).read_to_end(&mut bytes));
    match read {
        Ok(size) if size as u64 > DOCUMENT_LIMIT => return Err(corrupt("it is larger than any policy")),
        Ok(_) => {}
        Err(source) => return Err(Error::Io { operation: "read", path: path.to_owned(), source }),
    }
    let content = seal::open(&bytes).map_err(corrupt)?;
    let Ok(text) = String::from_utf8(content.to_vec()) else { return Err(corrupt("it is no UTF-8 text")) };
    let file = PolicyFile { name: path.display().to_string(), text };
    // What is wrong inside is told later, with its place. Here it must only be the policy that its name says, because
    // that name is how it is replaced and removed.
    if let Ok(found) = check(std::slice::from_ref(&file)).into_result() {
        let names: Vec<Option<String>> = found.iter().map(|it| stem(&it.policy.key)).collect();
        let is_named = |name: &Option<String>| {
            path.file_stem().is_some_and(|stem| name.as_deref().is_some_and(|name| stem == name))
        };
        if names.len() != 1 || !is_named(&names[0]) {
            return Err(corrupt("it is not the one policy that its name says"));
        }
    }
    Ok(file)
}
