//! From a hook's context to plain values. The only room that touches context pointers.

pub mod sock_addr;
