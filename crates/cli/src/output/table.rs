//! Tables for people: a header, aligned columns, no borders.

use crate::failure::Failure;
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ContentArrangement, Table as Grid};

use super::human::printable;

/// Rows under a header.
pub(crate) struct Table {
    grid: Grid,
    columns: usize,
}

impl Table {
    /// A table with these columns.
    pub(crate) fn new(header: &[&str]) -> Self {
        let mut grid = Grid::new();
        grid.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled).force_no_tty();
        grid.set_header(header.iter().map(ToString::to_string).collect::<Vec<_>>());
        Self { grid, columns: header.len() }
    }

    /// Lines up the numbers of a column.
    pub(crate) fn right(mut self, column: usize) -> Self {
        if let Some(column) = self.grid.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        self
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells: Vec<_> = cells.into_iter().map(|cell| printable(&cell).replace('\n', " ")).collect();
        debug_assert_eq!(cells.len(), self.columns);
        self.grid.add_row(cells);
    }

    /// The table as lines.
    pub(crate) fn text(mut self) -> String {
        for column in self.grid.column_iter_mut() {
            column.set_padding((0, 2));
        }
        self.grid.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
    }

    /// Prints it.
    ///
    /// # Errors
    /// As for [`super::line`].
    pub(crate) fn print(self) -> Result<(), Failure> {
        super::line(&self.text())
    }
}

/// Names with values, one a line; those without a value are left out.
pub(crate) fn facts(facts: &[(&str, String)]) -> String {
    let facts: Vec<_> = facts.iter().filter(|(_, value)| !value.is_empty()).collect();
    let width = facts.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let lines = facts.iter().map(|(name, value)| {
        let value = printable(value).replace('\n', &format!("\n{:width$}  ", ""));
        format!("{name:width$}  {value}")
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_have_no_tail() {
        let mut table = Table::new(&["ID", "N"]).right(1);
        table.row(["a".to_owned(), "10".to_owned()]);
        table.row(["long".to_owned(), "9".to_owned()]);
        assert_eq!(table.text(), "ID     N\na     10\nlong   9");
    }

    #[test]
    fn facts_without_a_value_are_left_out() {
        let text = facts(&[("id", "x".to_owned()), ("none", String::new()), ("state", "a\nb".to_owned())]);
        assert_eq!(text, "id     x\nstate  a\n       b");
    }
}
