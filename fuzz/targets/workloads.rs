//! The file of the static source.
#![cfg_attr(feature = "libfuzzer", no_main)]

#[cfg(not(feature = "libfuzzer"))]
use enforcer_fuzz::fuzz_target;
#[cfg(feature = "libfuzzer")]
use libfuzzer_sys::fuzz_target;

use std::collections::BTreeSet;

use enforcer::cli::render::diagnostic::render;
use enforcer::domain::command::PolicyFile;
use enforcer::domain::workload_file::parse_workloads;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let files = [PolicyFile { name: "workloads.yaml".into(), text: text.into() }];
    let outcome = parse_workloads(&files[0]);
    let shown = render(&files, &outcome.diagnostics, false);
    assert!(!shown.contains('\x1b'), "an escape sequence reaches the terminal");
    assert!(outcome.is_ok() || outcome.workloads.is_empty(), "a broken file is taken in part");
    let mut names = BTreeSet::new();
    let mut cgroups = BTreeSet::new();
    for workload in &outcome.workloads {
        assert!(names.insert(&workload.key), "{} is there twice", workload.key);
        assert!(workload.cgroup.is_some() || !workload.addresses.is_empty(), "{} is nowhere", workload.key);
        if let Some(cgroup) = &workload.cgroup {
            assert!(cgroups.insert(cgroup), "{cgroup} belongs to two");
        }
        for net in &workload.addresses {
            assert!(net.prefix_len() > 0, "{} is everyone", workload.key);
        }
    }
});
