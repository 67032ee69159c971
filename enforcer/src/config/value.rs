//! Values of settings, as text that a file, the environment or a flag can carry.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::domain::time::parse_duration;
use crate::domain::{Mode, SocketKind};

/// A value before it has the type of its setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Nothing: `null` in the file, an empty text elsewhere.
    Null,
    /// One text.
    Text(String),
    /// Several texts.
    List(Vec<String>),
}

impl Value {
    /// As YAML in one line.
    pub fn yaml(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Text(text) => scalar(text),
            Self::List(items) => {
                format!("[{}]", items.iter().map(|item| scalar(item)).collect::<Vec<_>>().join(", "))
            }
        }
    }

    /// For people: `-` for nothing, lists with commas.
    pub fn plain(&self) -> String {
        match self {
            Self::Null => "-".to_owned(),
            Self::Text(text) => text.clone(),
            Self::List(items) if items.is_empty() => "-".to_owned(),
            Self::List(items) => items.join(","),
        }
    }

    /// As JSON.
    pub fn json(&self) -> serde_json::Value {
        match self {
            Self::Null => serde_json::Value::Null,
            Self::Text(text) => text.as_str().into(),
            Self::List(items) => items.clone().into(),
        }
    }
}

/// Quotes what YAML would not read back as the same text; a double-quoted JSON string is YAML too.
fn scalar(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    let word = text.chars().all(plain) && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/');
    let reserved = ["null", "true", "false", "yes", "no", "on", "off", "y", "n"];
    if word && !reserved.contains(&text.to_ascii_lowercase().as_str()) {
        text.to_owned()
    } else {
        serde_json::Value::from(text).to_string()
    }
}

/// A type that one text can stand for.
pub(super) trait Scalar: Sized {
    fn parse(text: &str) -> Result<Self, String>;
    fn text(&self) -> String;
}

/// A type that a setting can have.
pub(super) trait SettingValue: Sized {
    /// Whether a flag may be given several times.
    const REPEATED: bool;
    fn read(value: Value) -> Result<Self, String>;
    fn write(&self) -> Value;
}

impl<T: Scalar> SettingValue for T {
    const REPEATED: bool = false;

    fn read(value: Value) -> Result<Self, String> {
        match value {
            Value::Text(text) if !text.is_empty() => T::parse(&text),
            Value::Text(_) | Value::Null => Err("a value is needed here".to_owned()),
            Value::List(_) => Err("one value is needed here, not a list".to_owned()),
        }
    }

    fn write(&self) -> Value {
        Value::Text(self.text())
    }
}

impl<T: Scalar> SettingValue for Option<T> {
    const REPEATED: bool = false;

    fn read(value: Value) -> Result<Self, String> {
        match value {
            Value::Null => Ok(None),
            Value::Text(text) if text.is_empty() || text == "none" => Ok(None),
            value => <T as SettingValue>::read(value).map(Some),
        }
    }

    fn write(&self) -> Value {
        self.as_ref().map_or(Value::Null, SettingValue::write)
    }
}

impl<T: Scalar> SettingValue for Vec<T> {
    const REPEATED: bool = true;

    fn read(value: Value) -> Result<Self, String> {
        match value {
            Value::Null => Ok(Vec::new()),
            Value::Text(text) => {
                text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(T::parse).collect()
            }
            Value::List(items) => items.iter().map(|item| T::parse(item)).collect(),
        }
    }

    fn write(&self) -> Value {
        Value::List(self.iter().map(Scalar::text).collect())
    }
}

impl Scalar for String {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }

    fn text(&self) -> String {
        self.clone()
    }
}

impl Scalar for PathBuf {
    fn parse(text: &str) -> Result<Self, String> {
        if text.contains('\0') {
            Err("a path can't contain a NUL byte".to_owned())
        } else {
            Ok(Self::from(text))
        }
    }

    fn text(&self) -> String {
        self.display().to_string()
    }
}

