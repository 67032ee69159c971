//! The check: from files to policies that are valid by construction, or to everything that is wrong with them.

use std::collections::BTreeMap;

use super::diagnostic::{Code, Diagnostic, Location, Source};
use super::model::{Policy, PolicyKey};
use super::{document, lists};
use crate::domain::command::PolicyFile;
use crate::domain::timestamp::Timestamp;
use crate::domain::yaml::{self, Reader};

/// A policy that is valid, with the document it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The policy.
    pub policy: Policy,
    /// Where its document is in the checked set.
    pub place: Location,
    /// Its document's own text, comments included; checks to the same policy.
    pub text: String,
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Outcome {
    /// The policies in the order of the files; empty if anything is wrong anywhere, because a set is taken as a whole.
    pub policies: Vec<Checked>,
    /// Errors and warnings in the order of the files and their text.
    pub diagnostics: Vec<Diagnostic>,
}

impl Outcome {
    /// Whether nothing is wrong; there may be warnings.
    pub fn is_ok(&self) -> bool {
        !self.diagnostics.iter().any(Diagnostic::is_error)
    }

    /// The policies, or everything that is wrong.
    pub fn into_result(self) -> Result<Vec<Checked>, Vec<Diagnostic>> {
        if self.is_ok() { Ok(self.policies) } else { Err(self.diagnostics) }
    }
}

/// Checks a set of files as a whole: all problems of all documents.
pub fn check(files: &[PolicyFile]) -> Outcome {
    check_at(files, Timestamp::EARLIEST)
}

/// The same, with warnings of what is over by now.
pub fn check_at(files: &[PolicyFile], now: Timestamp) -> Outcome {
    let mut outcome = Outcome::default();
    let mut names: BTreeMap<PolicyKey, Location> = BTreeMap::new();
    for (index, file) in files.iter().enumerate() {
        let source = Source::new(index, file);
        let mut reader = Reader::new(&source).with_now(now);
        let documents = yaml::parse(&mut reader);
        if documents.is_empty() && reader.errors() == 0 {
            reader.warning(&(0..0), Code::EmptyFile, "the file has no policy").label("nothing here");
        }
        let mut items = Vec::new();
        for document in documents {
            items.extend(lists::expand(&mut reader, document));
        }
        for mut item in items {
            let Some(read) = document::read(&mut reader, &mut item.root) else { continue };
            if let Some(key) = read.key {
                if let Some(first) = names.get(&key) {
                    reader
                        .error(&read.place, Code::Duplicate, format!("the policy `{key}` is defined twice"))
                        .label("second")
                        .related(first.clone(), "first")
                        .help("rename one of them, or merge their rules");
                } else {
                    names.insert(key, reader.location(&read.place));
                }
            }
            if let Some(policy) = read.policy {
                let place = source.location(&item.root.span);
                outcome.policies.push(Checked { policy, place, text: item.text });
            }
        }
        outcome.diagnostics.extend(reader.finish());
    }
    if !outcome.is_ok() {
        outcome.policies.clear();
    }
    outcome
}
