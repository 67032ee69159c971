//! Files of the state directory that somebody or something has damaged.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use enforcer::engine::{Facts, Remembered, State};
use enforcer::store::{Saved, Store};
use enforcer_tests::patience;

use super::stage::{PROBE, Stage};
use super::{Dice, Figures, is_long, sized};

const EHOSTUNREACH: i32 = 113;
/// Deny rules first and last, so that a part of it would allow more.
const PUSHED: &str = "\
apiVersion: enforcer.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: pushed}
spec:
  errno: EHOSTUNREACH
  subject: {matchLabels: {app: good}}
  egress:
    - {}
    - action: Deny
      ports: [{port: 7020}]
";

pub(super) fn state_files() {
    let mut figures = Figures::new("state-files");
    let mut dice = Dice::new("state-files");
    let mut stage = Stage::enforcing("files");
    stage.agent.cli_with(&["policy", "apply", "-f", "-"], PUSHED).expect_ok();
    assert_eq!(stage.good.connect(PROBE).errno, EHOSTUNREACH);
    assert_eq!(stage.agent.terminate(), 0);
    let state = stage.world.folder().join("state");
    let files = files(&state);
    let names: Vec<_> =
        files.iter().map(|file| file.strip_prefix(&state).unwrap().display().to_string()).collect();
    for needed in ["registry.json", "policies/default.pushed.yaml"] {
        assert!(names.iter().any(|name| name == needed), "{names:?}");
    }
    let good = read(&state).unwrap();
    let mut damage = Damage { state: &state, good: &good, tried: 0, refused: 0, wrong: Vec::new() };
    for file in &files {
        let whole = fs::read(file).unwrap();
        for length in 0..whole.len() {
            damage.attempt(file, &whole[..length]);
        }
        for _ in 0..sized(500, 10_000) {
            let mut other = whole.clone();
            let Some(bits) = u64::try_from(whole.len() * 8).ok().filter(|bits| *bits > 0) else { continue };
            let at = usize::try_from(dice.below(bits)).unwrap();
            other[at / 8] ^= 1 << (at % 8);
            damage.attempt(file, &other);
        }
        fs::write(file, whole).unwrap();
    }
    figures.note("files", files.len());
    figures.note("damages", damage.tried);
    figures.note("refused", damage.refused);
    for wrong in damage.wrong.iter().take(5) {
        println!("soak: state-files: {wrong}");
    }
    figures.exactly("taken-for-good-or-panicked", damage.wrong.len() as u64, 0);
    figures.exactly("daemon-took-it", daemon(&mut stage, &mut dice, &files), 0);
    stage.agent.run();
    assert_eq!(stage.good.connect(PROBE).errno, EHOSTUNREACH, "and whole files are read as ever");
    figures.finish();
}

/// All files below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        // Logs are not the state: they are set aside, and never keep the agent from starting.
        let name = path.file_name().unwrap().to_string_lossy();
        if name == "audit" || name.starts_with("flows.db") {
            continue;
        }
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// What the agent does with its directory before it touches the kernel.
fn read(state: &Path) -> Result<Saved, String> {
    let (store, saved) = Store::open(state).map_err(|error| error.to_string())?;
    let remembered = Remembered {
        registry: saved.registry.clone(),
        documents: saved.documents.clone(),
        quarantines: saved.quarantines.clone(),
        confirmation: saved.confirmation.clone(),
    };
    State::new(Facts::default(), remembered).map_err(|error| error.to_string())?;
    drop(store);
    Ok(saved)
}

struct Damage<'a> {
    state: &'a Path,
    good: &'a Saved,
    tried: u64,
    refused: u64,
    /// What was neither refused with a sentence nor read as if nothing had happened.
    wrong: Vec<String>,
}

impl Damage<'_> {
    fn attempt(&mut self, file: &Path, content: &[u8]) {
        fs::write(file, content).unwrap();
        self.tried += 1;
        match catch_unwind(AssertUnwindSafe(|| read(self.state))) {
            Ok(Ok(saved)) if saved == *self.good => {}
            Ok(Ok(saved)) => self.wrong.push(format!("{}: read as {saved:?}", file.display())),
            Ok(Err(message)) if message.contains(&*file.to_string_lossy()) && !message.contains('\n') => {
                self.refused += 1;
            }
            Ok(Err(message)) => self.wrong.push(format!("{}: refused by `{message}`", file.display())),
            Err(_) => self.wrong.push(format!("{}: a panic", file.display())),
        }
    }
}

/// The same with the real daemon, a few times for each file: it refuses to start, and what it left in force stays.
/// Says how often that was not so.
fn daemon(stage: &mut Stage, dice: &mut Dice, files: &[PathBuf]) -> u64 {
    let mut taken = 0;
    for file in files.iter().filter(|file| file.extension().is_some()) {
        let whole = fs::read(file).unwrap();
        for _ in 0..patience::scaled(if is_long() { 10 } else { 2 }, 1) {
            let cut = usize::try_from(dice.below(whole.len() as u64)).unwrap();
            fs::write(file, &whole[..cut]).unwrap();
            let told = stage.agent.refused(&[]);
            let named = told.stderr.contains(&*file.to_string_lossy());
            let kept = stage.good.connect(PROBE).errno == EHOSTUNREACH;
            taken += u64::from(told.code != 2 || !named || !kept);
            assert!(kept, "the last good policies stay in force: {told:#?}");
        }
        fs::write(file, whole).unwrap();
    }
    taken
}
