//! The small grammars: names (RFC 1123), labels (as Kubernetes has them), addresses.

use std::ops::RangeInclusive;

use enforcer_common::reason::Errno;
use ipnet::{IpNet, Ipv4Net};

use super::policy::diagnostic::{Code, quote};
use super::yaml::{Node, Reader};

/// Prefix of label keys that only the agent itself may set.
pub const OWN_PREFIX: &str = "enforcer.dev/";
/// What reserved identities are called with; never a workload's label.
pub const RESERVED_PREFIX: &str = "reserved:";

/// The choices of every `errno` field.
pub const ERRNOS: [(&str, Errno); 4] = [
    (Errno::Perm.name(), Errno::Perm),
    (Errno::ConnRefused.name(), Errno::ConnRefused),
    (Errno::HostUnreach.name(), Errno::HostUnreach),
    (Errno::Access.name(), Errno::Access),
];

const LABEL: RangeInclusive<usize> = 1..=63;
const SUBDOMAIN: RangeInclusive<usize> = 1..=253;
const PORT: RangeInclusive<usize> = 1..=15;

/// What a name must look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// RFC 1123 label: lower case letters, digits, `-`; 1-63 long.
    Label,
    /// RFC 1123 subdomain: labels with dots between them; 1-253 long.
    Subdomain,
    /// What a label value allows, but not empty: letters, digits, `-`, `_`, `.`; 1-63 long.
    Word,
    /// Name of a port (RFC 6335 service name, lower case): letters, digits, single `-` between them; 1-15 long, with
    /// a letter in it.
    Port,
}

impl Name {
    /// Whether the text is such a name.
    pub fn accepts(self, text: &str) -> bool {
        match self {
            Self::Label => LABEL.contains(&text.len()) && is_dns_label(text),
            Self::Subdomain => SUBDOMAIN.contains(&text.len()) && text.split('.').all(is_dns_label),
            Self::Word => !text.is_empty() && is_label_value(text),
            Self::Port => {
                PORT.contains(&text.len())
                    && is_dns_label(text)
                    && !text.contains("--")
                    && text.bytes().any(|byte| byte.is_ascii_lowercase())
            }
        }
    }

    fn rule(self) -> &'static str {
        match self {
            Self::Label => "1-63 lower case letters, digits or `-`, with a letter or digit at both ends",
            Self::Subdomain => {
                "1-253 lower case letters, digits, `-` or `.`, with a letter or digit at both ends of each part"
            }
            Self::Word => "1-63 letters, digits, `-`, `_` or `.`, with a letter or digit at both ends",
            Self::Port => {
                "1-15 lower case letters, digits or single `-`, with a letter among them and none of `-` at an end"
            }
        }
    }

    /// Reads such a name; reports what is wrong with it.
    pub fn read<'n>(self, reader: &mut Reader<'_>, node: &'n Node, what: &str) -> Option<&'n str> {
        let text = reader.text(node, what)?;
        if self.accepts(text) {
            return Some(text);
        }
        let message = format!("{what} can't be {}", quote(text));
        let lower = text.to_lowercase().replace(['_', ' '], "-");
        let help = if self.accepts(&lower) {
            format!("write `{lower}`")
        } else {
            format!("it must be {}", self.rule())
        };
        reader.error(&node.span, Code::BadName, message).label("not a valid name").help(help);
        None
    }
}

fn is_dns_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

/// Whether the text can be the value of a label; the empty text can.
pub fn is_label_value(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let ends = |end: Option<char>| end.is_none_or(|end| end.is_ascii_alphanumeric());
    text.len() <= *LABEL.end()
        && text.bytes().all(inner)
        && ends(text.chars().next())
        && ends(text.chars().next_back())
}

/// Why the text can't be the key of a label.
pub fn label_key_problem(text: &str) -> Option<&'static str> {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    if prefix.is_some_and(|prefix| !Name::Subdomain.accepts(prefix)) {
        return Some("the part before the `/` must be a lower case domain name");
    }
    if !Name::Word.accepts(name) {
        return Some(
            "a label key is 1-63 letters, digits, `-`, `_` or `.`, with a letter or digit at both ends, \
             after an optional `domain/`",
        );
    }
    None
}

/// Reports a label key that no workload can have.
pub fn check_label_key(reader: &mut Reader<'_>, key: &str, span: &std::ops::Range<usize>) -> bool {
    if key.starts_with(OWN_PREFIX) || key.starts_with(RESERVED_PREFIX) {
        let message = format!("the label key {} is reserved", quote(key));
        reader
            .error(span, Code::ReservedLabel, message)
            .label("reserved prefix")
            .help(format!("`{OWN_PREFIX}` and `{RESERVED_PREFIX}` belong to enforcer; take another key"));
        return false;
    }
    let Some(help) = label_key_problem(key) else { return true };
    let message = format!("{} can't be a label key", quote(key));
    reader.error(span, Code::BadLabel, message).label("not a valid label key").help(help);
    false
}

