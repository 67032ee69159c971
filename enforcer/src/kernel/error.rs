//! What can go wrong between the daemon and the kernel: operation, object, cause, next step.

use std::path::PathBuf;

use aya::EbpfError;
use aya::maps::MapError;
use aya::programs::ProgramError;

/// A failed operation on the kernel.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file operation failed.
    #[error("cannot {operation} {}: {source}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// No BPF file system where pins belong.
    #[error("no BPF file system at {}: mount one with `mount -t bpf bpf {}`", path.display(), path.display())]
    NoBpffs {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The embedded object could not be loaded.
    #[error(
        "the kernel refused the maps or type information of the embedded programs: {0}; `enforcer probe` lists what this kernel offers"
    )]
    Object(#[source] Box<EbpfError>),
    /// A program was refused.
    #[error("the kernel refused program {program}: {source}; `enforcer probe` lists what this kernel offers")]
    Program {
        /// Its name.
        program: &'static str,
        /// Why.
        source: Box<ProgramError>,
    },
    /// A program of the table is not in the object.
    #[error("program {0} is not in the embedded object: the build is broken")]
    MissingProgram(&'static str),
    /// The program that answers questions gave no answer.
    #[error("the kernel gave no verdict (code {code}): 2 means that no policy table is published yet")]
    NoAnswer {
        /// What it returned.
        code: u32,
    },
    /// Other tables are published than those that should learn of somebody.
    #[error(
        "the policy tables in the kernel are not those that should learn of a new identity: they are made anew"
    )]
    NotPublished,
    /// A map of the table is not in the object.
    #[error("map {0} is not in the embedded object, or is taken already: the build is broken")]
    MissingMap(&'static str),
    /// A map operation failed.
    #[error("cannot {operation} map {map}: {source}")]
    Map {
        /// What was tried.
        operation: &'static str,
        /// On which map.
        map: &'static str,
        /// Why not.
        source: Box<MapError>,
    },
    /// A map has no room.
    #[error("map {map} is full at {capacity} entries: remove workloads, or raise its size and rebuild")]
    Full {
        /// Which map.
        map: &'static str,
        /// How many entries it holds.
        capacity: usize,
    },
    /// Pins of another version.
    #[error("the pins in {} were made by another version of enforcer (maps of version {found}, this one needs {ours}): start that version, or remove its enforcement with `enforcer uninstall`", pins.display())]
    OtherVersion {
        /// Where they are.
        pins: PathBuf,
        /// Their version.
        found: u32,
        /// The version of this program.
        ours: u32,
    },
    /// A pinned link belongs to another place.
    #[error("the pinned link {} is attached to another cgroup than {}: remove it with `enforcer uninstall`, then start again", link.display(), attach.display())]
    OtherCgroup {
        /// The pin.
        link: PathBuf,
        /// Where it should be attached.
        attach: PathBuf,
    },
}

impl Error {
    /// For `map_err` on map operations.
    pub(super) fn map<E: Into<MapError>>(operation: &'static str, map: &'static str) -> impl Fn(E) -> Self {
        // `Fn` cannot move out of its argument's conversion, so the conversion happens here.
        move |source| Self::Map { operation, map, source: Box::new(source.into()) }
    }
}
