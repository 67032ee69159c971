//! Everything that is printed. Only here are stdout and stderr touched; most of the room turns values into text.
//!
//! Invariants: no byte that came from elsewhere reaches a terminal as a control character ([`clean`]); colour repeats
//! what words say already.

pub mod audit;
pub mod cluster;
pub mod diagnostic;
pub mod flow;
pub mod history;
pub mod json;
pub mod lists;
pub mod metrics;
pub mod offline;
pub mod policy;
pub mod preflight;
pub mod probe;
pub mod quarantine;
pub mod status;
mod table;
pub mod top;

use std::borrow::Cow;
use std::fmt;
use std::io::{self, IsTerminal as _, Write};

use super::args::ColorChoice;

pub use crate::domain::policy::diagnostic::quote;
pub use crate::domain::yaml::write as yaml;

/// Where results and talk go.
pub struct Screen {
    data: Box<dyn Write>,
    talk: Box<dyn Write>,
    data_color: bool,
    talk_color: bool,
}

impl fmt::Debug for Screen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Screen").field("data_color", &self.data_color).finish_non_exhaustive()
    }
}

impl Screen {
    /// stdout and stderr of this process.
    pub fn standard(choice: ColorChoice) -> Self {
        let (data, talk) = (io::stdout(), io::stderr());
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        let color = |terminal: bool| match choice {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => terminal && !no_color,
        };
        let (data_color, talk_color) = (color(data.is_terminal()), color(talk.is_terminal()));
        Self { data: Box::new(data), talk: Box::new(talk), data_color, talk_color }
    }

    /// Whether results may be coloured.
    pub fn data_in_color(&self) -> bool {
        self.data_color
    }

    /// Whether talk may be coloured.
    pub fn talk_in_color(&self) -> bool {
        self.talk_color
    }

    /// Prints a result.
    pub fn data(&mut self, text: &str) -> io::Result<()> {
        self.data.write_all(text.as_bytes())?;
        self.data.flush()
    }

    /// Prints what was rendered for stderr already.
    pub fn say(&mut self, text: &str) {
        // Nobody is left to tell when stderr is closed, and the exit code says the rest.
        self.talk.write_all(text.as_bytes()).and_then(|()| self.talk.flush()).unwrap_or_default();
    }

    /// Says what went wrong.
    pub fn error(&mut self, message: &str) {
        self.talk_with(Paint::Red, "error", message);
    }

    /// Says what looks wrong.
    pub fn warn(&mut self, message: &str) {
        self.talk_with(Paint::Yellow, "warning", message);
    }

    /// Says something that helps.
    pub fn note(&mut self, message: &str) {
        self.talk_with(Paint::Bold, "note", message);
    }

    fn talk_with(&mut self, paint: Paint, word: &str, message: &str) {
        let word = paint.on(word, self.talk_color);
        // Lines are the one thing kept: an error may list several problems.
        let message = message.lines().map(clean).collect::<Vec<_>>().join("\n");
        self.say(&format!("{word}: {message}\n"));
    }
}

/// The few colours, as ANSI writes them.
#[derive(Clone, Copy, Debug)]
pub(super) enum Paint {
    Bold,
    Red,
    Green,
    Yellow,
}

impl Paint {
    /// The text in this colour, if colour is wanted.
    pub(super) fn on(self, text: &str, color: bool) -> String {
        let code = match self {
            Self::Bold => "1",
            Self::Red => "1;31",
            Self::Green => "32",
            Self::Yellow => "33",
        };
        if color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Text from elsewhere on one line, with whatever could steer a terminal or turn the reading direction written out.
///
/// A process chooses its own command name, and so would paint over the line that denounces it.
pub(super) fn clean(text: &str) -> Cow<'_, str> {
    let steers = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2028}' | '\u{2029}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut cleaned = String::with_capacity(text.len());
    for c in text.chars() {
        if steers(c) { cleaned.extend(c.escape_default()) } else { cleaned.push(c) }
    }
    Cow::Owned(cleaned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_steers_the_terminal() {
        assert_eq!(clean("plain é"), "plain é");
        assert_eq!(clean("a\x1b[2Jb\n\u{9b}\u{202e}c"), "a\\u{1b}[2Jb\\n\\u{9b}\\u{202e}c");
    }

    #[test]
    fn colour_only_when_wanted() {
        assert_eq!(Paint::Red.on("x", true), "\x1b[1;31mx\x1b[0m");
        assert_eq!(Paint::Green.on("x", false), "x");
    }
}
