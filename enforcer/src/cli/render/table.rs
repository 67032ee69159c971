//! Tables: columns align, nothing wraps, `-` stands for nothing. Looks like kubectl's.

use super::clean;

const GAP: &str = "   ";

/// Columns that grow with what they have seen.
#[derive(Debug)]
pub(super) struct Columns {
    widths: Vec<usize>,
}

impl Columns {
    /// Columns that are wide enough for these.
    pub(super) fn new(cells: &[&str]) -> Self {
        Self { widths: cells.iter().map(|cell| width(cell)).collect() }
    }

    /// Makes room for a row.
    pub(super) fn fit(&mut self, cells: &[String]) {
        for (known, cell) in self.widths.iter_mut().zip(cells) {
            *known = (*known).max(width(&shown(cell)));
        }
    }

    /// A row as a line. `paint` may colour a cell after its width is known.
    pub(super) fn line(&self, cells: &[String], paint: impl Fn(usize, &str) -> String) -> String {
        let mut line = String::new();
        for (index, cell) in cells.iter().enumerate() {
            let cell = shown(cell);
            line.push_str(&paint(index, &cell));
            // The last column ends the line: no blanks to select and copy.
            if index + 1 < cells.len() {
                let missing = self.widths.get(index).copied().unwrap_or(0).saturating_sub(width(&cell));
                line.extend(std::iter::repeat_n(' ', missing));
                line.push_str(GAP);
            }
        }
        line.push('\n');
        line
    }
}

fn shown(cell: &str) -> String {
    if cell.is_empty() { "-".to_owned() } else { clean(cell).into_owned() }
}

/// In characters: names, labels and addresses are ASCII, so this is what a terminal shows.
fn width(text: &str) -> usize {
    text.chars().count()
}

/// A whole table.
pub(super) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut columns = Columns::new(header);
    for row in rows {
        columns.fit(row);
    }
    let header: Vec<_> = header.iter().map(|cell| (*cell).to_owned()).collect();
    let plain = |_, cell: &str| cell.to_owned();
    let lines = std::iter::once(&header).chain(rows).map(|row| columns.line(row, plain));
    lines.collect()
}

/// Several words in one cell.
pub(super) fn words(items: &[String]) -> String {
    items.join(",")
}
