//! What is kept on disk, so that an agent that starts while the API server is away knows what the last one knew.

use std::io::{self, Write};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::kinds::Kind;
use super::place::Node;
use super::pod::Pod;
use super::service::{Front, Slice};
use super::world::Name;
use crate::domain::cluster::Namespace;
use crate::domain::cluster_policy::ObjectVersion;
use crate::domain::labels::LabelSet;
use crate::domain::policy::model::PolicyKey;
use crate::domain::timestamp::Timestamp;

/// Version of this form. Another one is not read.
const VERSION: u32 = 1;

/// The saved form.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Saved {
    pub(super) version: u32,
    /// When it was saved.
    pub(super) at: Timestamp,
    /// Kinds of which the whole was known then.
    pub(super) kinds: Vec<Kind>,
    pub(super) nodes: Vec<Node>,
    pub(super) namespaces: Vec<(String, LabelSet)>,
    pub(super) pods: Vec<SavedPod>,
    pub(super) services: Vec<Front>,
    pub(super) slices: Vec<(Name, Slice)>,
    pub(super) policies: Vec<SavedPolicy>,
}

/// A pod, and whether its directory was ever seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct SavedPod(#[serde(with = "shared")] pub(super) Arc<Pod>, pub(super) bool);

/// What is shared is written as if it were not, and read as something of its own.
pub(super) mod shared {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<T: Serialize, S: Serializer>(it: &Arc<T>, to: S) -> Result<S::Ok, S::Error> {
        T::serialize(it, to)
    }

    pub(crate) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Arc<T>, D::Error> {
        T::deserialize(from).map(Arc::new)
    }
}

/// A policy object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedPolicy {
    pub(super) key: PolicyKey,
    pub(super) object: ObjectVersion,
    /// The last good version.
    pub(super) good: Option<(ObjectVersion, String)>,
    pub(super) problems: Vec<String>,
}

impl Saved {
    /// An empty one of this moment.
    pub(super) fn new(at: Timestamp) -> Self {
        Self { version: VERSION, at, ..Self::default() }
    }

    /// Writes its text, piece by piece: in a large cluster it is larger than anything else that is known of it.
    pub(super) fn write(&self, to: &mut dyn Write) -> io::Result<()> {
        Ok(serde_json::to_writer(to, self)?)
    }

    /// What a text says.
    pub(super) fn read(text: &[u8]) -> Result<Self, String> {
        let saved: Self = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        match saved.version {
            VERSION => Ok(saved),
            found => Err(format!("it has version {found} and this agent reads version {VERSION}")),
        }
    }

    /// The namespaces.
    pub(super) fn namespaces(&self) -> impl Iterator<Item = Namespace> {
        let named =
            |(name, labels): &(String, LabelSet)| Namespace { name: name.clone(), labels: labels.clone() };
        self.namespaces.iter().map(named)
    }
}
