//! Columns: cells parted by tabs become aligned by spaces.
//!
//! As Go's `text/tabwriter`: a column is as wide as its widest cell plus the padding, and at
//! least the minimum; a line's last cell is never padded, and a column ends at the first line
//! that does not have it.

use std::ops::Range;

use super::width;

/// Docker's tables.
pub const DOCKER: Widths = Widths { least: 10, padding: 3 };

#[derive(Debug, Clone, Copy)]
pub struct Widths {
    pub least: usize,
    pub padding: usize,
}

/// A piece of a line, and how many columns it takes and fills.
struct Cell<'a> {
    text: &'a str,
    width: usize,
    filled: usize,
}

/// Aligns `text`, whose lines hold cells parted by tabs.
pub fn align(text: &str, widths: Widths) -> String {
    let mut cells = Vec::new();
    let mut lines = Vec::new();
    for line in text.split('\n') {
        let first = cells.len();
        cells.extend(line.split('\t').map(|text| Cell {
            text,
            width: width::of_text(text),
            filled: 0,
        }));
        lines.push(first..cells.len());
    }
    let columns = lines.iter().map(ExactSizeIterator::len).max().unwrap_or_default();
    for column in 0..columns {
        // Only cells with a cell behind them form a column.
        let of_column = |line: &Range<usize>| line.len() > column + 1;
        for block in lines.split(|line| !of_column(line)) {
            let widest = block.iter().map(|line| cells[line.start + column].width).max();
            let filled = widest.unwrap_or_default() + widths.padding;
            for line in block {
                cells[line.start + column].filled = filled.max(widths.least);
            }
        }
    }
    let mut aligned = String::with_capacity(
        cells.iter().map(|cell| cell.text.len().max(cell.filled)).sum::<usize>() + lines.len(),
    );
    for (place, line) in lines.into_iter().enumerate() {
        if place > 0 {
            aligned.push('\n');
        }
        for cell in &cells[line] {
            aligned.push_str(cell.text);
            aligned.extend(std::iter::repeat_n(' ', cell.filled.saturating_sub(cell.width)));
        }
    }
    aligned
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        expect![[r#"
            ID        NAME             SIZE
            1         a-longer-name    2B
            12        b                30MB
        "#]]
        .assert_eq(&align(
            "ID\tNAME\tSIZE\n1\ta-longer-name\t2B\n12\tb\t30MB\n",
            Widths { least: 10, padding: 4 },
        ));
    }
}