impl Scalar for SocketAddr {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse()
            .ok()
            .ok_or_else(|| format!("`{text}` is no ADDRESS:PORT such as 127.0.0.1:9962 or [::1]:9962"))
    }

    fn text(&self) -> String {
        self.to_string()
    }
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// Units of bytes, the greatest first.
const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

impl Scalar for Size {
    fn parse(text: &str) -> Result<Self, String> {
        let unit = UNITS.iter().find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?, *bytes)));
        let (number, unit) = unit.unwrap_or((text, 1));
        let plain = number.bytes().all(|byte| byte.is_ascii_digit());
        let size = number.parse::<u64>().ok().filter(|_| plain).and_then(|number| number.checked_mul(unit));
        size.map(Self).ok_or_else(|| format!("`{text}` is no size like 512KiB, 16MiB or 1GiB"))
    }

    fn text(&self) -> String {
        let unit = UNITS.iter().find(|(_, bytes)| self.0 > 0 && self.0.is_multiple_of(*bytes));
        unit.map_or_else(|| self.0.to_string(), |(unit, bytes)| format!("{}{unit}", self.0 / bytes))
    }
}

impl Scalar for Duration {
    fn parse(text: &str) -> Result<Self, String> {
        parse_duration(text).ok_or_else(|| format!("`{text}` is no time like 90s, 10m, 2h or 1d"))
    }

    fn text(&self) -> String {
        let seconds = self.as_secs();
        let units = [("d", 86_400), ("h", 3_600), ("m", 60)];
        let unit = units.into_iter().find(|(_, unit)| seconds > 0 && seconds.is_multiple_of(*unit));
        unit.map_or_else(|| format!("{seconds}s"), |(word, unit)| format!("{}{word}", seconds / unit))
    }
}

fn one_of<T: Copy>(text: &str, all: &[T], name: impl Fn(T) -> &'static str) -> Result<T, String> {
    all.iter().copied().find(|item| name(*item) == text).ok_or_else(|| {
        let names: Vec<_> = all.iter().map(|item| name(*item)).collect();
        format!("`{text}` is none of {}", names.join(", "))
    })
}

impl Scalar for Mode {
    fn parse(text: &str) -> Result<Self, String> {
        one_of(text, &[Self::Enforce, Self::Audit, Self::Off], Self::name)
    }

    fn text(&self) -> String {
        self.name().to_owned()
    }
}

impl Scalar for SocketKind {
    fn parse(text: &str) -> Result<Self, String> {
        one_of(text, Self::ALL, Self::name)
    }

    fn text(&self) -> String {
        self.name().to_owned()
    }
}

macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_meta])* $variant,)+ }

        impl $name {
            /// The word in the configuration.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl Scalar for $name {
            fn parse(text: &str) -> Result<Self, String> {
                one_of(text, &[$(Self::$variant),+], Self::name)
            }

            fn text(&self) -> String {
                self.name().to_owned()
            }
        }
    };
}

words! {
    /// How much the agent says on stderr.
    LogLevel {
        /// What failed.
        Error = "error",
        /// What is wrong but goes on.
        Warn = "warn",
        /// What changed.
        Info = "info",
        /// What was considered.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }
}

words! {
    /// Whether there is an audit log, and what happens when it can't be written.
    AuditMode {
        /// There is none.
        Off = "off",
        /// Everything goes on; what is lost is counted.
        Continue = "continue",
        /// No policy or quarantine is changed that can't be recorded.
        FailClosed = "fail-closed",
    }
}

words! {
    /// When a record has to be on disk.
    AuditFsync {
        /// Before the next one.
        Always = "always",
        /// Within a second.
        Interval = "interval",
        /// When the kernel likes.
        Never = "never",
    }
}

words! {
    /// Whether something is done.
    Switch {
        /// Yes.
        On = "on",
        /// No.
        Off = "off",
    }
}

words! {
    /// How a log line looks.
    LogFormat {
        /// For people.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}
