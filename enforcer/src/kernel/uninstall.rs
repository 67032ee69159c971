//! Removing enforcement: an explicit act, never a side effect of stopping.

use std::path::Path;

use super::error::Error;

/// Removes links first (nothing is enforced from then on), then maps, then the directory. Says what was removed.
///
/// # Errors
/// Names the pin that could not be removed; what was removed before stays removed.
pub fn uninstall(pins: &Path) -> Result<Vec<String>, Error> {
    let mut removed = Vec::new();
    let entries = match std::fs::read_dir(pins) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(removed),
        Err(source) => return Err(Error::Io { operation: "list", path: pins.to_path_buf(), source }),
    };
    let mut names: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.file_name()).collect();
    names.sort_by_key(|name| (!name.to_string_lossy().starts_with("link_"), name.clone()));
    for name in names {
        let path = pins.join(&name);
        std::fs::remove_file(&path).map_err(|source| Error::Io {
            operation: "remove",
            path: path.clone(),
            source,
        })?;
        removed.push(path.display().to_string());
    }
    std::fs::remove_dir(pins).map_err(|source| Error::Io {
        operation: "remove",
        path: pins.to_path_buf(),
        source,
    })?;
    removed.push(pins.display().to_string());
    Ok(removed)
}
