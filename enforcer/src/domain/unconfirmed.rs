//! A push that is taken back by itself unless it is confirmed in time.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::policy::model::PolicyKey;
use super::time::Deadline;
use super::timestamp::Timestamp;

/// What has to be known of an unconfirmed push. The documents that it replaced are kept where confirmed ones are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnconfirmedPush {
    /// When it was pushed.
    pub since: Timestamp,
    /// When it is taken back. Another run of the host is later than that.
    pub until: Deadline,
    /// User id of who pushed it, as the kernel told the agent.
    pub by: Option<u32>,
    /// All pushed documents that are in force until then.
    #[serde(with = "documents")]
    pub documents: BTreeMap<PolicyKey, String>,
}

/// Whether something waits to be confirmed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Confirmation {
    /// Nothing does.
    #[default]
    Settled,
    /// A push does.
    Awaited(UnconfirmedPush),
}

/// Documents as a list, because JSON has no structured keys.
mod documents {
    use serde::{Deserializer, Serializer};

    use super::{BTreeMap, Deserialize, PolicyKey, Serialize};

    pub(super) fn serialize<S: Serializer>(
        documents: &BTreeMap<PolicyKey, String>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        documents.iter().collect::<Vec<_>>().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<PolicyKey, String>, D::Error> {
        Ok(Vec::deserialize(deserializer)?.into_iter().collect())
    }
}
