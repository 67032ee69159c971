//! From what a container runtime says to what a workload has: names and labels that fit, and paths.
//!
//! # Trust
//! Labels of a container are the words of whoever may start containers, with Docker also of whoever made the image. They
//! become labels and never anything else: which source tells a workload, its namespace and (with Kubernetes) its account come
//! from elsewhere. So labels that other sources or enforcer itself write are left out here, as are those that say how and from
//! what a container was made, which would give each container an identity of its own.

use std::collections::BTreeMap;

use super::labels::LabelSet;
use super::syntax::{Name, OWN_PREFIX, RESERVED_PREFIX, is_label_value, label_key_problem};

/// Labels of one workload; what is beyond is left out.
pub const MAX_LABELS: usize = 64;
/// Labels with these beginnings are other people's words, or about the making of the container.
const FOREIGN: [&str; 9] = [
    "io.kubernetes.",
    "io.cri-containerd.",
    "io.containerd.",
    "systemd.io/",
    "org.opencontainers.",
    "containerd.io/",
    "nerdctl/",
    "io.podman.",
    "desktop.docker.io/",
];
/// Labels that Compose writes.
const COMPOSE: &str = "com.docker.compose.";
/// Those of them that say who a container is.
const COMPOSE_KEPT: [&str; 2] = ["com.docker.compose.project", "com.docker.compose.service"];

/// Labels, and how many of those that were given can't be labels.
pub fn labels<'a>(given: impl IntoIterator<Item = (&'a String, &'a String)>) -> (LabelSet, usize) {
    let mut labels = BTreeMap::new();
    let mut left_out = 0;
    let mut given: Vec<_> = given.into_iter().filter(|(key, _)| is_told(key)).collect();
    given.sort();
    for (key, value) in given {
        let is_reserved = key.starts_with(OWN_PREFIX) || key.starts_with(RESERVED_PREFIX);
        let is_valid = !is_reserved && label_key_problem(key).is_none() && is_label_value(value);
        if is_valid && labels.len() < MAX_LABELS {
            labels.insert(key.clone(), value.clone());
        } else {
            left_out += 1;
        }
    }
    (LabelSet(labels), left_out)
}

fn is_told(key: &str) -> bool {
    let is_foreign = FOREIGN.iter().any(|prefix| key.starts_with(prefix));
    let is_making = key.starts_with(COMPOSE) && !COMPOSE_KEPT.contains(&key);
    !is_foreign && !is_making
}

/// A name for a workload: the given one if it can be, otherwise what is left of it and a check sum of the given one, so that two
/// names stay two.
pub fn name(given: &str) -> String {
    /// Keeps room for the check sum.
    const LONGEST: usize = 240;
    const LONGEST_PART: usize = 54;
    if Name::Subdomain.accepts(given) {
        return given.to_owned();
    }
    let fits = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let rest: String = given.chars().map(|c| if c == '.' { '.' } else { fits(c) }).take(LONGEST).collect();
    let short = |part: &'_ str| part.chars().take(LONGEST_PART).collect::<String>();
    let parts = rest.split('.').map(|part| short(part.trim_matches('-')).trim_matches('-').to_owned());
    let parts = parts.filter(|part| !part.is_empty());
    let rest = parts.collect::<Vec<_>>().join(".");
    let sum = format!("{:08x}", crc32fast::hash(given.as_bytes()));
    if rest.is_empty() { format!("x-{sum}") } else { format!("{rest}-{sum}") }
}

/// The directory that a `linux.cgroupsPath` of an OCI specification means: a path, or `SLICE:PREFIX:NAME` where systemd makes
/// the directories. `None` if it is relative to a directory that only the runtime knows.
pub fn cgroups_path(given: &str) -> Option<String> {
    let is_plain = |path: &str| !path.split('/').any(|part| matches!(part, "." | ".."));
    if let Some(path) = given.strip_prefix('/') {
        let path = path.trim_matches('/');
        return (!path.is_empty() && is_plain(path)).then(|| format!("/{path}"));
    }
    let mut parts = given.split(':');
    let (slice, prefix, name) = (parts.next()?, parts.next()?, parts.next()?);
    let is_whole = parts.next().is_none() && !name.is_empty() && !given.contains('/');
    let slices = slices(if slice.is_empty() { "system.slice" } else { slice })?;
    let unit = match (name.strip_suffix(".slice"), prefix) {
        (Some(_), _) => name.to_owned(),
        (None, "") => format!("{name}.scope"),
        (None, prefix) => format!("{prefix}-{name}.scope"),
    };
    is_whole.then(|| format!("{slices}/{unit}"))
}

