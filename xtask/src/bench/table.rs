//! Columns of text: the first to the left, the others to the right.

/// The rows, with a heading, as lines; without spaces at the ends.
pub(super) fn render(heading: &[&str], rows: &[Vec<String>]) -> String {
    let heading: Vec<String> = heading.iter().map(|word| (*word).to_owned()).collect();
    let all = || std::iter::once(&heading).chain(rows);
    let columns = all().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| all().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in all() {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    text
}

/// A number with as many digits as a reader can use.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        100_000.0.. => {
            let digits = format!("{value:.0}");
            let mut grouped = String::new();
            for (position, digit) in digits.chars().enumerate() {
                if position > 0 && (digits.len() - position) % 3 == 0 && grouped != "-" {
                    grouped.push(',');
                }
                grouped.push(digit);
            }
            grouped
        }
        1_000.0.. => format!("{value:.0}"),
        _ => format!("{value:.1}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [
            vec!["spin".to_owned(), "12.5".to_owned()],
            vec!["rw".to_owned(), "7".to_owned(), String::new()],
        ];
        assert_eq!(render(&["NAME", "NS"], &rows), "NAME    NS\nspin  12.5\nrw       7\n");
    }

    #[test]
    fn numbers() {
        let shown = [0.0, 12.345, 999.96, 2_421.4, 11_999_899.0, 123_456.0].map(number);
        assert_eq!(shown, ["0.0", "12.3", "1000.0", "2421", "11,999,899", "123,456"]);
    }
}
