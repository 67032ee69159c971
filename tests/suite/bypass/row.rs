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

/// The hooks that close a way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Hooks {
    /// These are enough.
    pub(super) last: &'static [&'static str],
    /// These refuse earlier, where they can.
    pub(super) before: &'static [&'static str],
}

/// What makes it leak.
#[derive(Clone, Copy)]
pub(super) enum Mutation {
    /// That these are switched off.
    Without(Hooks),
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
}

pub(super) const BOTH: &[Family] = &[Family::V4, Family::V6];
pub(super) const FOUR: &[Family] = &[Family::V4];
pub(super) const SIX: &[Family] = &[Family::V6];
pub(super) const ALL: &[Privilege] = &[Privilege::Root, Privilege::Nobody];
pub(super) const ROOT: &[Privilege] = &[Privilege::Root];

/// Everybody may do it, by both families, on every kernel.
const fn row(number: u8, name: &'static str, probe: Probe, hooks: Hooks) -> Row {
    Row {
        number,
        name,
        privileges: ALL,
        families: BOTH,
        needs: |_| Ok(()),
        probe,
        mutation: Mutation::Without(hooks),
    }
}

/// A vector's row.
pub(super) const fn vector(number: u8, name: &'static str, hooks: Hooks) -> Row {
    row(number, name, Probe::Vector(name), hooks)
}

/// A scene's row.
pub(super) const fn scene(
    number: u8,
    name: &'static str,
    run: fn(&mut Stage, Privilege, Family) -> u64,
    hooks: Hooks,
) -> Row {
    row(number, name, Probe::Scene(run), hooks)
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
        Self { mutation: Mutation::Never(reason), ..self }
    }

    /// What holds when all before it fail.
    pub(super) fn closed_by(&self) -> String {
        match self.mutation {
            Mutation::Without(hooks) => hooks.last.join(" "),
            Mutation::Never(_) => "the kernel".to_owned(),
        }
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
