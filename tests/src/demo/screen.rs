//! How the demo looks: one statement a line, aligned, coloured only on a terminal.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

const GREEN: &str = "32";
const RED: &str = "31";
const BOLD: &str = "1";
const DIM: &str = "2";

/// Where the story is told.
#[derive(Debug)]
pub(crate) struct Screen {
    color: bool,
    statements: u32,
    wrong: u32,
}

/// A statement about one flow.
#[derive(Debug)]
pub(crate) struct Line<'a> {
    pub(crate) flow: &'a str,
    pub(crate) address: &'a str,
    pub(crate) refused: bool,
    pub(crate) micros: u64,
    /// What the application was told.
    pub(crate) error: &'a str,
    /// Policy and rule, where known.
    pub(crate) by: &'a str,
}

impl Screen {
    pub(crate) fn standard() -> Self {
        let color = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { color, statements: 0, wrong: 0 }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.color { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    fn print(text: &str) {
        // Nobody reads any more: the exit code is left to tell.
        writeln!(std::io::stdout(), "{text}").ok();
    }

    pub(crate) fn title(&self, text: &str) {
        Self::print(&format!("\n{}\n", self.paint(BOLD, text)));
    }

    pub(crate) fn chapter(&self, text: &str) {
        Self::print(&format!("\n{}", self.paint(BOLD, text)));
    }

    pub(crate) fn note(&self, text: &str) {
        Self::print(&format!("  {}", self.paint(DIM, text)));
    }

    /// What the demo is made of.
    pub(crate) fn fact(&self, what: &str, text: &str) {
        Self::print(&format!("  {} {text}", self.paint(DIM, &format!("{what:<10}"))));
    }

    /// A statement, and whether it turned out to be true.
    pub(crate) fn state(&mut self, holds: bool, text: &str) {
        self.statements += 1;
        self.wrong += u32::from(!holds);
        let (mark, rest) = if holds {
            (self.paint(GREEN, "✓"), String::new())
        } else {
            (self.paint(RED, "✗"), format!("  {}", self.paint(RED, "not as told")))
        };
        Self::print(&format!("  {mark} {text}{rest}"));
    }

    /// A statement about a flow.
    pub(crate) fn flow(&mut self, holds: bool, line: &Line<'_>) {
        let Line { flow, address, refused, micros, error, by } = line;
        let verdict = if *refused { self.paint(RED, "refused") } else { self.paint(GREEN, "allowed") };
        let time = format!("{micros} µs");
        let text = format!("{flow:<10}  {address:<15} {verdict} {time:>8}  {error:<6} {by}");
        self.state(holds, text.trim_end());
    }

    /// Numbers side by side.
    pub(crate) fn numbers(&mut self, what: &str, sent: u64, counted: u64) {
        let text = format!("{what:<36} {sent:>6} {counted:>9}");
        self.state(sent == counted && sent > 0, &text);
    }

    /// Something to type.
    pub(crate) fn command(&self, what: &str, command: &str) {
        Self::print(&format!("  {}\n    {command}", self.paint(DIM, what)));
    }

    pub(crate) fn fault(&self, text: &str) {
        Self::print(&format!("{} {text}", self.paint(RED, "✗")));
    }

    pub(crate) fn end(&self, time: Duration, kept: bool) -> ExitCode {
        let seconds = time.as_secs_f64();
        let rest = if kept { "everything still runs" } else { "everything it made is removed" };
        let Self { statements, wrong, .. } = self;
        if *wrong == 0 {
            Self::print(&format!("\n{statements} statements, all as told, in {seconds:.1} s; {rest}."));
            return ExitCode::SUCCESS;
        }
        let text = format!("{wrong} of {statements} statements were not as told, in {seconds:.1} s; {rest}.");
        Self::print(&format!("\n{}", self.paint(RED, &text)));
        ExitCode::FAILURE
    }
}
