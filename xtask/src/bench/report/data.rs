//! What other commands have written, as the plots need it.

use serde_json::Value;

/// One operation at one setting of a comparison.
#[derive(Clone, Debug)]
pub(super) struct Operation<'a> {
    pub(super) name: &'a str,
    pub(super) cpus: u64,
    pub(super) ratio: Option<f64>,
    /// Ours and Linux's.
    pub(super) medians: [Option<f64>; 2],
    /// How many samples were 0, 1, 2 to 3, 4 to 7, and so on; empty where that was not counted.
    pub(super) histograms: [Vec<u64>; 2],
}

/// All operations at all settings.
pub(super) fn operations(comparison: &Value) -> Vec<Operation<'_>> {
    let list = |value: &'static str, of: &Value| of[value].as_array().map_or(0, Vec::len);
    let mut all = Vec::new();
    for setting in 0..list("settings", comparison) {
        let setting = &comparison["settings"][setting];
        for row in 0..list("operations", setting) {
            let row = &setting["operations"][row];
            let counts = |side: &str| row[side]["histogram"].as_array().cloned().unwrap_or_default();
            all.push(Operation {
                name: row["name"].as_str().unwrap_or(""),
                cpus: setting["cpus"].as_u64().unwrap_or(0),
                ratio: row["ratio"].as_f64(),
                medians: ["quiesce", "linux"].map(|side| row[side]["median"].as_f64()),
                histograms: ["quiesce", "linux"]
                    .map(|side| counts(side).iter().map(|count| count.as_u64().unwrap_or(0)).collect()),
            });
        }
    }
    all
}

/// A table as a benchmark prints it: `| 1000 timers | insert | cancel |`, a line of dashes, and rows.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Table {
    pub(super) heading: Vec<String>,
    pub(super) rows: Vec<Vec<String>>,
}

impl Table {
    /// All tables of a text, whatever else stands in it.
    pub(super) fn all_of(text: &str) -> Vec<Table> {
        let mut tables: Vec<Table> = Vec::new();
        let mut inside = false;
        for line in text.lines() {
            let cells = line.trim().strip_prefix('|').and_then(|rest| rest.strip_suffix('|'));
            let Some(cells) = cells else {
                inside = false;
                continue;
            };
            let cells: Vec<String> = cells.split('|').map(|cell| cell.trim().to_owned()).collect();
            let dashes =
                cells.iter().all(|cell| !cell.is_empty() && cell.chars().all(|c| c == '-' || c == ':'));
            match tables.last_mut().filter(|_| inside) {
                None => tables.push(Table { heading: cells, rows: Vec::new() }),
                Some(_) if dashes => {}
                Some(table) => table.rows.push(cells),
            }
            inside = true;
        }
        tables
    }

    /// The column of that name.
    pub(super) fn column(&self, name: &str) -> Option<usize> {
        self.heading.iter().position(|other| other == name)
    }
}

/// The number that a text begins with.
pub(super) fn number(text: &str) -> Option<f64> {
    text.split_whitespace().next()?.replace(',', "").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_found_in_any_text() {
        let text = "wheel\n\n| 1000 timers | insert | cancel |\n|---|---:|---:|\n| ours | 6.1 | 3 |\n| theirs | - | 1,200 |\n\
                    end\n| other |\n|---|\n";
        let tables = Table::all_of(text);
        assert_eq!(tables.len(), 2);
        assert_eq!(tables[0].rows, [["ours", "6.1", "3"], ["theirs", "-", "1,200"]]);
        assert_eq!(tables[0].column("cancel"), Some(2));
        assert_eq!(tables[0].column("none"), None);
        assert_eq!(tables[1].rows.len(), 0);
        assert!(Table::all_of("a | b\n").is_empty());
    }

    #[test]
    fn numbers_may_be_grouped_and_have_units() {
        assert_eq!(["1,200", "1000 timers", "6.5"].map(number), [Some(1200.0), Some(1000.0), Some(6.5)]);
        assert_eq!(["-", ""].map(number), [None, None]);
    }
}