/// Reads the value of a label.
pub fn label_value<'n>(reader: &mut Reader<'_>, node: &'n Node, what: &str) -> Option<&'n str> {
    let text = reader.text(node, what)?;
    if is_label_value(text) {
        return Some(text);
    }
    let message = format!("{} can't be a label value", quote(text));
    reader.error(&node.span, Code::BadLabel, message).label("not a valid label value").help(
        "a label value is at most 63 letters, digits, `-`, `_` or `.`, with a letter or digit at both ends",
    );
    None
}

/// Reads a CIDR block; with `plain` also an address, which stands for itself alone.
pub fn cidr(reader: &mut Reader<'_>, node: &Node, what: &str, plain: bool) -> Option<IpNet> {
    let net = any_cidr(reader, node, what, plain)?;
    if net.addr() != net.trunc().addr() {
        let message = format!("{} has address bits behind its prefix", quote(&net.to_string()));
        let help = format!("write `{}` for the whole block, `{}` for the address", net.trunc(), single(net));
        reader.error(&node.span, Code::HostBits, message).label("host bits are set").help(help);
        return None;
    }
    Some(net)
}

/// Reads a CIDR block as Kubernetes does: address bits behind the prefix are left out. Warns of them.
pub fn loose_cidr(reader: &mut Reader<'_>, node: &Node, what: &str) -> Option<IpNet> {
    let net = any_cidr(reader, node, what, false)?;
    if net.addr() != net.trunc().addr() {
        let message =
            format!("{} has address bits behind its prefix, which don't count", quote(&net.to_string()));
        let help = format!("write `{}` for the whole block, `{}` for the address", net.trunc(), single(net));
        reader.warning(&node.span, Code::HostBits, message).label("read as the whole block").help(help);
    }
    Some(net.trunc())
}

/// Reads a CIDR block, whatever its address bits.
fn any_cidr(reader: &mut Reader<'_>, node: &Node, what: &str, plain: bool) -> Option<IpNet> {
    let text = reader.text(node, what)?;
    let address = text.parse::<core::net::IpAddr>().ok().map(IpNet::from);
    let net = match (text.parse::<IpNet>().ok(), address) {
        (Some(net), _) => net,
        (None, Some(net)) if plain => net,
        (None, address) => {
            let message = format!("{} is not a CIDR block", quote(text));
            let help = match address {
                Some(net) => format!("for this one address write `{net}`"),
                None if plain => {
                    "an address or block looks like 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32".into()
                }
                None => "a block looks like 192.0.2.0/24 or 2001:db8::/32".into(),
            };
            reader.error(&node.span, Code::BadAddress, message).label("not a CIDR block").help(help);
            return None;
        }
    };
    if let Some(v4) = mapped(net.trunc()) {
        // The kernel side judges such addresses as the IPv4 addresses they are, so this block would match nothing.
        let message = format!("{} is a block of IPv4 addresses in IPv6 form", quote(text));
        reader
            .error(&node.span, Code::BadAddress, message)
            .label("IPv4-mapped")
            .help(format!("write `{v4}`"));
        return None;
    }
    Some(net)
}

fn single(net: IpNet) -> IpNet {
    IpNet::from(net.addr())
}

/// The IPv4 block that an IPv4-mapped IPv6 block means.
fn mapped(net: IpNet) -> Option<Ipv4Net> {
    let IpNet::V6(v6) = net else { return None };
    let v4 = v6.addr().to_ipv4_mapped()?;
    Ipv4Net::new(v4, v6.prefix_len().checked_sub(96)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (kind, good, bad) in [
            (Name::Label, &["a", "a-1", "1a"][..], &["", "A", "a.b", "-a", "a-", "a_b", "ä"][..]),
            (Name::Subdomain, &["a", "a.b-c.d"][..], &["", ".", "a.", "a..b", "A", "a.-b"][..]),
            (Name::Word, &["a", "A_b.c-9"][..], &["", "-a", "a.", "a b", "a/b"][..]),
            (Name::Port, &["a", "http", "serve-80-tcp"][..], &["", "80", "a--b", "-a", "a-", "A", "a.b"][..]),
        ] {
            for text in good {
                assert!(kind.accepts(text), "{kind:?} {text}");
            }
            for text in bad {
                assert!(!kind.accepts(text), "{kind:?} {text}");
            }
            assert!(!kind.accepts(&"a".repeat(254)));
        }
        assert!(Name::Label.accepts(&"a".repeat(63)) && !Name::Label.accepts(&"a".repeat(64)));
    }

    #[test]
    fn label_keys() {
        for good in ["app", "app.kubernetes.io/name", "a/B_c", "x-1"] {
            assert_eq!(label_key_problem(good), None, "{good}");
        }
        for bad in ["", "/a", "a/", "A/b", "a/b/c", "a b", "-a", &"a".repeat(64)] {
            assert!(label_key_problem(bad).is_some(), "{bad}");
        }
        assert!(is_label_value("") && !is_label_value("a b") && !is_label_value("_a"));
    }
}
