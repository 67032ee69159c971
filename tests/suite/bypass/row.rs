//! What a row of the table says.

use enforcer_tests::bypass::Family;
use enforcer_tests::bypass::sys::Socket;

use super::stage::Stage;

/// As whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Privilege {
    /// With all capabilities.
    Root,
    /// As the user nobody, without any.
    Nobody,
}

impl Privilege {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Nobody => "nobody",
        }
    }
}

/// How it is tried.
#[derive(Clone, Copy)]
pub(super) enum Probe {
    /// By one process: the vector of this name.
    Vector(&'static str),
    /// By several. Returns what leaked in other ways than by the wire or to the neighbour.
    Scene(fn(&mut Stage, Privilege, Family) -> u64),
}

/// Hooks without which it leaks.
#[derive(Clone, Copy)]
pub(super) enum Mutation {
    Without(&'static [&'static str]),
    /// It never leaks, for this reason.
    Never(&'static str),
}

/// One way round the hooks.
#[derive(Clone, Copy)]
pub(super) struct Row {
    /// Of the catalogue.
    pub(super) number: u8,
    pub(super) name: &'static str,
    pub(super) privileges: &'static [Privilege],
    pub(super) families: &'static [Family],
    /// Why it can't be tried on this kernel.
    pub(super) needs: fn(Family) -> Result<(), String>,
    pub(super) probe: Probe,
    pub(super) mutation: Mutation,
    /// The hook that holds when all before it fail.
    pub(super) closed_by: &'static str,
}

pub(super) const BOTH: &[Family] = &[Family::V4, Family::V6];
pub(super) const FOUR: &[Family] = &[Family::V4];
pub(super) const SIX: &[Family] = &[Family::V6];
pub(super) const ALL: &[Privilege] = &[Privilege::Root, Privilege::Nobody];
pub(super) const ROOT: &[Privilege] = &[Privilege::Root];

/// Everybody may do it, by both families, on every kernel.
const fn row(number: u8, name: &'static str, probe: Probe, without: &'static [&'static str]) -> Row {
    Row {
        number,
        name,
        privileges: ALL,
        families: BOTH,
        needs: |_| Ok(()),
        probe,
        mutation: Mutation::Without(without),
        closed_by: without[0],
    }
}

/// A vector's row; the first of the hooks is the one that closes it.
pub(super) const fn vector(number: u8, name: &'static str, without: &'static [&'static str]) -> Row {
    row(number, name, Probe::Vector(name), without)
}

/// A scene's row.
pub(super) const fn scene(
    number: u8,
    name: &'static str,
    run: fn(&mut Stage, Privilege, Family) -> u64,
    without: &'static [&'static str],
) -> Row {
    row(number, name, Probe::Scene(run), without)
}

impl Row {
    pub(super) const fn root(self) -> Self {
        Self { privileges: ROOT, ..self }
    }

    pub(super) const fn by(self, families: &'static [Family]) -> Self {
        Self { families, ..self }
    }

    pub(super) const fn needs(self, needs: fn(Family) -> Result<(), String>) -> Self {
        Self { needs, ..self }
    }

    pub(super) const fn never(self, reason: &'static str) -> Self {
        Self { mutation: Mutation::Never(reason), closed_by: "the kernel itself", ..self }
    }

    /// Its name in a message.
    pub(super) fn title(&self, privilege: Privilege, family: Family) -> String {
        format!("{} {} by {} as {}", self.number, self.name, family.label(), privilege.label())
    }
}

/// Whether this kernel has such sockets at all, tried outside of what is enforced.
pub(super) fn has_socket(domain: i32, kind: i32, protocol: i32) -> Result<(), String> {
    let made = Socket::bare(domain, kind, protocol);
    made.map(drop).map_err(|error| format!("the kernel makes no such socket: {error}"))
}
