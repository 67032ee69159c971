//! Building the one configuration: defaults < file < environment < flags.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::file;
use super::settings::{Config, SETTINGS};
use super::value::Value;
use crate::domain::command::PolicyFile;
use crate::domain::policy::diagnostic::{Diagnostic, nearest};

/// The file that is read when none is named; it need not exist.
pub const DEFAULT_FILE: &str = "/etc/enforcer/enforcer.yaml";
/// Names the file in the environment.
const FILE_VARIABLE: &str = "ENFORCER_CONFIG";

/// Where settings come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// The file, if one was named.
    pub file: Option<PathBuf>,
    /// The environment.
    pub environment: Vec<(String, String)>,
    /// Flags: key of the setting and its value.
    pub flags: Vec<(&'static str, Value)>,
}

/// Where the value of one setting came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// This line of the file.
    File(PathBuf, usize),
    /// A name in the environment.
    Environment(String),
    /// A flag.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => f.write_str(name),
            Self::Flag(key) => write!(f, "--{key}"),
        }
    }
}

/// A complete configuration.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// Where each came from, in the order of [`SETTINGS`].
    pub origins: Vec<Origin>,
    /// The file that was read.
    pub file: Option<PathBuf>,
    /// What looks wrong but isn't refused, one sentence each.
    pub warnings: Vec<String>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file can't be read.
    #[error("read the configuration file {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is wrong. Carries what a renderer needs to show the places.
    #[error("the configuration file {} is not valid", file.name)]
    Document {
        /// Its name and text.
        file: PolicyFile,
        /// Everything that is wrong.
        diagnostics: Vec<Diagnostic>,
    },
    /// Values from elsewhere are wrong, one sentence each.
    #[error("{}", .0.join("\n"))]
    Values(Vec<String>),
}

/// Builds the configuration.
pub fn load(sources: &Sources) -> Result<Loaded, Error> {
    let Sources { file, environment, flags } = sources;
    let mut loaded = Loaded {
        config: Config::default(),
        origins: vec![Origin::Default; SETTINGS.len()],
        file: None,
        warnings: warnings(environment),
    };
    let named = file.clone().or_else(|| lookup(environment, FILE_VARIABLE).map(PathBuf::from));
    if let Some(text) = text(named.as_deref())? {
        let path = named.unwrap_or_else(|| DEFAULT_FILE.into());
        from_file(&mut loaded, &path, text)?;
        loaded.file = Some(path);
    }
    let mut wrong = Vec::new();
    for (index, setting) in SETTINGS.iter().enumerate() {
        let name = setting.environment();
        let variable = lookup(environment, &name)
            .map(|value| (Value::Text(value.to_owned()), Origin::Environment(name)));
        let flag = flags.iter().find(|(key, _)| *key == setting.key);
        let flag = flag.map(|(key, value)| (value.clone(), Origin::Flag(key)));
        for (value, origin) in variable.into_iter().chain(flag) {
            match setting.set(&mut loaded.config, value) {
                Ok(()) => loaded.origins[index] = origin,
                Err(message) => wrong.push(format!("{origin}: {message}")),
            }
        }
    }
    for (key, message) in loaded.config.problems() {
        let origin =
            SETTINGS.iter().position(|setting| setting.key == key).map(|index| &loaded.origins[index]);
        wrong.push(format!("{key} ({}): {message}", origin.unwrap_or(&Origin::Default)));
    }
    if wrong.is_empty() { Ok(loaded) } else { Err(Error::Values(wrong)) }
}

fn lookup<'a>(environment: &'a [(String, String)], name: &str) -> Option<&'a str> {
    environment.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// The text of the named file, or of the default one if there is one.
fn text(named: Option<&Path>) -> Result<Option<String>, Error> {
    let path = named.unwrap_or(Path::new(DEFAULT_FILE));
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if named.is_none() && error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Read { path: path.to_owned(), source }),
    }
}

fn from_file(loaded: &mut Loaded, path: &Path, text: String) -> Result<(), Error> {
    let file = PolicyFile { name: path.display().to_string(), text };
    let diagnostics = file::read(&file, |given, line| {
        let index = SETTINGS.iter().position(|setting| setting.key == given.setting.key);
        given.setting.set(&mut loaded.config, given.value)?;
        if let Some(index) = index {
            loaded.origins[index] = Origin::File(path.to_owned(), line);
        }
        Ok(())
    });
    if diagnostics.iter().any(Diagnostic::is_error) {
        Err(Error::Document { file, diagnostics })
    } else {
        Ok(())
    }
}

