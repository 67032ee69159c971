//! Values of settings, as text that a file, the environment or a flag can carry.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::domain::account::TrustDomain;
use crate::domain::time::parse_duration;
use crate::domain::{Mode, SeriesLabel, SocketKind};

/// A value before it has the type of its setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Nothing: `null` in the file, an empty text elsewhere.
    Null,
    /// One text.
    Text(String),
    /// One whole number.
    Number(i64),
    /// Several texts.
    List(Vec<String>),
}

impl Value {
    /// As YAML in one line.
    pub fn yaml(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Text(text) => scalar(text),
            Self::Number(number) => number.to_string(),
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
            Self::Number(number) => number.to_string(),
            Self::List(items) if items.is_empty() => "-".to_owned(),
            Self::List(items) => items.join(","),
        }
    }

    /// As JSON.
    pub fn json(&self) -> serde_json::Value {
        match self {
            Self::Null => serde_json::Value::Null,
            Self::Text(text) => text.as_str().into(),
            Self::Number(number) => (*number).into(),
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
    /// Whether it is a number, or a truth value: the file has it without quotes.
    const NUMBER: bool = false;
    fn parse(text: &str) -> Result<Self, String>;
    fn text(&self) -> String;
    /// As the file has it.
    fn value(&self) -> Value {
        Value::Text(self.text())
    }
}

/// A type that a setting can have.
pub(super) trait SettingValue: Sized {
    /// Whether a flag may be given several times.
    const REPEATED: bool;
    /// Whether the file has a number for it.
    const NUMBER: bool;
    fn read(value: Value) -> Result<Self, String>;
    fn write(&self) -> Value;
}

impl<T: Scalar> SettingValue for T {
    const REPEATED: bool = false;
    const NUMBER: bool = T::NUMBER;

    fn read(value: Value) -> Result<Self, String> {
        match value {
            Value::Text(text) if !text.is_empty() => T::parse(&text),
            Value::Number(number) => T::parse(&number.to_string()),
            Value::Text(_) | Value::Null => Err("a value is needed here".to_owned()),
            Value::List(_) => Err("one value is needed here, not a list".to_owned()),
        }
    }

    fn write(&self) -> Value {
        self.value()
    }
}

impl<T: Scalar> SettingValue for Option<T> {
    const REPEATED: bool = false;
    const NUMBER: bool = T::NUMBER;

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
    const NUMBER: bool = false;

    fn read(value: Value) -> Result<Self, String> {
        match value {
            Value::Null => Ok(Vec::new()),
            Value::Text(text) => {
                text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(T::parse).collect()
            }
            Value::Number(_) => Err("a list is needed here, not a number".to_owned()),
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

impl Scalar for u64 {
    const NUMBER: bool = true;

    fn parse(text: &str) -> Result<Self, String> {
        text.parse().ok().ok_or_else(|| format!("`{text}` is no whole number from 0 to {}", Self::MAX))
    }

    fn text(&self) -> String {
        self.to_string()
    }

    /// What YAML has no number for is a text.
    fn value(&self) -> Value {
        i64::try_from(*self).map_or_else(|_| Value::Text(self.text()), Value::Number)
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

impl Scalar for bool {
    const NUMBER: bool = true;

    fn parse(text: &str) -> Result<Self, String> {
        text.parse().ok().ok_or_else(|| format!("`{text}` is neither true nor false"))
    }

    fn text(&self) -> String {
        self.to_string()
    }
}

impl Scalar for SeriesLabel {
    fn parse(text: &str) -> Result<Self, String> {
        one_of(text, Self::ALL, Self::name)
    }

    fn text(&self) -> String {
        self.name().to_owned()
    }
}

impl Scalar for TrustDomain {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_problem| {
            format!("`{text}` is no trust domain: lower case letters, digits, `.`, `-` and `_`")
        })
    }

    fn text(&self) -> String {
        self.to_string()
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

/// A time between two attempts: from 100 ms to a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval(pub Duration);

impl Interval {
    const SHORTEST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_hours(24);
}

impl Scalar for Interval {
    fn parse(text: &str) -> Result<Self, String> {
        let milliseconds = || {
            let number = text.strip_suffix("ms").filter(|it| it.bytes().all(|byte| byte.is_ascii_digit()))?;
            number.parse().ok().map(Duration::from_millis)
        };
        let found = milliseconds().or_else(|| parse_duration(text));
        let found = found.filter(|found| (Self::SHORTEST..=Self::LONGEST).contains(found));
        found.map(Self).ok_or_else(|| {
            format!("`{text}` is no time from 100ms to 1d: write a number and ms, s, m, h or d, or `none`")
        })
    }

    fn text(&self) -> String {
        match self.0.as_millis() {
            whole if whole % 1_000 == 0 => format!("{}s", whole / 1_000),
            milliseconds => format!("{milliseconds}ms"),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals() {
        for (text, milliseconds, shown) in [
            ("100ms", 100, "100ms"),
            ("1500ms", 1_500, "1500ms"),
            ("2000ms", 2_000, "2s"),
            ("10s", 10_000, "10s"),
            ("1d", 86_400_000, "86400s"),
        ] {
            let interval = Interval::parse(text).unwrap();
            assert_eq!((interval.0.as_millis(), interval.text().as_str()), (milliseconds, shown));
            assert_eq!(Interval::parse(shown), Ok(interval), "what is shown can be given back");
        }
        for bad in ["99ms", "2d", "0s", "1", "ms", "-5s", "+200ms", "1.5s", "99999999999999999999ms"] {
            assert!(Interval::parse(bad).unwrap_err().contains("100ms to 1d"), "{bad}");
        }
    }
}
