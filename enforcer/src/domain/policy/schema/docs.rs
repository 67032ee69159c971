//! What the fields of the project's own kinds mean, in a sentence each: for editors, `kubectl explain` and the reference.

use serde_json::{Map, Value};

/// Object, field and meaning. The objects are the kinds' `spec`, its `subject`, and the names of definitions.
pub(super) const DOCS: &[(&str, &str, &str)] = &[
    ("spec", "subject", "The workloads that the policy is about; `{}` means all that it may be about."),
    ("spec", "mode", "Whether denials are enforced, or counted and let through."),
    ("spec", "errno", "What the application is told where no rule of an isolated direction allows a flow."),
    (
        "spec",
        "ingress",
        "Rules for flows to the subject. The direction is isolated when the field is present, even if it is empty.",
    ),
    (
        "spec",
        "egress",
        "Rules for flows from the subject. The direction is isolated when the field is present, even if it is empty.",
    ),
    (
        "spec",
        "listen",
        "Rules for ports that the subject may bind. Isolated when the field is present, even if it is empty.",
    ),
    (
        "spec",
        "sockets",
        "Rules for kinds of sockets that the subject may create. It isolates nobody: of kinds without a rule the setting allowed-sockets decides.",
    ),
    ("spec", "expiresAt", "When the policy ends, by the kernel's clock (RFC 3339)."),
    (
        "spec",
        "tier",
        "Admin comes before policies of namespaces, Baseline after them; the first rule that matches decides, nobody is isolated.",
    ),
    ("spec", "priority", "Place in the tier; the lowest number is asked first."),
    ("subject", "namespaces", "Names of namespaces, or `*` alone for all of them."),
    ("subject", "namespaceSelector", "Namespaces by their labels."),
    ("subject", "workloads", "Workloads by their labels; without it all of these namespaces."),
    ("rule", "name", "Shown in events and metrics beside the rule's place."),
    ("rule", "action", "Allow, Deny, or (in a tier) Pass on to what is beneath the tier."),
    ("rule", "errno", "What the application is told by a rule that denies."),
    ("rule", "from", "Who may be at the other end; everyone without the field, nobody with an empty list."),
    ("rule", "to", "Who may be at the other end; everyone without the field, nobody with an empty list."),
    ("rule", "ports", "Ports of the server's side; all without the field, none with an empty list."),
    (
        "rule",
        "kinds",
        "Kinds of sockets. Of policies only those of the cluster allow kinds; those of namespaces deny them.",
    ),
    ("rule", "expiresAt", "When the rule ends, by the kernel's clock (RFC 3339)."),
    (
        "peer",
        "workloads",
        "Workloads by their labels, in the policy's own namespace unless others are named.",
    ),
    (
        "peer",
        "serviceAccount",
        "Workloads that run under this account, together with `workloads` if both are given.",
    ),
    (
        "peer",
        "spiffe",
        "Workloads by SPIFFE ID; `*` may stand for the trust domain or a segment of the path.",
    ),
    ("peer", "namespaces", "Names of namespaces, or `*` alone for all of them."),
    ("peer", "namespaceSelector", "Namespaces by their labels."),
    ("peer", "cidr", "Addresses that belong to no known workload, as a block like 192.0.2.0/24."),
    ("peer", "except", "Blocks within `cidr` that are not meant."),
    (
        "peer",
        "entity",
        "The host, the world outside, every known workload and the host, or processes of managed directories that nobody knows.",
    ),
    ("port", "protocol", "TCP unless another is named. ICMP and ICMPv6 have types instead of ports."),
    ("port", "port", "A number, or a name that the destination declares; every port without it."),
    ("port", "endPort", "Last port of a range that begins with `port`."),
    (
        "port",
        "types",
        "Types of messages of ICMP or ICMPv6 that open a flow, by name (`echo-request`) or number; every type without it.",
    ),
    ("selector", "matchLabels", "Labels that a workload must have, with these values."),
    ("selector", "matchExpressions", "Conditions on labels; all must hold."),
    ("workloads", "matchLabels", "Labels that a workload must have, with these values."),
    ("workloads", "matchExpressions", "Conditions on labels; all must hold."),
    (
        "workloads",
        "container",
        "Name of a container of these pods; the pods with all their containers without it.",
    ),
];

/// Writes the meanings into the fields of an object.
pub(super) fn describe(object: &str, fields: &mut Map<String, Value>) {
    for (_, field, doc) in DOCS.iter().filter(|(of, ..)| *of == object) {
        if let Some(Value::Object(schema)) = fields.get_mut(*field) {
            schema.insert("description".into(), (*doc).into());
        }
    }
}