/// Unknown names are not refused: a Kubernetes service called `enforcer` puts `ENFORCER_SERVICE_HOST` and the like
/// into every pod's environment. What looks like a slip of the pen is told.
fn warnings(environment: &[(String, String)]) -> Vec<String> {
    let known: Vec<_> =
        SETTINGS.iter().map(super::Setting::environment).chain([FILE_VARIABLE.to_owned()]).collect();
    let unknown = environment
        .iter()
        .map(|(name, _)| name)
        .filter(|name| name.starts_with("ENFORCER_") && !known.contains(name));
    unknown
        .filter_map(|name| {
            let near = nearest(
                name.trim_start_matches("ENFORCER_"),
                known.iter().map(|known| &known["ENFORCER_".len()..]),
            )?;
            Some(format!(
                "the environment's {name} is no setting and is ignored; did you mean ENFORCER_{near}?"
            ))
        })
        .collect()
}

/// A configuration file that says what would hold without it, with the documentation of every setting.
pub fn default_document() -> String {
    let head = "# Configuration of the enforcer agent. Every value below is the default; null is none.\n\
                # The environment (ENFORCER_STATE_DIR for state-dir) overrides this file, and flags (--state-dir)\n\
                # override both.\n";
    let config = Config::default();
    let settings = SETTINGS.iter().map(|setting| {
        let doc: String = setting.doc.iter().flat_map(|line| ["#", line, "\n"]).collect();
        let value = setting.value(&config);
        let value = if setting.number { value.plain() } else { value.yaml() };
        format!("\n{doc}{}: {value}\n", setting.key)
    });
    std::iter::once(head.to_owned()).chain(settings).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::SocketKind;

    fn sources(text: &str) -> (tempfile::TempDir, Sources) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("enforcer.yaml");
        std::fs::write(&path, text).unwrap();
        (folder, Sources { file: Some(path), ..Sources::default() })
    }

    fn origin(loaded: &Loaded, key: &str) -> String {
        let index = SETTINGS.iter().position(|setting| setting.key == key).unwrap();
        loaded.origins[index].to_string()
    }

    #[test]
    fn the_default_document_is_the_default_and_names_every_setting() {
        let (_folder, sources) = sources(&default_document());
        let loaded = load(&sources).unwrap();
        assert_eq!(loaded.config, Config::default());
        assert!(default_document().contains("\nmetrics-series: 10000\n"), "a number needs no quotes");
        for setting in SETTINGS {
            assert!(origin(&loaded, setting.key).contains("enforcer.yaml:"), "{}", setting.key);
        }
    }

    #[test]
    fn flags_beat_the_environment_beats_the_file_beats_the_default() {
        let (_folder, mut sources) =
            sources("mode: audit\nlog-level: debug\nlog-format: json\npolicies: [/a, /b]\nworkloads:\n");
        sources.environment =
            [("ENFORCER_MODE", "off"), ("ENFORCER_LOG_LEVEL", "warn"), ("ENFORCER_MANAGED", "/x,/y")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .to_vec();
        sources.flags =
            vec![("mode", Value::Text("enforce".into())), ("metrics-listen", Value::Text("none".into()))];
        let loaded = load(&sources).unwrap();
        let expected = Config {
            log_level: crate::config::LogLevel::Warn,
            log_format: crate::config::LogFormat::Json,
            policies: vec!["/a".into(), "/b".into()],
            managed: vec!["/x".into(), "/y".into()],
            workloads: None,
            metrics_listen: None,
            ..Config::default()
        };
        assert_eq!(loaded.config, expected);
        assert_eq!(origin(&loaded, "mode"), "--mode");
        assert_eq!(origin(&loaded, "log-level"), "ENFORCER_LOG_LEVEL");
        assert!(origin(&loaded, "log-format").ends_with("enforcer.yaml:3"));
        assert_eq!(origin(&loaded, "state-dir"), "default");
    }

    #[test]
    fn unknown_keys_and_wrong_values_are_told_all_at_once() {
        let (_folder, sources) =
            sources("stat-dir: /x\nmode: enforced\npolicies: /a\nsocket: {}\nmetrics-listen: here\n");
        let Err(Error::Document { diagnostics, .. }) = load(&sources) else { panic!("accepted") };
        let told: Vec<_> = diagnostics.iter().map(|it| (it.line(), it.column(), it.to_string())).collect();
        assert_eq!(told.len(), 5, "{told:#?}");
        assert_eq!((told[0].0, told[0].1), (1, 1));
        assert!(told[0].2.contains("did you mean `state-dir`?"), "{}", told[0].2);
        assert_eq!((told[1].0, told[1].1), (2, 7));
        assert!(told[1].2.contains("none of enforce, audit, off"), "{}", told[1].2);
    }

    #[test]
    fn wrong_environment_and_impossible_values() {
        let environment = [
            ("ENFORCER_MODE", "loud"),
            ("ENFORCER_ATTACH", "/a/../.."),
            ("ENFORCER_SOKET", "/x"),
            ("ENFORCER_SERVICE_HOST", "10.0.0.1"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .to_vec();
        assert_eq!(warnings(&environment).len(), 1);
        assert!(warnings(&environment)[0].contains("ENFORCER_SOCKET"));
        let (_folder, sources) = sources("pins: pins\n");
        let error = load(&Sources { environment, ..sources }).unwrap_err().to_string();
        assert!(error.contains("ENFORCER_MODE: `loud` is none of enforce, audit, off"), "{error}");
        assert!(error.contains("attach (ENFORCER_ATTACH): `/a/../..`"), "{error}");
        assert!(error.contains("enforcer.yaml:1): `pins` is relative"), "{error}");
    }

    #[test]
    fn allowed_sockets_from_everywhere() {
        let default = load(&Sources { file: Some("/dev/null".into()), ..Sources::default() }).unwrap();
        assert_eq!(default.config.socket_kinds(), SocketKind::DEFAULT);
        let (_folder, mut sources) = sources("allowed-sockets: [tcp, raw]\n");
        let bits = |sources: &Sources| load(sources).unwrap().config.socket_kinds();
        assert_eq!(bits(&sources), SocketKind::Tcp.bit() | SocketKind::Raw.bit());
        sources.environment = vec![("ENFORCER_ALLOWED_SOCKETS".to_owned(), "udp, ping".to_owned())];
        assert_eq!(bits(&sources), SocketKind::Udp.bit() | SocketKind::Ping.bit());
        sources.flags = vec![("allowed-sockets", Value::List(Vec::new()))];
        assert_eq!(bits(&sources), 0, "an empty list means none");
        sources.flags = vec![("allowed-sockets", Value::List(vec!["icmp".into()]))];
        let error = load(&sources).unwrap_err().to_string();
        assert!(
            error.contains("`icmp` is none of tcp, udp, mptcp, ping, raw, sctp, udplite, other"),
            "{error}"
        );
    }

    #[test]
    fn series_are_told_apart_by_what_is_known_and_within_bounds() {
        let text = "metrics-labels: [namespace, pod]\nmetrics-series: many\nprogram-statistics: sometimes\n";
        let (_folder, wrong) = sources(text);
        let Err(Error::Document { diagnostics, .. }) = load(&wrong) else { panic!("three values are wrong") };
        let told: Vec<String> = diagnostics.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(told[0].contains("`pod` is none of namespace, workload, port, policy"), "{told:?}");
        assert!(told[1].contains("`many` is no whole number"), "{told:?}");
        assert!(told[2].contains("`sometimes` is neither true nor false"), "{told:?}");
        let (_folder, mut large) = sources("mode: audit\n");
        large.environment = vec![("ENFORCER_METRICS_SERIES".to_owned(), "1000001".to_owned())];
        let error = load(&large).unwrap_err().to_string();
        assert!(error.contains("1000001 are more than one scrape should carry; at most 1000000"), "{error}");
        let (_folder, good) =
            sources("metrics-labels: [namespace]\nmetrics-series: 500\nprogram-statistics: true\n");
        let config = load(&good).unwrap().config;
        assert_eq!(config.metrics_labels, [crate::domain::SeriesLabel::Namespace]);
        assert!(config.program_statistics && config.metrics_series == 500);
    }

    #[test]
    fn numbers() {
        let (_folder, mut sources) = sources("event-sample: 5\nevent-limit-denied: \"0\"\n");
        let limits = load(&sources).unwrap().config.event_limits();
        assert_eq!((limits.sample, limits.denied, limits.allowed), (5, 0, 1_000));
        for wrong in ["0", "-1", "1.5", "many", ""] {
            sources.flags = vec![("event-sample", Value::Text(wrong.to_owned()))];
            assert!(load(&sources).is_err(), "{wrong}");
        }
        for wrong in ["event-limit-denied: -1\n", "event-limit-denied: [1]\n", "mode: 1\n"] {
            let (_folder, sources) = self::sources(wrong);
            assert!(load(&sources).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_named_file_must_exist() {
        let sources = Sources { file: Some("/nonexistent/enforcer.yaml".into()), ..Sources::default() };
        assert!(matches!(load(&sources), Err(Error::Read { .. })));
    }
}
