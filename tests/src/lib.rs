//! Stub.

pub mod generate;
pub mod oracle;

#[cfg(test)]
mod properties;
