//! The policy language from the outside: broken documents against goldens, good ones against the model, and garbage.
//!
//! `ENFORCER_BLESS=1` writes the goldens anew. A marker `#~ slug` in a broken document promises a diagnostic of that
//! slug on its line, `#~^ slug` on the line before; no other diagnostic may appear.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "the lints' exception for tests does not see helper functions"
)]

use std::fs;
use std::path::{Path, PathBuf};

use enforcer::domain;
use enforcer::domain::cluster_file::parse_cluster;
use enforcer::domain::command::PolicyFile;
use enforcer::domain::policy::check::{Outcome, check};
use enforcer::domain::policy::diagnostic::{Code, Diagnostic};
use enforcer::domain::workload_file::parse_workloads;
use enforcer::domain::yaml::{MAX_BYTES, MAX_PROBLEMS};
use proptest::prelude::*;

#[path = "../src/cli/render/diagnostic.rs"]
#[allow(unreachable_pub, reason = "the module is written for the library")]
mod render;

#[path = "documents/pages.rs"]
mod pages;
#[path = "documents/schema.rs"]
mod schema;

const TESTDATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/domain/policy/testdata");
const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../policies");

fn file(text: &str) -> PolicyFile {
    PolicyFile { name: "policy.yaml".into(), text: text.into() }
}

fn check_one(text: &str) -> Outcome {
    check(&[file(text)])
}

/// The YAML files of a folder in the order of their names.
fn yaml_files(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    paths.sort();
    paths
}

fn named(path: &Path) -> PolicyFile {
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    PolicyFile { name, text: fs::read_to_string(path).unwrap() }
}

/// (line, slug) of every marker of a text.
fn markers(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let Some((_, marker)) = line.split_once("#~") else { continue };
        let (marker, back) = marker.strip_prefix('^').map_or((marker, 0), |marker| (marker, 1));
        found.extend(marker.split(',').map(|slug| (index + 1 - back, slug.trim().to_owned())));
    }
    found
}

/// Everything that must hold of any diagnostic, whatever the text.
fn assert_sound(files: &[PolicyFile], diagnostics: &[Diagnostic]) {
    for diagnostic in diagnostics {
        let related = diagnostic.related.iter().map(|(location, _)| location);
        for location in related.chain([&diagnostic.location]) {
            let text = &files[location.file].text;
            assert!(text.get(location.span()).is_some(), "{diagnostic}: {location:?}");
            assert_eq!(location.line, text[..location.start].matches('\n').count() + 1);
        }
        assert_eq!(diagnostic.to_string().lines().count(), 1, "{diagnostic}");
    }
    // The renderer is the one that would break on a bad span.
    assert_eq!(render::render(files, diagnostics, true).is_empty(), diagnostics.is_empty());
}

