//! What runtimes write into the paths of cgroup directories: UIDs of pods, ids of containers.
//!
//! ```text
//!   /kubepods/burstable/pod<UID>/<id>                                                  kubelet, driver cgroupfs
//!   /kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<UID_>.slice/...    kubelet, driver systemd
//!       .../cri-containerd-<id>.scope   .../crio-<id>.scope[/container]
//!   /docker/<id>   /system.slice/docker-<id>.scope   /libpod_parent/libpod-<id>   /machine.slice/libpod-<id>.scope
//! ```
//!
//! All of it may have a prefix (a node that is a container itself), which systemd repeats in the names below it. So neither
//! depth nor start of a path is believed, only whole components. A static pod has no UUID but the hash of its
//! configuration, 32 hex digits.

use std::fmt;

/// UID of a pod, or the configuration hash of a static one: 128 bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodUid(u128);

impl PodUid {
    /// Reads 32 hex digits, with `-` (an API object) or `_` (a slice of systemd) between the groups of a UUID, or nothing.
    pub fn parse(text: &str) -> Option<Self> {
        const SEPARATORS: [usize; 4] = [8, 13, 18, 23];
        const DIGITS: usize = 32;
        let digits: String = match text.len() {
            DIGITS => text.to_owned(),
            36 => {
                let separator = text.as_bytes()[8];
                let is_separated = SEPARATORS.iter().all(|at| text.as_bytes()[*at] == separator);
                if !is_separated || !matches!(separator, b'-' | b'_') {
                    return None;
                }
                text.replace(char::from(separator), "")
            }
            _ => return None,
        };
        let is_hex = digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        u128::from_str_radix(&digits, 16).ok().filter(|_| is_hex).map(Self)
    }
}

impl fmt::Debug for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Id of a container: 256 bits, which runtimes write as 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId([u128; 2]);

impl ContainerId {
    /// Reads 64 hex digits, and nothing else.
    pub fn parse(text: &str) -> Option<Self> {
        const DIGITS: usize = 64;
        let is_hex = text.len() == DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let (high, low) = is_hex.then(|| text.split_at(DIGITS / 2))?;
        let half = |half| u128::from_str_radix(half, 16).ok();
        Some(Self([half(high)?, half(low)?]))
    }
}

impl fmt::Debug for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}{:032x}", self.0[0], self.0[1])
    }
}

/// Whose a directory is by its path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// The pod, if it is the directory of a pod itself.
    pub pod: Option<PodUid>,
    /// The container, if it is the directory of a container itself.
    pub container: Option<ContainerId>,
    /// Whether it lies below the directory of a container. Whoever is root in a container may be able to make directories
    /// there, with any name; so of two directories that say the same, the one that lies below no container is meant.
    pub nested: bool,
}

/// Reads the path of a directory, relative to the root of the tree.
///
/// What lies below the directory of a pod is never another pod, nor is what lies below a container of a pod another
/// container: the name was chosen in the pod.
pub fn owner(path: &str) -> Owner {
    let mut owner = Owner::default();
    let (mut in_pod, mut in_container_of_pod) = (false, false);
    for component in components(path) {
        owner.nested |= owner.container.is_some();
        in_container_of_pod |= in_pod && owner.container.is_some();
        owner.pod = pod(component).filter(|_| !in_pod);
        owner.container = container(component).filter(|_| !in_container_of_pod);
        in_pod |= owner.pod.is_some();
    }
    owner
}

/// The directory of the pod in which something lies: how far the path of the pod's own directory goes, and the pod.
pub fn pod_of(path: &str) -> Option<(&str, PodUid)> {
    let found = components(path).find_map(|component| Some((component, pod(component)?)));
    let (component, uid) = found?;
    let end = component.as_ptr() as usize - path.as_ptr() as usize + component.len();
    Some((&path[..end], uid))
}

fn components(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|component| !component.is_empty())
}

/// `pod<UID>` of a component: alone, or behind a `-` of systemd's and with `.slice` behind it.
fn pod(component: &str) -> Option<PodUid> {
    const MARK: &str = "pod";
    let name = component.strip_suffix(".slice").unwrap_or(component);
    name.rmatch_indices(MARK).find_map(|(at, _)| {
        let is_whole = at == 0 || name.as_bytes()[at - 1] == b'-';
        PodUid::parse(&name[at + MARK.len()..]).filter(|_| is_whole)
    })
}

