//! Every target takes each of its seeds once, without libFuzzer: what broke one stays mended.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

const TARGETS: [(&str, &str); 8] = [
    ("api", env!("CARGO_BIN_EXE_api")),
    ("audit", env!("CARGO_BIN_EXE_audit")),
    ("cgroup_path", env!("CARGO_BIN_EXE_cgroup_path")),
    ("events", env!("CARGO_BIN_EXE_events")),
    ("packet", env!("CARGO_BIN_EXE_packet")),
    ("policy", env!("CARGO_BIN_EXE_policy")),
    ("registry", env!("CARGO_BIN_EXE_registry")),
    ("workloads", env!("CARGO_BIN_EXE_workloads")),
];

fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let files: io::Result<Vec<_>> = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect();
    files.map(|mut files| {
        files.sort();
        files
    })
}

#[test]
fn every_target_takes_its_seeds() -> io::Result<()> {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    let named = TARGETS.map(|(name, _)| seeds.join(name));
    assert_eq!(files(&seeds)?, named, "the folders of seeds are those of the targets");
    for ((name, program), folder) in TARGETS.into_iter().zip(named) {
        let seeds = files(&folder)?;
        assert!(!seeds.is_empty(), "{name} has no seeds");
        let output = Command::new(program).args(&seeds).output()?;
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name} broke ({}): {words}", output.status);
    }
    Ok(())
}