/// The path of a slice: `a-b.slice` lies in `a.slice`.
fn slices(slice: &str) -> Option<String> {
    let name = slice.strip_suffix(".slice")?;
    if name == "-" {
        return Some(String::new());
    }
    let mut path = String::new();
    for (at, _) in name.match_indices('-').chain([(name.len(), "")]) {
        let upper = &name[..at];
        if upper.is_empty() || upper.ends_with('-') {
            return None;
        }
        path.extend(["/", upper, ".slice"]);
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_can_not_be_a_label_is_counted_and_what_is_not_meant_is_not() {
        let given = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let (labels, left_out) = labels(&given(&[
            ("app", "web"),
            ("com.docker.compose.project", "shop"),
            ("com.docker.compose.service", "api"),
            ("com.docker.compose.config-hash", "abc"),
            ("org.opencontainers.image.title", "anything at all"),
            ("io.kubernetes.pod.namespace", "kube-system"),
            ("systemd.io/unit", "sshd.service"),
            ("enforcer.dev/quarantined", "no"),
            ("reserved:host", ""),
            ("description", "with blanks"),
            ("a b", "c"),
        ]));
        assert_eq!(
            labels.to_string(),
            "app=web,com.docker.compose.project=shop,com.docker.compose.service=api"
        );
        assert_eq!(left_out, 4);
    }

    #[test]
    fn a_thousand_labels_are_a_few() {
        let given: BTreeMap<String, String> =
            (0..1_000).map(|number| (format!("l{number:04}"), "v".to_owned())).collect();
        let (labels, left_out) = labels(&given);
        assert_eq!((labels.0.len(), left_out), (MAX_LABELS, 1_000 - MAX_LABELS));
    }

    #[test]
    fn names() {
        assert_eq!(name("shop-web-1"), "shop-web-1");
        assert_eq!(name("nginx.service"), "nginx.service");
        assert!(name("shop_web_1").starts_with("shop-web-1-"));
        assert_ne!(name("a_b"), name("a-b_"));
    }

    #[test]
    fn paths_of_specifications() {
        for (given, path) in [
            ("/default/c1", Some("/default/c1")),
            ("/default/c1/", Some("/default/c1")),
            ("system.slice:docker:abc", Some("/system.slice/docker-abc.scope")),
            (":docker:abc", Some("/system.slice/docker-abc.scope")),
            ("system.slice::abc", Some("/system.slice/abc.scope")),
            (
                "kubepods-burstable-podx.slice:cri-containerd:abc",
                Some(
                    "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podx.slice/cri-containerd-abc.scope",
                ),
            ),
            ("-.slice:p:web-a.slice", Some("/web-a.slice")),
            ("", None),
            ("/", None),
            ("/a/../b", None),
            ("c1", None),
            ("a:b", None),
            ("a.slice:b:c:d", None),
            ("a--b.slice:b:c", None),
            ("a.scope:b:c", None),
            ("a.slice:../b:c", None),
        ] {
            assert_eq!(cgroups_path(given).as_deref(), path, "{given}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_given_the_answer_fits(given in "\\PC{0,300}", key in "\\PC{0,80}", value in "\\PC{0,80}") {
            prop_assert!(Name::Subdomain.accepts(&name(&given)));
            let given_labels = BTreeMap::from([(key.clone(), value.clone())]);
            let (labels, left_out) = labels(&given_labels);
            prop_assert!(labels.0.len() + left_out <= 1);
            for (key, value) in &labels.0 {
                prop_assert!(label_key_problem(key).is_none() && is_label_value(value));
            }
            if let Some(path) = cgroups_path(&given) {
                prop_assert!(path.starts_with('/') && !path.contains("/../") && !path.ends_with("/.."));
            }
        }
    }
}
