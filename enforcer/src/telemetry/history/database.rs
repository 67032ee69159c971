//! The file: its tables, and what is done when it is damaged.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

/// Version of the tables. Another one is refused.
pub(super) const VERSION: i64 = 1;
/// A reader may hold the writer up for so long.
const BUSY: Duration = Duration::from_secs(5);

const TABLES: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE ends (id INTEGER PRIMARY KEY, text TEXT NOT NULL) STRICT;
CREATE TABLE rules (id INTEGER PRIMARY KEY, text TEXT NOT NULL) STRICT;
CREATE TABLE flows (
    minute INTEGER NOT NULL, subject INTEGER NOT NULL, peer INTEGER NOT NULL, rule INTEGER NOT NULL,
    port INTEGER NOT NULL, protocol INTEGER NOT NULL, reason INTEGER NOT NULL, direction INTEGER NOT NULL,
    outcome INTEGER NOT NULL, verdicts INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
    PRIMARY KEY (minute, subject, peer, rule, port, protocol, reason, direction, outcome)
) STRICT, WITHOUT ROWID;
CREATE TABLE traffic (
    minute INTEGER NOT NULL, subject INTEGER NOT NULL, peer INTEGER NOT NULL, port INTEGER NOT NULL,
    protocol INTEGER NOT NULL, role INTEGER NOT NULL, opened INTEGER NOT NULL, closed INTEGER NOT NULL,
    packets_sent INTEGER NOT NULL, packets_received INTEGER NOT NULL, bytes_sent INTEGER NOT NULL,
    bytes_received INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
    PRIMARY KEY (minute, subject, peer, port, protocol, role)
) STRICT, WITHOUT ROWID;
CREATE TABLE seen_flows (
    subject INTEGER NOT NULL, peer INTEGER NOT NULL, rule INTEGER NOT NULL, port INTEGER NOT NULL,
    protocol INTEGER NOT NULL, reason INTEGER NOT NULL, direction INTEGER NOT NULL, outcome INTEGER NOT NULL,
    total INTEGER NOT NULL,
    PRIMARY KEY (subject, peer, rule, port, protocol, reason, direction, outcome)
) STRICT, WITHOUT ROWID;
CREATE TABLE seen_traffic (
    subject INTEGER NOT NULL, peer INTEGER NOT NULL, port INTEGER NOT NULL, protocol INTEGER NOT NULL,
    role INTEGER NOT NULL, total BLOB NOT NULL,
    PRIMARY KEY (subject, peer, port, protocol, role)
) STRICT, WITHOUT ROWID;
";

/// Opens the database for writing, making it if there is none.
pub(super) fn open(path: &Path) -> rusqlite::Result<Connection> {
    // SQLite would make it readable for everybody.
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path).map_err(|error| {
        rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN),
            Some(format!("open {}: {error}", path.display())),
        )
    })?;
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // A power failure may cost the last samples, whose counters are then unseen as well; never the database.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "cache_size", -8_192)?;
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    match version {
        0 => {
            let statements = format!("BEGIN IMMEDIATE; {TABLES} PRAGMA user_version = {VERSION}; COMMIT;");
            connection.execute_batch(&statements)?;
        }
        VERSION => check(&connection)?,
        other => {
            return Err(failure(
                rusqlite::ffi::SQLITE_NOTADB,
                format!("its tables have version {other}, and this agent knows {VERSION}"),
            ));
        }
    }
    Ok(connection)
}

/// Opens a database for reading. An agent may write to it meanwhile.
pub(super) fn open_read_only(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.busy_timeout(BUSY)?;
    Ok(connection)
}

fn check(connection: &Connection) -> rusqlite::Result<()> {
    let result: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if result == "ok" { Ok(()) } else { Err(failure(rusqlite::ffi::SQLITE_CORRUPT, result)) }
}

fn failure(code: i32, message: String) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), Some(message))
}

/// Whether the error says that the file is no database any more.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    let missing = |error: &rusqlite::Error| error.to_string().contains("no such table");
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
        || missing(error)
}

/// Gives a damaged database another name, with the time in it; what `SQLite` keeps beside it goes along.
pub(super) fn set_aside(path: &Path, seconds: i64) -> std::io::Result<PathBuf> {
    let with = |path: &Path, end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    };
    let mut aside = with(path, &format!(".damaged-{seconds}"));
    for number in 1.. {
        if !aside.exists() {
            break;
        }
        aside = with(path, &format!(".damaged-{seconds}-{number}"));
    }
    std::fs::rename(path, &aside)?;
    for end in ["-wal", "-shm"] {
        match std::fs::rename(with(path, end), with(&aside, end)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(aside)
}
