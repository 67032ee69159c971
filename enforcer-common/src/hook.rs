//! The hooks: one table for program names, pins, events and docs.

macro_rules! hooks {
    ($($code:literal $variant:ident $program:literal $text:literal;)*) => {
        /// A place in the kernel where enforcer is called.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Hook { $(#[doc = $text] $variant = $code,)* }

        impl Hook {
            /// Every hook, in the order of its code.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The hook with this code.
            pub const fn from_code(code: u8) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)* _ => None }
            }

            /// Name of the program in the object, and of its pinned link (`link_NAME`).
            pub const fn program(self) -> &'static str {
                match self { $(Self::$variant => $program,)* }
            }

            /// Whether enforcer does without it where the kernel refuses it, and says so.
            pub const fn is_optional(self) -> bool {
                matches!(self, Self::SocketCreate)
            }

            /// What the hook is for.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

hooks! {
    1 SockCreate "sock_create" "records who created a socket";
    2 Connect4 "connect4" "judges connect(2) to an IPv4 address";
    3 Connect6 "connect6" "judges connect(2) to an IPv6 (or IPv4-mapped) address";
    4 Sendmsg4 "sendmsg4" "judges each datagram of an unconnected socket to an IPv4 address";
    5 Sendmsg6 "sendmsg6" "judges each datagram of an unconnected socket to an IPv6 address";
    6 Egress "egress" "the wall: judges every packet that leaves a socket";
    7 Ingress "ingress" "the wall: judges every packet that reaches a socket";
    8 Bind4 "bind4" "refuses an IPv4 port that belongs to another workload";
    9 Bind6 "bind6" "refuses an IPv6 port that belongs to another workload";
    10 PostBind4 "post_bind4" "judges who may listen on an IPv4 port";
    11 PostBind6 "post_bind6" "judges who may listen on an IPv6 port";
    12 Setsockopt "setsockopt" "refuses options that forge source addresses or routes";
    13 SockOps "sock_ops" "follows connections: opened, closed, bytes, round-trip time";
    14 SocketCreate "socket_create" "refuses socket families that no other hook sees (BPF LSM, where the kernel allows it)";
}
