//! Service accounts, by name or as SPIFFE ID (`spiffe://<trust-domain>/ns/<namespace>/sa/<account>`, the form that
//! Kubernetes workloads have in SPIFFE).

use std::fmt;
use std::str::FromStr;

use super::syntax::Name;

/// Trust domain of the workloads that this host knows; `cluster.local` unless the configuration says another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustDomain(String);

impl Default for TrustDomain {
    fn default() -> Self {
        Self("cluster.local".to_owned())
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TrustDomain {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if is_domain(text) { Ok(Self(text.to_owned())) } else { Err(Invalid::TrustDomain) }
    }
}

/// SPIFFE ID 2.1: at most 255 bytes of these.
fn is_domain(text: &str) -> bool {
    (1..=255).contains(&text.len())
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_'))
}

/// Which service accounts are meant. `None` is any.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountPattern {
    /// Trust domain.
    pub trust_domain: Option<String>,
    /// Namespace of the account.
    pub namespace: Option<String>,
    /// Name of the account.
    pub account: Option<String>,
}

impl AccountPattern {
    /// Whether it means the account of a workload in this namespace. A workload without account has no SPIFFE ID.
    pub fn matches(&self, domain: &TrustDomain, namespace: &str, account: Option<&str>) -> bool {
        let is = |pattern: &Option<String>, value: &str| pattern.as_deref().is_none_or(|it| it == value);
        let Some(account) = account else { return false };
        is(&self.trust_domain, &domain.0) && is(&self.namespace, namespace) && is(&self.account, account)
    }
}

/// As a SPIFFE ID, with `*` for any.
impl fmt::Display for AccountPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |part: &'_ Option<String>| part.clone().unwrap_or_else(|| "*".to_owned());
        let Self { trust_domain, namespace, account } = self;
        write!(f, "spiffe://{}/ns/{}/sa/{}", text(trust_domain), text(namespace), text(account))
    }
}

/// Why a text is no pattern of SPIFFE IDs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The scheme is missing.
    #[error("a SPIFFE ID starts with `spiffe://`")]
    Scheme,
    /// The trust domain is none.
    #[error("the trust domain has lower case letters, digits, `.`, `-` and `_` only, or is `*`")]
    TrustDomain,
    /// The path is none of a service account.
    #[error("the path is `/ns/NAMESPACE/sa/ACCOUNT`, where `*` may stand for a whole name")]
    Path,
}

impl FromStr for AccountPattern {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let rest = text.strip_prefix("spiffe://").ok_or(Invalid::Scheme)?;
        let (domain, path) = rest.split_once('/').unwrap_or((rest, ""));
        let part = |text: &str| (text != "*").then(|| text.to_owned());
        if domain != "*" && !is_domain(domain) {
            return Err(Invalid::TrustDomain);
        }
        let segments: Vec<&str> = path.split('/').collect();
        let ["ns", namespace, "sa", account] = segments[..] else { return Err(Invalid::Path) };
        let named = |name: Name, text: &str| text == "*" || name.accepts(text);
        if !named(Name::Label, namespace) || !named(Name::Subdomain, account) {
            return Err(Invalid::Path);
        }
        Ok(Self { trust_domain: part(domain), namespace: part(namespace), account: part(account) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_read_as_they_are_shown_and_match_whole_names() {
        for (text, shop, bank) in [
            ("spiffe://cluster.local/ns/shop/sa/api", true, false),
            ("spiffe://*/ns/*/sa/api", true, true),
            ("spiffe://cluster.local/ns/*/sa/*", true, true),
            ("spiffe://other.example/ns/shop/sa/api", false, false),
            ("spiffe://cluster.local/ns/shop/sa/ap", false, false),
        ] {
            let pattern: AccountPattern = text.parse().unwrap();
            assert_eq!(pattern.to_string(), text);
            let own = TrustDomain::default();
            assert_eq!(pattern.matches(&own, "shop", Some("api")), shop, "{text}");
            assert_eq!(pattern.matches(&own, "bank", Some("api")), bank, "{text}");
            assert!(!pattern.matches(&own, "shop", None));
        }
        let other: TrustDomain = "other.example".parse().unwrap();
        let pattern: AccountPattern = "spiffe://other.example/ns/shop/sa/api".parse().unwrap();
        assert!(pattern.matches(&other, "shop", Some("api")));
        assert_eq!("Other".parse::<TrustDomain>(), Err(Invalid::TrustDomain));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for (text, problem) in [
            ("https://cluster.local/ns/a/sa/b", Invalid::Scheme),
            ("spiffe:///ns/a/sa/b", Invalid::TrustDomain),
            ("spiffe://Cluster.local/ns/a/sa/b", Invalid::TrustDomain),
            ("spiffe://*.local/ns/a/sa/b", Invalid::TrustDomain),
            ("spiffe://cluster.local", Invalid::Path),
            ("spiffe://cluster.local/ns/a/sa", Invalid::Path),
            ("spiffe://cluster.local/ns/a/sa/b/c", Invalid::Path),
            ("spiffe://cluster.local/ns/a*/sa/b", Invalid::Path),
            ("spiffe://cluster.local/ns//sa/b", Invalid::Path),
        ] {
            assert_eq!(text.parse::<AccountPattern>(), Err(problem), "{text}");
        }
    }
}
