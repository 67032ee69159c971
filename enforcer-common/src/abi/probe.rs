//! Questions to the verdict function inside the kernel (`BPF_PROG_TEST_RUN` of program `judge`), so that kernel and host
//! are compared on the same cases.

use crate::wire::wire;

wire! {
    /// A [`crate::verdict::Query`], at the start of the packet.
    pub struct Question {
        /// First 64 bits of the peer's address.
        pub high: u64,
        /// Last 64 bits of the peer's address.
        pub low: u64,
        /// Identity of the subject.
        pub subject: u32,
        /// Identity of the peer.
        pub peer: u32,
        /// Port of the server side.
        pub port: u16,
        /// IP protocol number.
        pub protocol: u8,
        /// A [`crate::verdict::Direction`] code.
        pub direction: u8,
        /// Always zero.
        pub reserved: u32,
    }
}

wire! {
    /// A [`crate::verdict::Verdict`], behind the question.
    pub struct Answer {
        /// [`crate::verdict::Verdict::enforced`]
        pub enforced: u64,
        /// [`crate::verdict::Verdict::hypothetical`]
        pub hypothetical: u64,
    }
}
