//! Settings of the agent: one typed [`Config`], built once, complete, immutable.
//!
//! Defaults < file < environment < flags. One table ([`settings::SETTINGS`]) holds for each setting its name, its
//! documentation, its type and its default; the file's keys, the environment's names, the flags of `enforcer run`,
//! `config default` and `config show` all come from it.
//!
//! Invariant: nothing is ignored silently. An unknown key is refused with the nearest known name.

mod discover;
mod file;
mod load;
mod settings;
mod value;

pub use discover::{Error as DiscoverError, cgroup_root};
pub use load::{DEFAULT_FILE, Error, Loaded, Origin, Sources, default_document, load};
pub use settings::{Config, SETTINGS, Setting};
pub use value::{AuditFsync, AuditMode, Interval, LogFormat, LogLevel, Size, Switch, Value};
