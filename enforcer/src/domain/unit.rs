//! Units of systemd as directories: which directories are units, what they are called, and which are chosen.

use super::cgroup_path::owner;
use super::labels::LabelSet;
use super::syntax::is_label_value;

/// Label with the name of the unit, for an instance that of its template without the `@`.
pub const UNIT: &str = "systemd.io/unit";
/// Label with the name of the instance.
pub const INSTANCE: &str = "systemd.io/instance";
/// Label with the slice that the unit lies in.
pub const SLICE: &str = "systemd.io/slice";

/// The name of the unit whose directory this is, as `systemctl` shows it.
///
/// Only units of the system's manager: those with nothing but slices above them. What lies below a unit was made by it (a
/// user's manager, a container), and may have any name. A container's scope is the container's.
pub fn unit(path: &str) -> Option<&str> {
    let mut components = path.split('/').skip(1).peekable();
    let found = loop {
        let component = components.next()?;
        if components.peek().is_none() {
            break component;
        }
        component.strip_suffix(".slice")?;
    };
    let is_unit = [".service", ".scope", ".slice"].iter().any(|kind| found.ends_with(kind));
    let owner = owner(path);
    let is_others = owner.pod.is_some() || owner.container.is_some() || found == "init.scope";
    // systemd puts a `_` before names that would be the kernel's own files.
    (is_unit && !is_others).then(|| found.strip_prefix('_').unwrap_or(found))
}

/// Labels of a unit.
pub fn labels(path: &str, unit: &str) -> LabelSet {
    let (stem, kind) = unit.rsplit_once('.').unwrap_or((unit, ""));
    let (template, instance) = stem.split_once('@').map_or((stem, None), |(of, name)| (of, Some(name)));
    let slice = path.rsplit('/').nth(1).filter(|slice| !slice.is_empty());
    let all = [
        (UNIT, Some(format!("{}.{kind}", unescape(template)))),
        (INSTANCE, instance.map(unescape)),
        (SLICE, slice.map(unescape)),
    ];
    let valid = all.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
    LabelSet(valid.filter(|(_, value)| is_label_value(value)).collect())
}

/// `\x2d` becomes `-`. What is no such escape stays as it is.
pub fn unescape(name: &str) -> String {
    let mut plain = String::with_capacity(name.len());
    let mut rest = name;
    while let Some((before, behind)) = rest.split_once("\\x") {
        plain.push_str(before);
        let code = behind.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        if let Some(code) = code.filter(u8::is_ascii_graphic) {
            plain.push(char::from(code));
            rest = &behind[2..];
        } else {
            plain.push_str("\\x");
            rest = behind;
        }
    }
    plain + rest
}

/// Whether a pattern means a name; `*` stands for any text, also none.
pub fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn which_directories_are_units() {
        let id = "d0f1e2a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f";
        let docker = format!("/system.slice/docker-{id}.scope");
        for (path, expected) in [
            ("/system.slice/nginx.service", Some("nginx.service")),
            ("/system.slice", Some("system.slice")),
            ("/system.slice/system-getty.slice/getty@tty1.service", Some("getty@tty1.service")),
            ("/user.slice/user-1000.slice/session-3.scope", Some("session-3.scope")),
            ("/user.slice/user-1000.slice/user@1000.service", Some("user@1000.service")),
            ("/user.slice/user-1000.slice/user@1000.service/app.slice/nginx.service", None),
            ("/system.slice/nginx.service/nginx.service", None),
            ("/system.slice/_cgroup.service", Some("cgroup.service")),
            ("/init.scope", None),
            ("/kubepods.slice/kubepods-pod77c1b263d6feb1b70a4d4041548834fd.slice", None),
            (docker.as_str(), None),
            ("/plain/nginx.service", None),
            ("/plain", None),
            ("", None),
        ] {
            assert_eq!(unit(path), expected, "{path}");
        }
    }

    #[test]
    fn labels_of_units() {
        for (path, unit, expected) in [
            (
                "/system.slice/nginx.service",
                "nginx.service",
                "systemd.io/slice=system.slice,systemd.io/unit=nginx.service",
            ),
            (
                "/system.slice/system-getty.slice/getty@tty1.service",
                "getty@tty1.service",
                "systemd.io/instance=tty1,systemd.io/slice=system-getty.slice,systemd.io/unit=getty.service",
            ),
            ("/web.slice", "web.slice", "systemd.io/unit=web.slice"),
            (
                "/system.slice/a\\x2db.service",
                "a\\x2db.service",
                "systemd.io/slice=system.slice,systemd.io/unit=a-b.service",
            ),
        ] {
            assert_eq!(labels(path, unit).to_string(), expected);
        }
    }

    #[test]
    fn patterns() {
        for (pattern, name, expected) in [
            ("nginx.service", "nginx.service", true),
            ("nginx.service", "nginx.service2", false),
            ("*.service", "nginx.service", true),
            ("app-*.service", "app-.service", true),
            ("app-*.service", "app.service", false),
            ("*", "", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("ab*ba", "aba", false),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    proptest! {
        #[test]
        fn any_name_is_read(name in "(\\\\x|[0-9a-f]|@|\\.|-|é|/|\\PC){0,20}", pattern in "(\\*|[ab]){0,8}", text in "[ab]{0,8}") {
            let _ = unit(&name);
            let labels = labels(&format!("/{name}"), &name);
            prop_assert!(labels.0.values().all(|value| is_label_value(value)));
            let naive = pattern.split('*').map(str::to_owned).collect::<Vec<_>>().join(".*");
            prop_assert_eq!(matches(&pattern, &text), naive_match(&naive, &text));
        }
    }

    /// A second reading: `.*` stands for any text.
    fn naive_match(pattern: &str, text: &str) -> bool {
        match pattern.split_at_checked(2) {
            Some((".*", rest)) => (0..=text.len()).any(|at| naive_match(rest, &text[at..])),
            _ => match (pattern.chars().next(), text.chars().next()) {
                (None, None) => true,
                (Some(a), Some(b)) if a == b => naive_match(&pattern[1..], &text[1..]),
                _ => false,
            },
        }
    }
}