/// Compares broken documents of a folder with their goldens and markers.
fn check_broken(folder: &str, diagnose: impl Fn(&PolicyFile) -> Vec<Diagnostic>) -> usize {
    let bless = std::env::var_os("ENFORCER_BLESS").is_some();
    let paths = yaml_files(&Path::new(TESTDATA).join(folder));
    let mut wrong = Vec::new();
    for path in &paths {
        let file = named(path);
        let diagnostics = diagnose(&file);
        let files = [file];
        assert_sound(&files, &diagnostics);

        let mut actual: String =
            diagnostics.iter().flat_map(|diagnostic| [diagnostic.to_string(), "\n".into()]).collect();
        actual.push('\n');
        actual.push_str(render::render(&files, &diagnostics, false).trim_end());
        actual.push('\n');
        let golden = path.with_extension("diagnostics");
        if bless {
            fs::write(&golden, &actual).unwrap();
        }
        let found: Vec<_> =
            diagnostics.iter().map(|found| (found.line(), found.code.slug().to_owned())).collect();
        let promised = markers(&files[0].text);
        if found != promised {
            wrong.push(format!("{}\n{actual}\npromised {promised:?}\nfound    {found:?}", path.display()));
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        if actual != expected {
            wrong.push(format!("{}: ENFORCER_BLESS=1 accepts this text\n{actual}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    paths.len()
}

#[test]
fn broken_policies_are_told_everything() {
    let count = check_broken("broken", |file| check(std::slice::from_ref(file)).diagnostics);
    assert!(count >= 24, "only {count} broken documents");
}

#[test]
fn broken_workload_files_are_told_everything() {
    let count = check_broken("broken-workloads", |file| parse_workloads(file).diagnostics);
    assert!(count >= 5, "only {count} broken workload files");
}

#[test]
fn a_workload_file_describes_the_cluster_too() {
    let text = "workloads:\n- {name: web, cgroup: /web, serviceAccount: api, ports: [{name: http, port: 8080}, {name: dns, \
                protocol: UDP, port: 53}]}\nnamespaces:\n- {name: shop, labels: {team: a}}\nservices:\n- name: db\n  \
                namespace: shop\n  addresses: [10.96.0.1]\n  ports: [{port: 80, backends: [{address: 10.0.0.1, port: 8080}]}]\n";
    let found = parse_workloads(&PolicyFile { name: "w.yaml".into(), text: text.into() });
    let found = found.into_result().unwrap();
    let web = &found.workloads[0];
    assert_eq!(web.account.as_deref(), Some("api"));
    let ports: Vec<_> =
        web.ports.iter().map(|(name, port)| (name.as_str(), port.protocol, port.port)).collect();
    assert_eq!(ports, [("dns", 17, 53), ("http", 6, 8080)]);
    assert_eq!(found.namespaces[0].labels.0["team"], "a");
    let service = &found.services[0];
    assert_eq!(service.key().to_string(), "shop/db");
    assert_eq!(service.addresses[0].to_string(), "10.96.0.1");
    let port = &service.ports[0];
    assert_eq!((port.protocol, port.port, port.backends[0].port), (6, 80, 8080));
    assert_eq!(port.backends[0].address.to_string(), "10.0.0.1");
}

#[test]
fn broken_cluster_files_are_told_everything() {
    let count = check_broken("broken-clusters", |file| parse_cluster(std::slice::from_ref(file)).diagnostics);
    assert!(count >= 2, "only {count} broken cluster files");
}

#[test]
fn bombs_of_every_kind_get_a_diagnostic() {
    let rules = |head: &str, rule: &str| format!("{head}[{}]}}", format!("{rule}, ").repeat(100_000));
    let network = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: a}\n";
    let cluster =
        "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: a}\n";
    let traffic = "apiVersion: enforcer.dev/v1alpha1\nkind: ClusterTrafficPolicy\nmetadata: {name: a}\n";
    let subject = "spec: {tier: Admin, priority: 1, subject: {namespaces: {}}, egress: ";
    let bombs = [
        rules(&format!("{network}spec: {{podSelector: {{}}, ingress: "), "{}"),
        rules(&format!("{cluster}{subject}"), "{}"),
        rules(&format!("{traffic}spec: {{subject: {{namespaces: ['*']}}, ingress: "), "{}"),
        format!("{network}# {}", "x".repeat(10 << 20)),
        format!("apiVersion: v1\nkind: List\nitems: [{}]", "[], ".repeat(100_000)),
        format!("apiVersion: v1\nkind: List\nitems: {}", "[".repeat(100_000)),
        format!("{network}spec: &a {{podSelector: {{}}, ingress: [*a, *a]}}\n"),
        format!("{network}spec: {{podSelector: {{matchLabels: {{a: b, a: c}}}}}}\n"),
    ];
    let codes = [
        Code::TooLarge,
        Code::TooLarge,
        Code::TooLarge,
        Code::TooLarge,
        Code::TooLarge,
        Code::TooDeep,
        Code::YamlAlias,
        Code::DuplicateKey,
    ];
    for (text, code) in bombs.into_iter().zip(codes) {
        let files = [file(&text)];
        let outcome = check(&files);
        let told: Vec<_> = outcome.diagnostics.iter().map(|found| found.code).collect();
        let head: String = text.chars().take(120).collect();
        assert!(told.contains(&code) && told.len() <= MAX_PROBLEMS + 1, "{head}: {told:?}");
        assert!(!outcome.is_ok() && outcome.policies.is_empty());
    }
}

#[test]
fn an_error_anywhere_accepts_nothing() {
    for path in yaml_files(&Path::new(TESTDATA).join("broken")) {
        let outcome = check(&[named(&path)]);
        assert!(outcome.is_ok() || outcome.policies.is_empty(), "{}", path.display());
    }
}

#[test]
fn duplicates_across_files_name_both() {
    let text = "apiVersion: enforcer.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: a}\n\
                spec: {subject: {}, ingress: []}\n";
    let files = [
        PolicyFile { name: "a.yaml".into(), text: text.into() },
        PolicyFile { name: "b.yaml".into(), text: text.into() },
    ];
    let outcome = check(&files);
    assert_sound(&files, &outcome.diagnostics);
    let [diagnostic] = &outcome.diagnostics[..] else { panic!("{:?}", outcome.diagnostics) };
    assert_eq!(
        diagnostic.to_string(),
        "b.yaml:3:18: error[duplicate]: the policy `default/a` is defined twice; a.yaml:3:18: first; \
         help: rename one of them, or merge their rules"
    );
    let rendered = render::render(&files, &outcome.diagnostics, false);
    assert!(rendered.contains("--> b.yaml:3:18") && rendered.contains("::: a.yaml:3:18"), "{rendered}");
}

#[test]
fn bombs_get_a_diagnostic() {
    let head = "apiVersion: enforcer.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: a}\n";
    let many = |item: &str, times: usize| item.repeat(times);
    let bombs = [
        ("# ".to_owned() + &many("x", MAX_BYTES), Code::TooLarge),
        (head.to_owned() + "spec: {subject: {}, ingress: [" + &many("{}, ", 1_001) + "]}", Code::TooLarge),
        (
            head.to_owned()
                + "spec: {subject: {}, ingress: [{from: ["
                + &many("{workloads: {}}, ", 1_001)
                + "]}]}",
            Code::TooLarge,
        ),
        (head.to_owned() + "spec:\n" + &many("- ", 100_000), Code::TooDeep),
        (head.to_owned() + "spec: " + &many("{a: ", 100_000), Code::TooDeep),
        (head.to_owned() + "spec: " + &many("[", 900_000), Code::TooDeep),
        (
            head.to_owned()
                + "spec: {"
                + &(0..90_000).flat_map(|n| ["k".into(), n.to_string(), ": 1, ".into()]).collect::<String>()
                + "}",
            Code::TooMany,
        ),
        (head.to_owned() + &many("a: 1\n", 200_000), Code::TooMany),
        (many("---\na\n", 170_000), Code::TooMany),
        (many("---\n{\n", 170_000), Code::TooMany),
        (many("? ", 500_000), Code::TooDeep),
        (many("&a ", 300_000), Code::YamlSyntax),
        (many("a: &a\n", 150_000), Code::TooMany),
        ("a: \"".to_owned() + &many("\\u0041", 150_000), Code::YamlSyntax),
    ];
    for (text, code) in bombs {
        let files = [file(&text)];
        let outcome = check(&files);
        assert!(outcome.diagnostics.len() <= MAX_PROBLEMS + 1);
        assert_sound(&files, &outcome.diagnostics);
        let told = outcome.diagnostics.iter().any(|diagnostic| diagnostic.code == code);
        let head: String = text.chars().skip(80).take(60).collect();
        assert!(told, "{head:?}: {}", outcome.diagnostics.last().map_or(String::new(), ToString::to_string));
        assert!(!outcome.is_ok());
    }
}

/// A valid document that uses everything.
const FULL: &str = r#"# Kommentar: ä
apiVersion: enforcer.dev/v1alpha1
kind: TrafficPolicy
metadata:
  name: db-only-from-api
  namespace: prod
  labels: {team: "1"}
  annotations: {note: 'it''s ü', "long": |
      text
  }
spec:
  mode: audit
  errno: EHOSTUNREACH
  subject:
    matchLabels: {app: db}
    matchExpressions: [{key: tier, operator: In, values: [a, b]}, {key: x.y/z, operator: DoesNotExist}]
  ingress:
    - name: from-api
      from:
        - workloads: {matchLabels: {app: api}}
        - workloads: {}
          namespaces: ["*"]
        - workloads: {}
          namespaces: [b, a, b]
        - cidr: 192.0.2.0/24
          except: [192.0.2.128/25]
        - entity: host
      ports:
        - port: 5432
        - {protocol: UDP, port: 53, endPort: 60}
        - {protocol: SCTP}
    - action: Deny
      errno: ECONNREFUSED
      from: []
      ports: [{port: 22}]
      expiresAt: 2026-11-22T13:53:39.5+01:00
  egress: []
  listen:
    - name: db
      ports: [{port: 5432}]
    - {action: Deny, errno: EACCES, expiresAt: "2026-11-22T12:53:39Z"}
  expiresAt: 2100-01-01T00:00:00Z
"#;

#[test]
fn the_full_document_means_what_it_says() {
    use domain::policy::model::{
        Action, Entity, Namespaces, Peer, Peers, PolicyMode, PortMatch, PortRange, Ports,
    };
    use domain::timestamp::Timestamp;
    use enforcer_common::reason::Errno;

    let text = FULL.replace(", \"long\": |\n      text\n  }", "}");
    let outcome = check_one(&text);
    assert!(outcome.is_ok(), "{:?}", outcome.diagnostics);
    let policy = &outcome.policies[0].policy;
    assert_eq!(policy.key.to_string(), "prod/db-only-from-api");
    assert_eq!((policy.mode, policy.errno), (PolicyMode::Audit, Errno::HostUnreach));
    assert_eq!(policy.subject.selector.requirements.len(), 3);
    assert_eq!(policy.egress.as_deref(), Some(&[][..]));
    let [allow, deny] = policy.ingress.as_deref().unwrap() else { panic!("{policy:?}") };
    assert_eq!((allow.name.as_deref(), allow.action, allow.errno), (Some("from-api"), Action::Allow, None));
    assert_eq!((deny.action, deny.errno), (Action::Deny, Some(Errno::ConnRefused)));
    assert_eq!(deny.peers, Peers::Everyone);
    let moment = |text| Timestamp::parse(text);
    assert_eq!(deny.expires, moment("2026-11-22T12:53:39.5Z"));
    let [listen, never] = policy.listen.as_deref().unwrap() else { panic!("{policy:?}") };
    assert_eq!((listen.name.as_deref(), &listen.peers, listen.expires), (Some("db"), &Peers::Everyone, None));
    let whole = moment("2026-11-22T12:53:39Z");
    assert_eq!((never.action, never.errno, never.expires), (Action::Deny, Some(Errno::Access), whole));
    assert_eq!(policy.expires, moment("2100-01-01T00:00:00Z"));
    assert_eq!(policy.expiries().count(), 3);
    let Peers::AnyOf(peers) = &allow.peers else { panic!("{allow:?}") };
    let namespaces: Vec<_> = peers[..3]
        .iter()
        .map(|peer| match peer {
            Peer::Workloads { namespaces, .. } => namespaces.clone(),
            _ => panic!("{peer:?}"),
        })
        .collect();
    let named = Namespaces::Named(vec!["a".into(), "b".into()]);
    assert_eq!(namespaces, [Namespaces::Own, Namespaces::All, named]);
    assert!(matches!(&peers[3], Peer::Cidr { net, except } if net.prefix_len() == 24 && except.len() == 1));
    assert_eq!(peers[4], Peer::Entity(Entity::Host));
    let range = |protocol, first, last| PortMatch::Range(PortRange { protocol, first, last });
    let ports = vec![range(6, 5432, 5432), range(17, 53, 60), range(132, 0, 65535)];
    assert_eq!(allow.ports, Ports::AnyOf(ports));
}

#[test]
fn a_documents_text_checks_to_the_same_policy() {
    let one = |name: &str| {
        format!(
            "apiVersion: enforcer.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: {name}}}\n\
             spec: {{subject: {{}}, ingress: []}} # ü\n"
        )
    };
    let text = format!(
        "%YAML 1.2\n# first\n---\n{}\n---\n# nothing\n---\n\n# second\n{}...\n# third\n---\n{}",
        one("a"),
        one("b"),
        one("c")
    );
    let outcome = check_one(&text);
    assert!(outcome.is_ok(), "{:?}", outcome.diagnostics);
    let names: Vec<_> = outcome.policies.iter().map(|checked| checked.policy.key.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    assert_eq!(outcome.policies[1].text, format!("# second\n{}", one("b")));
    for checked in &outcome.policies {
        let again = check_one(&checked.text);
        assert_eq!(again.policies.len(), 1, "{}: {:?}", checked.text, again.diagnostics);
        assert_eq!(again.policies[0].policy, checked.policy);
        assert_eq!(again.policies[0].text, checked.text);
    }
}

#[test]
fn json_windows_lines_and_a_byte_order_mark_read_the_same() {
    let json = "{\r\n\t\"apiVersion\": \"enforcer.dev/v1alpha1\", \"kind\": \"TrafficPolicy\",\r\n\t\"metadata\":\
                {\"name\": \"a\"}, \"spec\": {\"subject\": {}, \"ingress\": []}\r\n}\r\n";
    let yaml = "\u{feff}apiVersion: enforcer.dev/v1alpha1\r\nkind: TrafficPolicy\r\nmetadata:\r\n  name: a\r\n\
                spec:\r\n  subject: {}\r\n  ingress: []\r\n";
    let [json, yaml] = [json, yaml].map(check_one);
    assert!(json.is_ok() && yaml.is_ok(), "{:?} {:?}", json.diagnostics, yaml.diagnostics);
    assert_eq!(json.policies[0].policy, yaml.policies[0].policy);
}

#[test]
fn examples_are_accepted_without_a_warning() {
    let mut paths = yaml_files(Path::new(EXAMPLES));
    paths.retain(|path| !path.to_string_lossy().ends_with(".expect.yaml"));
    assert!(paths.len() >= 5);
    for path in paths {
        let outcome = check(&[named(&path)]);
        assert!(outcome.diagnostics.is_empty(), "{:?}", outcome.diagnostics);
        assert!(path.with_extension("expect.yaml").exists(), "{} has no expectations", path.display());
    }
}

#[test]
fn workloads_mean_what_they_say() {
    let text = "workloads:\n  - name: web\n    labels: {app: web}\n    cgroup: /demo/web\n  - name: far\n    \
                namespace: prod\n    addresses: [192.0.2.10, 2001:db8::/64]\n";
    let outcome = parse_workloads(&file(text));
    assert!(outcome.is_ok(), "{:?}", outcome.diagnostics);
    let [web, far] = &outcome.workloads[..] else { panic!("{outcome:?}") };
    assert_eq!((web.key.to_string(), web.labels.to_string()), ("default/web".into(), "app=web".into()));
    assert_eq!(web.cgroup.as_deref(), Some("/demo/web"));
    let addresses: Vec<_> = far.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(
        (far.key.to_string(), addresses),
        ("prod/far".into(), vec!["192.0.2.10/32".into(), "2001:db8::/64".into()])
    );
    assert!(parse_workloads(&file("workloads: []")).diagnostics.is_empty());
}

/// Checks a text in every way there is; the point is that nothing panics and every place is inside.
fn survive(text: &str) {
    let files = [file(text)];
    let outcome = check(&files);
    assert_sound(&files, &outcome.diagnostics);
    for checked in &outcome.policies {
        let again = check_one(&checked.text);
        assert_eq!(again.policies.len(), 1, "{:?}: {:?}", checked.text, again.diagnostics);
        assert_eq!(again.policies[0].policy, checked.policy, "{:?}", checked.text);
    }
    assert_sound(&files, &parse_workloads(&files[0]).diagnostics);
    assert_sound(&files, &parse_cluster(&files).diagnostics);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        survive(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn yaml_like_garbage_never_panics(text in "([-?:,\\[\\]{}#&*!|>'\"%@`~ \t\n\rabk0é日]|--- |\\.\\.\\.\n|: |- ){0,120}") {
        survive(&text);
    }

    #[test]
    fn mutated_documents_never_panic(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), 0_usize..12, "[-?:,\\[\\]{}#&*!|>'\" \t\n\u{e9}0a]{0,4}"), 1..6)
    ) {
        let mut characters: Vec<char> = FULL.chars().collect();
        for (at, remove, insert) in edits {
            let at = at.index(characters.len() + 1);
            let end = (at + remove).min(characters.len());
            characters.splice(at..end, insert.chars());
        }
        survive(&characters.into_iter().collect::<String>());
    }
}