/// The id of a component: alone, or behind a `-` of systemd's and with `.scope` behind it. A monitor (`crio-conmon-`) has
/// the id of its container and is none.
fn container(component: &str) -> Option<ContainerId> {
    let name = component.strip_suffix(".scope").unwrap_or(component);
    let (prefix, id) = name.rsplit_once('-').unwrap_or(("", name));
    ContainerId::parse(id).filter(|_| !prefix.ends_with("conmon"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UID: &str = "3b8c2d1e-0f4a-4c6b-9d7e-5a1b2c3d4e5f";
    const HASH: &str = "77c1b263d6feb1b70a4d4041548834fd";
    const ID: &str = "d0f1e2a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f";
    const OTHER: &str = "0000000000000000000000000000000000000000000000000000000000000001";

    fn fill(row: &str) -> String {
        let names = [
            ("UID_", UID.replace('-', "_")),
            ("UID", UID.into()),
            ("HASH", HASH.into()),
            ("OTHER", OTHER.into()),
        ];
        let filled =
            names.iter().fold(row.to_owned(), |row, (name, value)| row.replace(&format!("<{name}>"), value));
        filled.replace("<id>", ID)
    }

    /// Every row of what runtimes were seen or are documented to do.
    #[test]
    fn every_form_is_read() {
        for (row, pod, container) in [
            ("/kubepods/pod<UID>", Some(UID), None),
            ("/kubepods/pod<UID>/<id>", None, Some(ID)),
            ("/kubepods/burstable/pod<UID>", Some(UID), None),
            ("/kubepods/burstable/pod<UID>/<id>", None, Some(ID)),
            ("/kubepods/besteffort/pod<HASH>", Some(HASH), None),
            ("/kubepods.slice/kubepods-pod<UID_>.slice", Some(UID), None),
            ("/kubepods.slice/kubepods-pod<UID_>.slice/cri-containerd-<id>.scope", None, Some(ID)),
            ("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<UID_>.slice", Some(UID), None),
            (
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod<HASH>.slice",
                Some(HASH),
                None,
            ),
            ("/kubepods.slice/kubepods-pod<UID_>.slice/crio-<id>.scope", None, Some(ID)),
            ("/kubepods.slice/kubepods-pod<UID_>.slice/crio-<id>.scope/container", None, None),
            ("/kubepods.slice/kubepods-pod<UID_>.slice/crio-conmon-<id>.scope", None, None),
            ("/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod<UID_>.slice", Some(UID), None),
            ("/docker/<OTHER>/kubelet/kubepods/pod<UID>", Some(UID), None),
            ("/docker/<OTHER>/kubelet/kubepods/pod<UID>/<id>", None, Some(ID)),
            ("/docker/<id>", None, Some(ID)),
            ("/any/parent/<id>", None, Some(ID)),
            ("/system.slice/docker-<id>.scope", None, Some(ID)),
            ("/libpod_parent/libpod-<id>", None, Some(ID)),
            ("/machine.slice/libpod-<id>.scope", None, Some(ID)),
            ("/machine.slice/libpod-<id>.scope/container", None, None),
            ("/machine.slice/libpod-conmon-<id>.scope", None, None),
            ("/machine.slice/machine-libpod_pod_<id>.slice", None, None),
            ("/default/c1", None, None),
            ("/kubepods.slice/kubepods-burstable.slice", None, None),
            ("", None, None),
            ("/", None, None),
        ] {
            let found = owner(&fill(row));
            assert_eq!(found.pod, pod.and_then(PodUid::parse), "{row}");
            assert_eq!(found.container, container.and_then(ContainerId::parse), "{row}");
            assert_eq!(
                found.nested,
                row.contains("<OTHER>/") || row.ends_with("/container") && row.contains("<id>"),
                "{row}"
            );
        }
        assert_eq!(PodUid::parse(UID), PodUid::parse(&UID.replace('-', "")));
    }

    #[test]
    fn names_chosen_inside_a_pod_are_nobody_elses() {
        for row in [
            "/kubepods/pod<HASH>/pod<UID>",
            "/kubepods/pod<HASH>/<OTHER>/pod<UID>",
            "/kubepods/pod<HASH>/<OTHER>/a/<id>",
        ] {
            let found = owner(&fill(row));
            assert_eq!((found.pod, found.container), (None, None), "{row}");
        }
        let found = owner(&fill("/docker/<OTHER>/<id>"));
        assert!(found.nested && found.container.is_some(), "{found:?}");
    }

    #[test]
    fn what_only_looks_like_it_is_none() {
        for row in [
            "/xpod<UID>",
            "/pod<UID>x",
            "/pod<UID>.scope",
            "/pod3b8c2d1e-0f4a_4c6b-9d7e-5a1b2c3d4e5f",
            "/pod+b8c2d1e0f4a4c6b9d7e5a1b2c3d4e5f",
            "/podgggggggggggggggggggggggggggggggg",
            "/x<id>",
            "/<id>0",
            "/docker-<id>.service",
            "/pod\u{e9}8c2d1e-0f4a-4c6b-9d7e-5a1b2c3d4e5f",
        ] {
            assert_eq!(owner(&fill(row)), Owner::default(), "{row}");
        }
    }

    #[test]
    fn the_pod_of_a_container_is_the_outermost() {
        for (row, pod) in [
            ("/kubepods/pod<UID>/<id>", Some("/kubepods/pod<UID>")),
            ("/kubepods/pod<UID>", Some("/kubepods/pod<UID>")),
            ("/kubepods/pod<UID>/a/pod<HASH>/b", Some("/kubepods/pod<UID>")),
            ("/docker/<id>/a", None),
        ] {
            let row = fill(row);
            assert_eq!(pod_of(&row).map(|(path, _)| path.to_owned()), pod.map(fill), "{row}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic_and_finds_what_was_put_in(
            path in "(/|pod|-|_|\\.slice|\\.scope|[0-9a-f]{8}|[0-9a-f]{32}|é|\\PC){0,12}",
            uid in "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
            id in "[0-9a-f]{64}",
            systemd in any::<bool>(),
            prefix in "(/[a-z]{1,5}){0,4}",
        ) {
            let found = owner(&path);
            prop_assert!(found.pod.is_none() || pod_of(&path).is_some());
            if let Some((pod, uid)) = pod_of(&path) {
                prop_assert!(path.starts_with(pod));
                prop_assert_eq!(owner(pod).pod, Some(uid));
            }
            let (pod, container) = if systemd {
                (format!("{prefix}/a-pod{}.slice", uid.replace('-', "_")), format!("/r-{id}.scope"))
            } else {
                (format!("{prefix}/pod{uid}"), format!("/{id}"))
            };
            prop_assert_eq!(owner(&pod).pod, PodUid::parse(&uid));
            let container = format!("{pod}{container}");
            prop_assert_eq!(owner(&container).container, ContainerId::parse(&id));
            prop_assert_eq!(pod_of(&container), PodUid::parse(&uid).map(|uid| (pod.as_str(), uid)));
        }
    }
}
