//! Every result as it is printed.

use enforcer::api::client::Record;
use enforcer::cli::render::{flow, json, lists, policy, preflight, probe, status};
use enforcer::domain::command::PolicyInfo;
use enforcer::domain::conditions::PolicyStatus;
use enforcer::domain::timestamp::Timestamp;
use enforcer::kernel::preflight::{Check, Preflight, Verdict};
use enforcer::kernel::probe::{Feature, ProbeReport, ProgramCost};

use crate::golden::check;
use crate::samples;

#[test]
fn tables() {
    check("policies.txt", &lists::policies(&samples::policies()));
    let now = Timestamp { seconds: 1_795_352_123, nanos: 0 };
    check("policies.wide.txt", &lists::policies_wide(&samples::policies(), now));
    check("identities.txt", &lists::identities(&samples::identities()));
    check("endpoints.txt", &lists::endpoints(&samples::endpoints()));
    check("empty.txt", &lists::policies(&[]));
}

#[test]
fn json_has_its_version_in_front() {
    check("policies.json", &json::list("policies", &samples::policies()).unwrap());
    check("identities.json", &json::list("identities", &samples::identities()).unwrap());
    check("endpoints.json", &json::list("endpoints", &samples::endpoints()).unwrap());
    check("status.json", &json::object(&samples::status()).unwrap());
    check("changed.json", &json::object(&samples::changed(false)).unwrap());
}

#[test]
fn flows() {
    let flows = samples::flows();
    let compact: String = flows.iter().map(|it| flow::compact(it, false, false)).collect();
    check("flows.compact.txt", &compact);
    let mut table = flow::FlowTable::new(false);
    let lines: String = flows.iter().map(|it| table.line(it, false)).collect();
    check("flows.table.txt", &lines);
    let records = flows.into_iter().map(|flow| Record::Flow(Box::new(flow))).chain([Record::Lost(12)]);
    let lines: String = records.map(|record| flow::json(&record, "").unwrap()).collect();
    check("flows.json.txt", &lines);
}

#[test]
fn colour_is_only_an_addition() {
    let bare = |text: &str| {
        ["\x1b[1;31m", "\x1b[32m", "\x1b[33m", "\x1b[1m", "\x1b[0m"]
            .iter()
            .fold(text.to_owned(), |text, code| text.replace(code, ""))
    };
    for it in samples::flows() {
        let colored = flow::compact(&it, false, true);
        assert_ne!(colored, flow::compact(&it, false, false));
        assert_eq!(bare(&colored), flow::compact(&it, false, false));
    }
    let colored = status::status(&samples::degraded(), true);
    assert_eq!(bare(&colored), status::status(&samples::degraded(), false));
}

#[test]
fn states() {
    check("status.txt", &status::status(&samples::status(), false));
    check("status.degraded.txt", &status::status(&samples::degraded(), false));
}

#[test]
fn changes() {
    check("changed.txt", &policy::changed(&samples::changed(false)));
    check("changed.dry-run.txt", &policy::changed(&samples::changed(true)));
    let warnings = policy::warnings(&samples::changed(false));
    assert_eq!(warnings, ["default/idle selects no workload now; see `enforcer endpoint list`"]);
    assert_eq!(policy::document("a: 1\r\nb: \u{1b}[2J #\t"), "a: 1\nb: \\u{1b}[2J #\t\n");
}

#[test]
fn a_status_is_a_field_of_the_document_or_a_comment() {
    let [sample, _] = &samples::policies()[..] else { panic!("two policies") };
    check("policy.status.yaml", &(policy::document(&sample.text) + &policy::status(sample)));
    let with = |text: &str| policy::status(&PolicyInfo { text: text.into(), ..sample.clone() });
    assert!(with("---\n# x\n  kind: TrafficPolicy\n").starts_with("  status:\n    conditions:\n"));
    assert!(with("{kind: TrafficPolicy}\n").starts_with("# status:\n#   conditions:\n"));
    assert!(with("kind: NetworkPolicy\nstatus: {}\n").lines().all(|line| line.starts_with("# ")));
    assert_eq!(policy::status(&PolicyInfo { status: PolicyStatus::default(), ..sample.clone() }), "");
}

#[test]
fn probes() {
    let feature = |name: &str, present, required, detail: &str| Feature {
        name: name.into(),
        present,
        required,
        detail: detail.into(),
    };
    let good = ProbeReport {
        kernel: "6.12.0".into(),
        features: vec![
            feature("cgroup-v2", true, true, "mounted at /sys/fs/cgroup"),
            feature("BPF LSM", false, false, "refuses packet sockets; the kernel was booted without lsm=bpf"),
        ],
    };
    check("probe.txt", &probe::report(&good, false));
    let mut bad = good;
    bad.features.push(feature("cgroup-sock-addr", false, true, "needs Linux 4.17"));
    check("probe.missing.txt", &probe::report(&bad, false));
    check("probe.json", &json::object(&bad).unwrap());
    let cost = ProgramCost {
        program: "connect4".into(),
        instructions_verified: 12_345,
        xlated_bytes: 4096,
        jited_bytes: 2048,
        load_microseconds: 900,
    };
    check("probe.programs.txt", &probe::costs(&[cost]));
}

#[test]
fn preflights() {
    let check_of = |name, result, detail: &str, next: &str| Check {
        name,
        result,
        detail: detail.into(),
        next: next.into(),
    };
    let found = Preflight {
        node: "one".into(),
        kernel: "6.12.0".into(),
        checks: vec![
            check_of("kernel", Verdict::Ok, "Linux 6.12.0", ""),
            check_of("clock", Verdict::Warn, "not synchronized", "`timedatectl set-ntp true`"),
            check_of(
                "monitoring port",
                Verdict::Fail,
                "127.0.0.1:9962: in use",
                "`ss -ltnp` tells whose it is",
            ),
        ],
    };
    check("preflight.txt", &preflight::preflight(&found, false));
    check("preflight.json", &json::object(&found).unwrap());
}
