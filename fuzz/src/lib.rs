//! How a target runs where libFuzzer is not: once for each file that is named, or with noise made of such files for a while. So
//! the suite can do both with what it has compiled anyway, and an input that broke one can be looked at without a C++ compiler.

mod noise;

use std::ffi::OsString;
use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use self::noise::Noise;

/// Stands for libFuzzer's macro of the same name.
#[macro_export]
macro_rules! fuzz_target {
    (|$data:ident: &[u8]| $body:block) => {
        fn main() -> std::io::Result<()> {
            fn run($data: &[u8]) {
                $body
            }
            $crate::main(run, &std::env::args_os().skip(1).collect::<Vec<_>>())
        }
    };
}

/// One input may take so long. The suite lets these programs give way to everybody, so they may wait long for their turn.
const LIMIT: Duration = Duration::from_mins(2);

/// Runs a target: `FILE...`, each once; or `--noise SECONDS SEED DICTIONARY CRASHES FOLDER...`, with inputs made of the files in the
/// folders, the same ones for the same seed. An input that breaks the target is kept in the folder `CRASHES`.
///
/// # Errors
/// A file that can't be read or written.
///
/// # Panics
/// When the target does.
pub fn main(target: fn(&[u8]), arguments: &[OsString]) -> io::Result<()> {
    if arguments.first().is_none_or(|first| first != "--noise") {
        return arguments.iter().try_for_each(|path| fs::read(path).map(|bytes| target(&bytes)));
    }
    let number = |at: usize| arguments.get(at).and_then(|text| text.to_str()?.parse::<u64>().ok());
    let (Some(seconds), Some(seed), Some(dictionary), Some(crashes)) =
        (number(1), number(2), arguments.get(3), arguments.get(4))
    else {
        return Err(io::Error::other("--noise SECONDS SEED DICTIONARY CRASHES FOLDER..."));
    };
    let mut noise = Noise::new(seed, &seeds(&arguments[5..])?, &words(Path::new(dictionary))?);
    make(target, &mut noise, Duration::from_secs(seconds), &Path::new(crashes).join(format!("noise-{seed}")))
}

/// Feeds the target until the time is over, and tells in libFuzzer's words how often.
fn make(target: fn(&[u8]), noise: &mut Noise, time: Duration, crash: &Path) -> io::Result<()> {
    let (start, mut count) = (Instant::now(), 0_u64);
    let now = Arc::new(Mutex::new((Instant::now(), Vec::new())));
    guard(&now, crash.to_owned());
    while start.elapsed() < time {
        let input = noise.input();
        *now.lock().unwrap_or_else(PoisonError::into_inner) = (Instant::now(), input.clone());
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(&input))) {
            fs::write(crash, &input)?;
            tell(&format!("Test unit written to {}", crash.display()));
            resume_unwind(panic);
        }
        count += 1;
    }
    let rate = count / start.elapsed().as_secs().max(1);
    tell(&format!("stat::number_of_executed_units: {count}\nstat::average_exec_per_sec: {rate}"));
    Ok(())
}

/// Ends the process if one input takes too long.
fn guard(now: &Arc<Mutex<(Instant, Vec<u8>)>>, crash: PathBuf) {
    let now = Arc::clone(now);
    thread::spawn(move || {
        loop {
            thread::sleep(Duration::from_secs(1));
            let (since, input) = now.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if since.elapsed() > LIMIT {
                let kept = fs::write(&crash, input);
                tell(&format!("timeout; Test unit written to {} ({kept:?})", crash.display()));
                std::process::abort();
            }
        }
    });
}

#[allow(clippy::print_stderr, reason = "who runs a target reads what it says, as of libFuzzer")]
fn tell(words: &str) {
    eprintln!("{words}");
}

/// The files in these folders.
fn seeds(folders: &[OsString]) -> io::Result<Vec<Vec<u8>>> {
    let mut files = Vec::new();
    for folder in folders {
        for entry in fs::read_dir(folder)? {
            files.push(entry?.path());
        }
    }
    // In the same order for the same seed.
    files.sort();
    files.iter().filter(|path| path.is_file()).map(fs::read).collect()
}

/// The words of a dictionary for libFuzzer, of which ours are one in quotes in each line. None if there is no such file.
fn words(dictionary: &Path) -> io::Result<Vec<Vec<u8>>> {
    let text = match fs::read_to_string(dictionary) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let word = |line: &str| Some(line.strip_prefix('"')?.strip_suffix('"')?.as_bytes().to_vec());
    Ok(text.lines().filter_map(word).collect())
}
