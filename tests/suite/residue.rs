//! A suite that is killed half-way leaves things behind, and `--clean` finds all of them.

use std::process::{Command, Stdio};

use enforcer_tests::{patience, residue};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::registry::Test;

pub(crate) const TESTS: &[Test] =
    &[("a_killed_suite_is_cleaned_up_after", a_killed_suite_is_cleaned_up_after)];

/// A test that has a daemon, three workloads and load on it for a while.
const VICTIM: &str = "lifecycle::killed_under_load_and_adopted";

/// Whether this process runs the daemon, and not the suite's own program.
fn is_daemon(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "enforcer")
}

fn a_killed_suite_is_cleaned_up_after() {
    let own = std::env::current_exe().unwrap();
    let mut suite = Command::new(&own).args(["--exact", VICTIM]).stdout(Stdio::null()).spawn().unwrap();
    let pid = suite.id();
    let of_suite = Pid::from_raw(i32::try_from(pid).unwrap());
    // Half-way: the daemon has pinned its links and maps. It runs, and the suite, which ends it now and then, stands still
    // while that is looked at.
    patience::until_true("the suite is in the middle", patience::seconds(60), || {
        kill(of_suite, Signal::SIGSTOP).unwrap();
        assert_eq!(suite.try_wait().unwrap(), None, "it ended too early");
        let is_middle = residue::made_by(pid).iter().any(|residue| {
            residue.pins >= 13
                && residue.processes.len() >= 4
                && residue.processes.iter().any(|pid| is_daemon(*pid))
        });
        if !is_middle {
            kill(of_suite, Signal::SIGCONT).unwrap();
        }
        is_middle
    });
    suite.kill().unwrap();
    suite.wait().unwrap();
    let left = residue::made_by(pid);
    assert!(left.iter().any(|residue| !residue.processes.is_empty() && residue.pins >= 13), "{left:?}");
    let daemons: Vec<u32> = left.iter().flat_map(|residue| residue.processes.clone()).collect();
    // Ours is alive, so what it has made stays.
    let ours = residue::made_by(std::process::id());
    let output = Command::new(&own).arg("--clean").output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    for residue in &left {
        assert!(told.contains(&residue.name), "{told}");
        assert!(!residue.cgroup.exists() && !residue.folder.exists(), "{residue}");
    }
    assert_eq!(residue::made_by(pid), []);
    for pid in daemons {
        // A zombie waits for whoever inherited it, and holds nothing.
        let gone = || std::fs::read_link(format!("/proc/{pid}/exe")).is_err();
        patience::until_true(&format!("process {pid} is gone"), patience::seconds(5), gone);
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&format!("{}{pid}-", residue::TEST)), "{mounts}");
    let gone = |residue: &residue::Residue| !residue.cgroup.exists() && !residue.folder.exists();
    // Tests beside this one may have ended, or be about to: nothing of theirs stays half.
    for residue in ours {
        patience::until_true(&format!("all of {residue} or none"), patience::seconds(5), || {
            gone(&residue) || residue.cgroup.exists()
        });
    }
}
