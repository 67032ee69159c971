//! Services and endpoint slices, and what a service is by its slices.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::wire::{Metadata, Notes, protocol, read};
use crate::domain::cluster::{Backend, Service, ServiceKey, ServicePort};
use crate::domain::policy::diagnostic::quote;
use crate::domain::syntax::Name;

/// The label by which an endpoint slice names its service.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// A service without who answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Front {
    namespace: String,
    name: String,
    /// Its own addresses; none if it is headless, and its clients call the pods themselves.
    addresses: Vec<IpAddr>,
    ports: Vec<FrontPort>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct FrontPort {
    /// Empty if it has none.
    name: String,
    protocol: u8,
    port: u16,
}

/// An endpoint slice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Slice {
    pub(super) service: (String, String),
    /// Who answers, by the name and protocol of the service's port.
    answers: Vec<(String, u8, Vec<Backend>)>,
    /// Who still answers while they end, which counts where nobody else does.
    ending: Vec<(String, u8, Vec<Backend>)>,
}

#[derive(Deserialize)]
struct WireService {
    metadata: Metadata,
    #[serde(default)]
    spec: ServiceSpec,
    #[serde(default)]
    status: ServiceStatus,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ServiceSpec {
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<String>,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Option<Vec<String>>,
    #[serde(rename = "externalIPs")]
    external_ips: Option<Vec<String>>,
    ports: Option<Vec<Port>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ServiceStatus {
    load_balancer: Option<LoadBalancer>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct LoadBalancer {
    ingress: Option<Vec<Ingress>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Ingress {
    ip: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
#[allow(clippy::struct_field_names, reason = "these are the API's words")]
struct Port {
    name: Option<String>,
    protocol: Option<String>,
    port: Option<u16>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireSlice {
    metadata: Metadata,
    #[serde(default)]
    address_type: String,
    #[serde(default)]
    endpoints: Option<Vec<Endpoint>>,
    #[serde(default)]
    ports: Option<Vec<Port>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Endpoint {
    addresses: Option<Vec<String>>,
    conditions: Option<Conditions>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Conditions {
    ready: Option<bool>,
    serving: Option<bool>,
}

fn address(text: &str) -> Result<IpAddr, String> {
    let address: Option<IpAddr> = text.parse().ok();
    address.map(|it| it.to_canonical()).ok_or_else(|| format!("{} is not an address", quote(text)))
}

/// Reads a service.
pub(super) fn service(value: Value) -> Result<(Front, Notes), String> {
    let WireService { metadata, spec, status } = read(value)?;
    let mut addresses = Vec::new();
    let ingress = status.load_balancer.unwrap_or_default().ingress.unwrap_or_default();
    let of_cluster = spec.cluster_ip.into_iter().chain(spec.cluster_ips.into_iter().flatten());
    let outside = spec.external_ips.into_iter().flatten().chain(ingress.into_iter().filter_map(|it| it.ip));
    for text in of_cluster.chain(outside).filter(|text| !matches!(text.as_str(), "" | "None")) {
        let address = address(&text)?;
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    let port = |port: Port| {
        let protocol = protocol(port.protocol.as_deref())?;
        let name = port.name.unwrap_or_default();
        Some(FrontPort { name, protocol, port: port.port.filter(|port| *port > 0)? })
    };
    let front = Front {
        namespace: metadata.checked_namespace()?.to_owned(),
        name: metadata.checked_name(Name::Label)?.to_owned(),
        addresses,
        ports: spec.ports.into_iter().flatten().filter_map(port).collect(),
    };
    Ok((front, Notes::new()))
}

/// Reads an endpoint slice; one that belongs to no service, or has names for addresses, says nothing.
pub(super) fn slice(value: Value) -> Result<(Option<Slice>, Notes), String> {
    let WireSlice { metadata, address_type, endpoints, ports } = read(value)?;
    let service = metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_LABEL));
    let Some(service) = service.filter(|_| address_type != "FQDN") else { return Ok((None, Notes::new())) };
    let (mut ready, mut ending) = (Vec::new(), Vec::new());
    for Endpoint { addresses, conditions } in endpoints.into_iter().flatten() {
        let Conditions { ready: is_ready, serving } = conditions.unwrap_or_default();
        // Unknown means ready (discovery/v1 EndpointConditions).
        let answering = match (is_ready, serving) {
            (None | Some(true), _) => &mut ready,
            (_, Some(true)) => &mut ending,
            _ => continue,
        };
        for text in addresses.into_iter().flatten() {
            answering.push(address(&text)?);
        }
    }
    let (mut answers, mut still) = (Vec::new(), Vec::new());
    for port in ports.into_iter().flatten() {
        let name = port.name.unwrap_or_default();
        let (Some(protocol), Some(port)) = (protocol(port.protocol.as_deref()), port.port) else { continue };
        let backends = |of: &[IpAddr]| of.iter().map(|address| Backend { address: *address, port }).collect();
        answers.push((name.clone(), protocol, backends(&ready)));
        still.push((name, protocol, backends(&ending)));
    }
    let service = (metadata.checked_namespace()?.to_owned(), service.clone());
    Ok((Some(Slice { service, answers, ending: still }), Notes::new()))
}

impl Front {
    pub(super) fn key(&self) -> ServiceKey {
        ServiceKey { namespace: self.namespace.clone(), name: self.name.clone() }
    }

    /// The service, if it has an address of its own.
    pub(super) fn with_backends<'a>(&self, slices: impl Iterator<Item = &'a Slice>) -> Option<Service> {
        if self.addresses.is_empty() {
            return None;
        }
        let mut answers: BTreeMap<(&str, u8), [BTreeSet<Backend>; 2]> = BTreeMap::new();
        for slice in slices {
            for (at, found) in [&slice.answers, &slice.ending].into_iter().enumerate() {
                for (name, protocol, backends) in found {
                    answers.entry((name, *protocol)).or_default()[at].extend(backends);
                }
            }
        }
        let port = |port: &FrontPort| {
            let found = answers.get(&(port.name.as_str(), port.protocol));
            let found = found.and_then(|found| found.iter().find(|backends| !backends.is_empty()));
            let backends = found.map(|found| found.iter().copied().collect()).unwrap_or_default();
            ServicePort { protocol: port.protocol, port: port.port, backends }
        };
        Some(Service {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            addresses: self.addresses.clone(),
            ports: self.ports.iter().map(port).collect(),
        })
    }
}
