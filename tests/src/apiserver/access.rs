//! Who may do what: bearer tokens, and rules in the form that roles have.

use std::collections::BTreeMap;

use enforcer::domain::command::PolicyFile;
use enforcer::domain::policy::diagnostic::Source;
use enforcer::domain::yaml::{self, Reader};
use serde_json::Value;

use super::kinds::Kind;
use super::request::Target;
use super::status::Failure;

/// One rule of a role (`PolicyRule`); `*` stands for everything.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    /// API groups; the core is empty.
    pub groups: Vec<String>,
    /// Resources, with subresources as `pods/status`.
    pub resources: Vec<String>,
    /// What may be done.
    pub verbs: Vec<String>,
    /// Names it is restricted to; empty for all.
    pub names: Vec<String>,
    /// The namespace it is restricted to; empty for all, and for those without.
    pub namespace: String,
}

/// Somebody who asks.
#[derive(Clone, Debug, Default)]
pub struct User {
    /// As refusals name them.
    pub name: String,
    /// What they may do.
    pub rules: Vec<Rule>,
}

impl User {
    /// Somebody who may do everything.
    pub fn admin(name: &str) -> Self {
        let all = || vec!["*".to_owned()];
        let rule = Rule { groups: all(), resources: all(), verbs: all(), ..Rule::default() };
        Self { name: name.into(), rules: vec![rule] }
    }

    /// Somebody who may do nothing.
    pub fn nobody(name: &str) -> Self {
        Self { name: name.into(), rules: Vec::new() }
    }

    /// The agent's account, with the rights that the manifests give it.
    pub fn agent() -> Self {
        let text = include_str!("../../../deploy/kubernetes/rbac.yaml");
        let file = PolicyFile { name: "rbac.yaml".into(), text: text.into() };
        let source = Source::new(0, &file);
        let mut reader = Reader::new(&source);
        let documents = yaml::parse(&mut reader).into_iter().map(|it| yaml::json::json(&it.root));
        let is_role = |it: &Value| matches!(it["kind"].as_str(), Some("Role" | "ClusterRole"));
        documents
            .filter(|it: &Value| is_role(it) && it["metadata"]["name"] == "enforcer")
            .fold(Self::nobody("system:serviceaccount:enforcer-system:enforcer"), |user, role| {
                user.with_role(&role)
            })
    }

    /// Adds the rules of a `Role` (with the namespace it is in) or a `ClusterRole`, as their documents have them.
    #[must_use]
    pub fn with_role(mut self, role: &Value) -> Self {
        let namespace = role["metadata"]["namespace"].as_str().unwrap_or_default();
        for rule in role["rules"].as_array().into_iter().flatten() {
            let list = |name: &str| -> Vec<String> {
                rule[name]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                    .map(str::to_owned)
                    .collect()
            };
            self.rules.push(Rule {
                groups: list("apiGroups"),
                resources: list("resources"),
                verbs: list("verbs"),
                names: list("resourceNames"),
                namespace: namespace.into(),
            });
        }
        self
    }

    fn may(&self, verb: &str, kind: &Kind, sub: &str, namespace: &str, name: &str) -> bool {
        let resource = if sub.is_empty() { kind.plural.clone() } else { format!("{}/{sub}", kind.plural) };
        let has = |list: &[String], word: &str| list.iter().any(|one| one == "*" || one == word);
        self.rules.iter().any(|rule| {
            has(&rule.verbs, verb)
                && has(&rule.groups, &kind.group)
                && has(&rule.resources, &resource)
                && (rule.namespace.is_empty() || rule.namespace == namespace)
                && (rule.names.is_empty() || rule.names.iter().any(|one| one == name))
        })
    }
}

/// Everybody who may ask.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// By bearer token.
    pub tokens: BTreeMap<String, User>,
    /// Whoever brings no token; nobody, if there is none.
    pub anonymous: Option<User>,
}

impl Access {
    /// Who brings this header.
    pub fn who(&self, authorization: Option<&str>) -> Result<User, Failure> {
        match authorization.map(|header| header.strip_prefix("Bearer ").unwrap_or_default().trim()) {
            Some(token) => self.tokens.get(token).cloned().ok_or_else(Failure::unauthorized),
            None => self.anonymous.clone().ok_or_else(Failure::unauthorized),
        }
    }

    /// Refuses what this one may not.
    pub fn check(
        user: &User,
        verb: &str,
        kind: &Kind,
        (sub, namespace, name): (&str, &str, &str),
    ) -> Result<(), Failure> {
        if user.may(verb, kind, sub, namespace, name) {
            return Ok(());
        }
        Err(Failure::forbidden(&user.name, verb, kind, sub, namespace, name))
    }
}

/// Whether somebody may do this. Since Kubernetes 1.35, executing takes the right to `create` too, whatever the method; and so does
/// an apply of what is not there yet, beside the right to `patch`.
pub fn rights(user: &User, verb: &str, target: &Target, is_new: bool) -> Result<(), Failure> {
    let Target { kind, namespace, name, sub } = target;
    Access::check(user, verb, kind, (sub, namespace, name))?;
    if target.is_exec() || is_new && sub.is_empty() {
        return Access::check(user, "create", kind, (sub, namespace, name));
    }
    Ok(())
}
