//! JSON for programs: the shapes of the API, with the version in front.

use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};

use crate::config::{Loaded, SETTINGS};

/// Rises when a field changes its meaning or goes away; new fields may come at any time.
const VERSION: &str = "v1";

#[derive(Serialize)]
struct Object<'a, T> {
    #[serde(rename = "apiVersion")]
    version: &'static str,
    #[serde(flatten)]
    object: &'a T,
}

struct List<'a, T> {
    name: &'a str,
    items: &'a [T],
}

impl<T: Serialize> Serialize for List<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("apiVersion", VERSION)?;
        map.serialize_entry(self.name, self.items)?;
        map.end()
    }
}

fn pretty(value: &impl Serialize) -> serde_json::Result<String> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    Ok(text)
}

/// A value as it is, whose shape others have set.
pub fn plain(value: &impl Serialize) -> serde_json::Result<String> {
    pretty(value)
}

/// One object.
pub fn object<T: Serialize>(object: &T) -> serde_json::Result<String> {
    pretty(&Object { version: VERSION, object })
}

/// Several objects under a name.
pub fn list<T: Serialize>(name: &str, items: &[T]) -> serde_json::Result<String> {
    pretty(&List { name, items })
}

#[derive(Serialize)]
struct Setting {
    key: &'static str,
    value: serde_json::Value,
    origin: String,
}

/// The settings, each with its origin.
pub fn settings(loaded: &Loaded) -> serde_json::Result<String> {
    let settings: Vec<_> = SETTINGS
        .iter()
        .zip(&loaded.origins)
        .map(|(setting, origin)| Setting {
            key: setting.key,
            value: setting.value(&loaded.config).json(),
            origin: origin.to_string(),
        })
        .collect();
    list("settings", &settings)
}
