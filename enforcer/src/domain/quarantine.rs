//! Quarantine: a workload that may talk with nobody, whatever the policies say.
//!
//! It is put on a workload by name and reaches its processes by their cgroup: the directory is bound to an identity of
//! its own, which has the workload's namespace and labels and a mark beside them. No selector is asked.
//!
//! **Invariant: the mark can't be forged or selected.** Its key begins with `reserved:`, which no source and no policy
//! can write.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

use super::registry::IdentityKey;
use super::syntax::{Name, OWN_PREFIX, RESERVED_PREFIX, is_label_value, label_key_problem};
use super::time::Deadline;
use super::timestamp::Timestamp;
use super::workload::{DEFAULT_NAMESPACE, WorkloadKey};

/// Key of the label that marks the identity of a workload in quarantine. Its value is the workload's name.
pub const MARK: &str = "reserved:quarantine";
/// How the host is called among those who are let in.
const HOST: &str = "reserved:host";
/// Most items of a list of who is let in.
pub const MAX_ALLOW_FROM: usize = 64;

/// Quarantines by workload.
pub type Quarantines = BTreeMap<WorkloadKey, Quarantine>;

/// What is known of one quarantine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quarantine {
    /// Since when.
    pub since: Timestamp,
    /// When it ends by itself; `None` for never.
    pub until: Option<Deadline>,
    /// Who may open flows to the workload all the same.
    pub allow_from: Vec<AllowFrom>,
    /// User id of who asked for it, as the kernel told the agent.
    pub by: Option<u32>,
}

/// Who may open flows to a workload in quarantine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum AllowFrom {
    /// A workload, and those that are the same to policies: `namespace/name`.
    Workload(WorkloadKey),
    /// Workloads of the same namespace with all these labels: `key=value[,key=value]`.
    Labels(BTreeMap<String, String>),
    /// Addresses.
    Net(IpNet),
    /// Processes of the host outside all workloads: `reserved:host`.
    Host,
}

/// The identity of a workload of this name while it is in quarantine.
pub fn marked(ordinary: &IdentityKey, name: &str) -> IdentityKey {
    let mut marked = ordinary.clone();
    marked.labels.0.insert(MARK.to_owned(), name.to_owned());
    marked
}

/// Whether an identity is one of a workload in quarantine.
pub fn is_marked(key: &IdentityKey) -> bool {
    key.labels.0.contains_key(MARK)
}

/// The quarantine of a workload; a pod's is that of its containers too.
pub fn of<'a>(quarantines: &'a Quarantines, key: &WorkloadKey) -> Option<&'a Quarantine> {
    quarantines.get(key).or_else(|| quarantines.get(&key.pod()?))
}

/// Reads `[namespace/]name`, or `namespace/name/container`.
pub fn workload_key(text: &str) -> Result<WorkloadKey, String> {
    let (namespace, name) = text.split_once('/').unwrap_or((DEFAULT_NAMESPACE, text));
    let (pod, container) = name.split_once('/').unwrap_or((name, "container"));
    if Name::Label.accepts(namespace) && Name::Subdomain.accepts(pod) && Name::Label.accepts(container) {
        return Ok(WorkloadKey { namespace: namespace.to_owned(), name: name.to_owned() });
    }
    Err(format!("`{text}` is no workload: write it as `enforcer endpoint list` shows it, `namespace/name`"))
}

impl FromStr for AllowFrom {
    type Err = String;

    /// What contains `=` is labels, what is an address or a block is that, anything else is a workload.
    fn from_str(text: &str) -> Result<Self, String> {
        if text == HOST {
            return Ok(Self::Host);
        }
        if text.contains('=') {
            return text.split(',').map(label).collect::<Result<_, _>>().map(Self::Labels);
        }
        let address = || text.parse::<std::net::IpAddr>().ok().map(IpNet::from);
        match text.parse::<IpNet>().ok().or_else(address) {
            Some(net) if net != net.trunc() => {
                Err(format!("`{text}` has address bits behind its prefix: write `{}`", net.trunc()))
            }
            Some(net) => Ok(Self::Net(plain(net))),
            None => workload_key(text).map(Self::Workload).map_err(|_problem| {
                format!(
                    "`{text}` is nobody who can be let in: write `namespace/name` of a workload, labels as \
                     `key=value,key=value`, an address or block as 192.0.2.0/24, or `{HOST}`"
                )
            }),
        }
    }
}

