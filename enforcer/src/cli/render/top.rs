//! Edges in motion: a table, or a live view of the terminal.

use std::io;
use std::time::{Duration, Instant};

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Row, Table};

use super::{clean, table};
use crate::domain::edges::{Order, Rate};

const HEADER: [&str; 7] = ["SOURCE", "DESTINATION", "FLOWS/S", "DENIED/S", "BYTES/S", "ACTIVE", "RTT"];
/// Where the columns begin that can be on top.
const FIRST: usize = 2;

/// A table of these.
pub fn table(rates: &[Rate]) -> String {
    let rows: Vec<Vec<String>> = rates.iter().map(|rate| cells(rate).to_vec()).collect();
    table::table(&HEADER, &rows)
}

fn cells(rate: &Rate) -> [String; 7] {
    let ends = &rate.ends;
    let port = if ends.port == 0 { String::new() } else { format!(":{}", ends.port) };
    let protocol = if ends.protocol == "TCP" { String::new() } else { format!("/{}", ends.protocol) };
    [
        clean(&ends.source).into_owned(),
        clean(&format!("{}{port}{protocol}", ends.destination)).into_owned(),
        number(rate.flows),
        number(rate.denied),
        bytes(rate.bytes),
        rate.active.to_string(),
        rate.round_trip.map_or_else(|| "-".to_owned(), time),
    ]
}

fn number(number: f64) -> String {
    if number >= 100.0 || number == 0.0 { format!("{number:.0}") } else { format!("{number:.1}") }
}

fn bytes(bytes: f64) -> String {
    const UNITS: [(&str, f64); 3] = [("GiB", 1_073_741_824.0), ("MiB", 1_048_576.0), ("KiB", 1_024.0)];
    let unit = UNITS.iter().find(|(_, size)| bytes >= *size);
    unit.map_or_else(|| format!("{bytes:.0}"), |(unit, size)| format!("{:.1} {unit}", bytes / size))
}

/// Microseconds.
fn time(micros: f64) -> String {
    if micros >= 1_000.0 { format!("{:.1} ms", micros / 1_000.0) } else { format!("{micros:.0} us") }
}

/// What somebody pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// It is enough.
    Quit,
    /// Another column, so many to the right.
    Turn(isize),
}

/// The live view. The terminal is as before when it is dropped.
#[derive(Debug)]
pub struct View(DefaultTerminal);

impl View {
    /// Takes the terminal.
    pub fn open() -> io::Result<Self> {
        ratatui::try_init().map(Self)
    }

    /// Shows these, of so many.
    pub fn draw(&mut self, rates: &[Rate], all: usize, order: Order) -> io::Result<()> {
        let place = Order::ALL.iter().position(|one| *one == order).unwrap_or_default();
        let header = HEADER.iter().enumerate().map(|(index, name)| {
            let style = Style::new().add_modifier(Modifier::BOLD);
            Cell::new(*name).style(if index == FIRST + place { style.fg(Color::Cyan) } else { style })
        });
        let header = Row::new(header.collect::<Vec<_>>());
        let rows = rates.iter().map(|rate| {
            let style = if rate.denied > 0.0 { Style::new().fg(Color::Red) } else { Style::new() };
            Row::new(cells(rate)).style(style)
        });
        let widths = [
            Constraint::Fill(2),
            Constraint::Fill(3),
            Constraint::Length(9),
            Constraint::Length(9),
            Constraint::Length(10),
            Constraint::Length(7),
            Constraint::Length(9),
        ];
        let table = Table::new(rows.collect::<Vec<_>>(), widths).header(header);
        let title = Line::from(format!(
            "enforcer top: {} of {all} edges; left and right choose the column on top, q ends",
            rates.len()
        ));
        self.0.draw(|frame| {
            let [top, rest] =
                Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(frame.area());
            frame.render_widget(title, top);
            frame.render_widget(table, rest);
        })?;
        Ok(())
    }

    /// Waits for a key, or so long.
    pub fn wait(&mut self, time: Duration) -> io::Result<Option<Key>> {
        let end = Instant::now() + time;
        loop {
            let rest = end.saturating_duration_since(Instant::now());
            if !event::poll(rest)? {
                return Ok(None);
            }
            let Event::Key(key) = event::read()? else { continue };
            if key.kind != KeyEventKind::Press {
                continue;
            }
            let interrupt = key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c');
            match key.code {
                KeyCode::Char('q') | KeyCode::Esc => return Ok(Some(Key::Quit)),
                _ if interrupt => return Ok(Some(Key::Quit)),
                KeyCode::Left => return Ok(Some(Key::Turn(-1))),
                KeyCode::Right => return Ok(Some(Key::Turn(1))),
                _ => {}
            }
        }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::edges::Ends;

    #[test]
    fn numbers_are_short() {
        let ends = Ends {
            source: "default/web".into(),
            destination: "default/dns".into(),
            port: 53,
            protocol: "UDP".into(),
        };
        let rate = Rate {
            ends,
            flows: 12.34,
            denied: 0.0,
            bytes: 5.0 * 1_048_576.0,
            active: 3,
            round_trip: Some(1_234.0),
        };
        let expected = ["default/web", "default/dns:53/UDP", "12.3", "0", "5.0 MiB", "3", "1.2 ms"];
        assert_eq!(cells(&rate), expected);
        let other = Rate { flows: 1_234.5, bytes: 17.0, round_trip: None, ..rate };
        let cells = cells(&other);
        assert_eq!((&*cells[2], &*cells[4], &*cells[6]), ("1234", "17", "-"));
    }
}
