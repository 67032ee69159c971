//! The command line from outside: what it prints, byte for byte, and what its exit codes are.

// `cfg(test)` says to clippy what these are: helpers of tests may unwrap as tests may.
#[cfg(test)]
mod agent;
#[cfg(test)]
mod away;
#[cfg(test)]
mod commands;
#[cfg(test)]
mod counted;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod help;
#[cfg(test)]
mod lint;
#[cfg(test)]
mod offline;
#[cfg(test)]
mod pages;
#[cfg(test)]
mod render;
#[cfg(test)]
mod samples;
