//! Columns: cells parted by tabs become aligned by spaces.
//!
//! As Go's `text/tabwriter`: a column is as wide as its widest cell plus the padding, and at
//! least the minimum; a line's last cell is never padded, and a column ends at the first line
//! that does not have it.

use super::width;

/// Docker's tables.
pub const DOCKER: Widths = Widths { least: 10, padding: 3 };

#[derive(Debug, Clone, Copy)]
pub struct Widths {
    pub least: usize,
    pub padding: usize,
}

/// Aligns `text`, whose lines hold cells parted by tabs.
pub fn align(text: &str, widths: Widths) -> String {
    let lines: Vec<Vec<&str>> = text.split('\n').map(|line| line.split('\t').collect()).collect();
    let mut wide: Vec<Vec<usize>> = lines.iter().map(|cells| vec![0; cells.len()]).collect();
    let columns = lines.iter().map(Vec::len).max().unwrap_or_default();
    for column in 0..columns {
        let mut start = 0;
        while start < lines.len() {
            // Only cells with a cell behind them form a column.
            let block = lines[start..].iter().take_while(|cells| cells.len() > column + 1).count();
            let width = lines[start..start + block]
                .iter()
                .map(|cells| width::of_text(cells[column]) + widths.padding)
                .max()
                .unwrap_or_default()
                .max(widths.least);
            for line in &mut wide[start..start + block] {
                line[column] = width;
            }
            start += block + 1;
        }
    }
    let mut aligned = Vec::with_capacity(lines.len());
    for (cells, wide) in lines.iter().zip(&wide) {
        let mut line = String::new();
        for (column, cell) in cells.iter().enumerate() {
            line.push_str(cell);
            if column + 1 < cells.len() {
                line.push_str(&" ".repeat(wide[column].saturating_sub(width::of_text(cell))));
            }
        }
        aligned.push(line);
    }
    aligned.join("\n")
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
