//! What series of metrics are told apart by.

/// A part of the labels that an operator can leave out: its labels are empty then, and series that differ in nothing else
/// become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SeriesLabel {
    /// `source_namespace` and `destination_namespace`
    Namespace,
    /// `source` and `destination`
    Workload,
    /// `port`
    Port,
    /// `policy` and `rule` of verdicts.
    Policy,
}

impl SeriesLabel {
    /// All of them.
    pub const ALL: &'static [Self] = &[Self::Namespace, Self::Workload, Self::Port, Self::Policy];

    /// The word in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Namespace => "namespace",
            Self::Workload => "workload",
            Self::Port => "port",
            Self::Policy => "policy",
        }
    }
}
