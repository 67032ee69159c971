//! The fields that are read of objects, as the API server writes them. Everything else is left alone.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::domain::labels::LabelSet;
use crate::domain::policy::diagnostic::quote;
use crate::domain::syntax::{Name, OWN_PREFIX, RESERVED_PREFIX, is_label_value, label_key_problem};
use crate::domain::timestamp::Timestamp;

/// `metadata`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Metadata {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) uid: String,
    pub(super) generation: i64,
    pub(super) labels: Option<BTreeMap<String, String>>,
    pub(super) annotations: Option<BTreeMap<String, String>>,
    creation_timestamp: Option<String>,
    pub(super) deletion_timestamp: Option<String>,
    pub(super) owner_references: Option<Vec<Owner>>,
}

/// An item of `ownerReferences`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Owner {
    pub(super) kind: String,
    pub(super) name: String,
}

/// Reads what a kind is read for; the sentence says what is wrong.
pub(super) fn read<T: DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|error| error.to_string())
}

/// What could not be taken as it is written, besides what was.
pub(super) type Notes = Vec<String>;

impl Metadata {
    /// When it was made, in seconds since 1970; 0 where that is not said.
    pub(super) fn created(&self) -> i64 {
        let created = self.creation_timestamp.as_deref().and_then(Timestamp::parse);
        created.map_or(0, |created| created.seconds)
    }

    /// Its name, checked.
    pub(super) fn checked_name(&self, grammar: Name) -> Result<&str, String> {
        let name = self.name.as_str();
        if grammar.accepts(name) { Ok(name) } else { Err(format!("its name can't be {}", quote(name))) }
    }

    /// Its namespace, checked.
    pub(super) fn checked_namespace(&self) -> Result<&str, String> {
        let namespace = self.namespace.as_str();
        if Name::Label.accepts(namespace) {
            Ok(namespace)
        } else {
            Err(format!("its namespace can't be {}", quote(namespace)))
        }
    }

    pub(super) fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// Its labels. One that only enforcer itself may set is left out, so that nobody can call somebody in quarantine, or
    /// reserved.
    pub(super) fn checked_labels(&mut self, notes: &mut Notes) -> Result<LabelSet, String> {
        let mut labels = self.labels.take().unwrap_or_default();
        let reserved = |key: &str| key.starts_with(OWN_PREFIX) || key.starts_with(RESERVED_PREFIX);
        for (key, _) in labels.extract_if(.., |key, _| reserved(key)) {
            notes.push(format!("the label {} is reserved and left out", quote(&key)));
        }
        for (key, value) in &labels {
            if let Some(problem) = label_key_problem(key) {
                return Err(format!("{} can't be a label key: {problem}", quote(key)));
            }
            if !is_label_value(value) {
                return Err(format!("the label {} can't be {}", quote(key), quote(value)));
            }
        }
        Ok(LabelSet(labels))
    }
}

/// The number of a protocol; TCP where none is named, `None` for those that are not judged by ports.
pub(super) fn protocol(text: Option<&str>) -> Option<u8> {
    match text {
        None | Some("TCP") => Some(6),
        Some("UDP") => Some(17),
        Some("SCTP") => Some(132),
        Some(_) => None,
    }
}
