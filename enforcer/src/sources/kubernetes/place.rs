//! Namespaces and nodes.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::wire::{Metadata, Notes, read};
use crate::domain::cluster::Namespace;
use crate::domain::syntax::Name;

/// A machine of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Node {
    pub(super) name: String,
    /// Its addresses, by which other hosts know it.
    pub(super) addresses: Vec<IpAddr>,
}

#[derive(Deserialize)]
struct WireNamespace {
    metadata: Metadata,
}

#[derive(Deserialize)]
struct WireNode {
    metadata: Metadata,
    #[serde(default)]
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    addresses: Option<Vec<Address>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Address {
    r#type: String,
    address: String,
}

/// Reads a namespace.
pub(super) fn namespace(value: Value) -> Result<(Namespace, Notes), String> {
    let WireNamespace { mut metadata } = read(value)?;
    let mut notes = Notes::new();
    let name = metadata.checked_name(Name::Label)?.to_owned();
    let labels = metadata.checked_labels(&mut notes)?;
    Ok((Namespace { name, labels }, notes))
}

/// Reads a node.
pub(super) fn node(value: Value) -> Result<(Node, Notes), String> {
    let WireNode { metadata, status } = read(value)?;
    let name = metadata.checked_name(Name::Subdomain)?.to_owned();
    let all = status.addresses.into_iter().flatten();
    // Others are names.
    let ips = all.filter(|it| matches!(it.r#type.as_str(), "InternalIP" | "ExternalIP"));
    let addresses = ips.filter_map(|it| it.address.parse::<IpAddr>().ok()).map(|it| it.to_canonical());
    Ok((Node { name, addresses: addresses.collect() }, Notes::new()))
}
