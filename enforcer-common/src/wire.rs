//! `wire!` declares a struct that both sides of the kernel boundary read.
//!
//! Stray padding in a map key never compares equal, and the verifier refuses to copy uninitialised bytes
//! (iovisor/bcc issue 269). So padding is refused at compile time, and one row per struct describes its
//! layout for the golden test that notices an accidental change of the ABI.

/// The layout of one shared struct, for the golden test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Name of the struct.
    pub name: &'static str,
    /// Size in bytes.
    pub size: usize,
    /// Name, offset and size in bytes of each field, in order.
    pub fields: &'static [(&'static str, usize, usize)],
}

/// Declares a `repr(C)` struct of integers without padding.
macro_rules! wire {
    ($(#[$meta:meta])* $vis:vis struct $name:ident { $($(#[$field_meta:meta])* $field_vis:vis $field:ident : $ty:ty,)* }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis struct $name { $($(#[$field_meta])* $field_vis $field: $ty,)* }

        const _: () = assert!(
            core::mem::size_of::<$name>() == 0 $(+ core::mem::size_of::<$ty>())*,
            concat!(stringify!($name), " has padding: reorder its fields or name the gap"),
        );

        impl $name {
            /// The layout of this struct, for the golden test.
            pub const LAYOUT: $crate::abi::Layout = $crate::abi::Layout {
                name: stringify!($name),
                size: core::mem::size_of::<$name>(),
                fields: &[$((stringify!($field), core::mem::offset_of!($name, $field), core::mem::size_of::<$ty>()),)*],
            };
        }

        // SAFETY: `repr(C)`, integers and arrays of integers only, no padding (asserted above), so every bit
        // pattern is a valid value and every byte is initialised.
        #[cfg(feature = "user")]
        unsafe impl aya::Pod for $name {}
    };
}

pub(crate) use wire;