/// The kernel side judges IPv4 addresses in IPv6 form as what they are.
fn plain(net: IpNet) -> IpNet {
    let IpNet::V6(six) = net else { return net };
    let four = six.addr().to_ipv4_mapped();
    let four =
        four.zip(six.prefix_len().checked_sub(96)).and_then(|(four, length)| Ipv4Net::new(four, length).ok());
    four.map_or(net, IpNet::V4)
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) =
        text.split_once('=').ok_or_else(|| format!("`{text}` is no label: write `key=value[,key=value]`"))?;
    if key.starts_with(OWN_PREFIX) || key.starts_with(RESERVED_PREFIX) {
        return Err(format!("the label key `{key}` is reserved: no workload has it"));
    }
    if let Some(problem) = label_key_problem(key) {
        return Err(format!("`{key}` can't be a label key: {problem}"));
    }
    if !is_label_value(value) {
        return Err(format!(
            "`{value}` can't be a label value: it is at most 63 letters, digits, `-`, `_` or `.`, with a letter or \
             digit at both ends"
        ));
    }
    Ok((key.to_owned(), value.to_owned()))
}

impl fmt::Display for AllowFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workload(key) => key.fmt(f),
            Self::Labels(labels) => {
                let labels: Vec<String> =
                    labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
                f.write_str(&labels.join(","))
            }
            Self::Net(net) => net.fmt(f),
            Self::Host => f.write_str(HOST),
        }
    }
}

impl TryFrom<String> for AllowFrom {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<AllowFrom> for String {
    fn from(allow: AllowFrom) -> Self {
        allow.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::command::PolicyFile;
    use crate::domain::policy::check::check;
    use crate::domain::workload_file::parse_workloads;

    #[test]
    fn the_grammar_of_who_is_let_in() {
        for (text, shown) in [
            ("forensics/probe", "forensics/probe"),
            ("probe", "default/probe"),
            ("forensics/probe/main", "forensics/probe/main"),
            ("role=probe", "role=probe"),
            ("b=2,example.com/a=", "b=2,example.com/a="),
            ("192.0.2.7", "192.0.2.7/32"),
            ("192.0.2.0/24", "192.0.2.0/24"),
            ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("reserved:host", "reserved:host"),
        ] {
            let parsed: AllowFrom = text.parse().unwrap();
            assert_eq!(parsed.to_string(), shown);
            assert_eq!(shown.parse(), Ok(parsed), "what is shown can be given back");
        }
        for (bad, needle) in [
            ("192.0.2.1/24", "write `192.0.2.0/24`"),
            ("a=b,c", "`c` is no label"),
            ("reserved:quarantine=web", "reserved"),
            ("enforcer.dev/x=y", "reserved"),
            ("-a=b", "can't be a label key"),
            ("a=b c", "can't be a label value"),
            ("reserved:world", "nobody who can be let in"),
            ("a/b/C", "nobody who can be let in"),
            ("a/b/c/d", "nobody who can be let in"),
            ("", "nobody who can be let in"),
        ] {
            let error = bad.parse::<AllowFrom>().unwrap_err();
            assert!(error.contains(needle), "{bad}: {error}");
        }
    }

    #[test]
    fn nobody_can_write_the_mark() {
        let file = |text: String| PolicyFile { name: "x.yaml".into(), text };
        let workloads = file(format!("workloads: [{{name: a, cgroup: /a, labels: {{\"{MARK}\": a}}}}]\n"));
        assert!(!parse_workloads(&workloads).is_ok());
        for selector in [
            format!("{{matchLabels: {{\"{MARK}\": a}}}}"),
            format!("{{matchExpressions: [{{key: \"{MARK}\", operator: DoesNotExist}}]}}"),
        ] {
            let policy = format!(
                "apiVersion: enforcer.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: p}}\n\
                 spec: {{subject: {selector}, ingress: [], egress: [{{to: [{{workloads: {selector}}}]}}]}}\n"
            );
            let outcome = check(&[file(policy)]);
            assert_eq!(outcome.diagnostics.len(), 2, "{selector}");
            assert!(!outcome.is_ok());
        }
    }
}
