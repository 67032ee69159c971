//! Why a verdict came out as it did: one table for kernel code, metric label, CLI text and docs.

macro_rules! reasons {
    ($($(#[$meta:meta])* $code:literal $variant:ident $label:literal $text:literal;)*) => {
        /// Why a verdict came out as it did. The names follow the drop reasons of Hubble where the meaning fits.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Reason { $($(#[$meta])* #[doc = $text] $variant = $code,)* }

        impl Reason {
            /// Every reason, in the order of its code.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The reason with this code.
            pub const fn from_code(code: u8) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)* _ => None }
            }

            /// The name in metrics, JSON and `--drop-reason`: upper snake case, stable.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }

            /// One sentence for people.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

reasons! {
    0 None "NONE" "no reason recorded";
    1 AllowedByRule "ALLOWED_BY_RULE" "an allow rule matched";
    2 AllowedByDefault "ALLOWED_BY_DEFAULT" "no policy selects the workload in this direction";
    3 DeniedByRule "POLICY_DENY" "a deny rule matched";
    4 Isolated "POLICY_DENIED" "a policy selects the workload in this direction and no rule allows the flow";
    5 Unmanaged "UNMANAGED" "the process runs inside a managed tree but belongs to no known workload";
    6 InvalidIdentity "INVALID_IDENTITY" "the identity is not part of the loaded policy tables";
    7 NoTables "NO_POLICY_TABLES" "no policy tables are loaded";
    8 CorruptTables "CORRUPT_POLICY_TABLES" "the loaded policy tables could not be read";
    9 NoSocketIdentity "NO_SOCKET_IDENTITY" "the identity of the socket's creator could not be recorded";
    10 Quarantined "QUARANTINED" "one of the two ends is in quarantine";
    11 MalformedPacket "MALFORMED_PACKET" "the packet's headers could not be read to the end";
    12 SourceRouted "SOURCE_ROUTED" "the packet carries IP options or a routing header";
    13 LaterFragment "LATER_FRAGMENT" "the packet is a fragment without ports";
    14 SpoofedSource "SPOOFED_SOURCE" "the packet's source address belongs to another workload";
    15 SocketKind "SOCKET_KIND" "workloads may not create sockets of this type, protocol or family";
    16 PortTaken "PORT_TAKEN" "the port belongs to another workload on this host";
    17 SocketOption "SOCKET_OPTION" "the socket option forges source addresses or routes";
    18 Passed "PASSED" "an admin rule leaves the flow to the policies beneath; never the last word";
    19 MixedBackends "MIXED_BACKENDS" "policies allow some of the service's backends and deny others";
    20 Canary "CANARY" "the agent's own process has tried whether it is refused";
}

/// The errno that the application gets for a denial. The code is what is stored in a verdict word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Errno {
    /// `EPERM` (1), the kernel's own choice for a refusing cgroup program.
    #[default]
    Perm = 0,
    /// `ECONNREFUSED` (111): looks like a closed port, so clients fail over at once.
    ConnRefused = 1,
    /// `EHOSTUNREACH` (113): looks like a missing host.
    HostUnreach = 2,
    /// `EACCES` (13).
    Access = 3,
}

impl Errno {
    /// All choices, in the order of their codes.
    pub const ALL: &'static [Self] = &[Self::Perm, Self::ConnRefused, Self::HostUnreach, Self::Access];

    /// The choice with this code; only the two lowest bits count, so every code is a choice.
    pub const fn from_code(code: u8) -> Self {
        match code & 3 {
            1 => Self::ConnRefused,
            2 => Self::HostUnreach,
            3 => Self::Access,
            _ => Self::Perm,
        }
    }

    /// The number as the application sees it (positive, as on x86-64 and arm64).
    pub const fn number(self) -> i32 {
        match self {
            Self::Perm => 1,
            Self::ConnRefused => 111,
            Self::HostUnreach => 113,
            Self::Access => 13,
        }
    }

    /// The symbolic name as policies write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Perm => "EPERM",
            Self::ConnRefused => "ECONNREFUSED",
            Self::HostUnreach => "EHOSTUNREACH",
            Self::Access => "EACCES",
        }
    }
}

/// What refuses the canary, and nobody else by default: a call to the loopback address has never this end without a program
/// that asks for it, whether somebody listens there or not.
pub const CANARY_ERRNO: Errno = Errno::HostUnreach;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_labels_are_unique_and_round_trip() {
        let mut labels: Vec<_> = Reason::ALL.iter().map(|reason| reason.label()).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            assert_eq!(Reason::from_code(*reason as u8), Some(*reason));
        }
        assert_eq!(Reason::from_code(u8::MAX), None);
        for errno in Errno::ALL {
            assert_eq!(Errno::from_code(*errno as u8), *errno);
        }
    }
}
