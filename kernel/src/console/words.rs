//! How a line is cut into commands, and a command into words.
//!
//! Commands are separated by `;`, words by spaces. Double quotes keep both, and a backslash inside them takes the next
//! character as it is.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// A quote was opened and not closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unclosed;

impl fmt::Display for Unclosed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a quote is not closed: add the missing \"")
    }
}

/// The commands of a line, as they stand there; empty ones are left out.
pub fn commands(line: &str) -> Vec<&str> {
    let (mut quoted, mut escaped) = (false, false);
    line.split(|c| {
        let taken = core::mem::take(&mut escaped);
        match c {
            _ if taken => {}
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ';' => return !quoted,
            _ => {}
        }
        false
    })
    .map(str::trim)
    .filter(|command| !command.is_empty())
    .collect()
}

/// The words of a command, without their quotes.
///
/// # Errors
/// [`Unclosed`].
pub fn words(command: &str) -> Result<Vec<String>, Unclosed> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    let mut rest = command.chars();
    while let Some(c) = rest.next() {
        match c {
            '"' => {
                quoted = !quoted;
                // Two quotes are a word with nothing in it.
                word.get_or_insert_default();
            }
            '\\' if quoted => word.get_or_insert_default().push(rest.next().ok_or(Unclosed)?),
            c if c.is_whitespace() && !quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    if quoted { Err(Unclosed) } else { Ok(words) }
}

/// How many characters have to be inserted, deleted or replaced to make one word of the other (Levenshtein's distance).
pub fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = core::mem::replace(&mut row[0], i + 1);
        for (j, b) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

/// Those of `names` that somebody may have meant by `word`: they begin with it, or it is a typing error or two away. Only
/// the nearest, and three at most.
pub fn near<'n>(word: &str, names: impl Iterator<Item = &'n str>) -> Vec<&'n str> {
    let mut near: Vec<(usize, &str)> = names
        .map(|name| (if name.starts_with(word) { 1 } else { distance(word, name) }, name))
        // Of a word of two letters everything short is two errors away.
        .filter(|(errors, name)| *errors <= 2 && errors * 2 <= name.len().max(word.len()))
        .collect();
    near.sort();
    let fewest = near.first().map_or(0, |(errors, _)| *errors);
    near.into_iter().take_while(|(errors, _)| *errors == fewest).take(3).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn commands_and_words() {
        assert_eq!(commands(" cpus; mem ;;log debug"), ["cpus", "mem", "log debug"]);
        assert_eq!(commands(r#"a "b;\";c"; d"#), [r#"a "b;\";c""#, "d"]);
        assert_eq!(commands(" ; "), [""; 0]);
        assert_eq!(words(r#" a  "b c" d"e"f "" "#).unwrap(), ["a", "b c", "def", ""]);
        assert_eq!(words(r#""\"\\x""#).unwrap(), [r#""\x"#]);
        assert_eq!(words("\"a"), Err(Unclosed));
        assert_eq!(words("\"a\\"), Err(Unclosed));
    }

    #[test]
    fn near_names() {
        let names = || ["cpus", "clock", "crash", "dmesg", "irq"].into_iter();
        assert_eq!(near("cpu", names()), ["cpus"]);
        assert_eq!(near("cpuss", names()), ["cpus"]);
        assert_eq!(near("c", names()), ["clock", "cpus", "crash"]);
        assert_eq!(near("dmseg", names()), ["dmesg"]);
        assert_eq!(near("cl", names()), ["clock"]);
        assert_eq!(near("xy", names()), [""; 0]);
        assert_eq!(near("reboot", names()), [""; 0]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(test_support::cases(256)))]

        #[test]
        fn quoted_words_survive(texts in proptest::collection::vec("\\PC{0,8}", 0..5)) {
            let quote = |text: &String| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
            let line = texts.iter().map(quote).collect::<Vec<_>>().join(" ");
            prop_assert_eq!(words(&line).unwrap(), texts.clone());
            let both = format!("{line} x;{line} y");
            prop_assert_eq!(commands(&both).len(), 2);
        }

        #[test]
        fn distance_is_a_distance(a in "[ab]{0,6}", b in "[ab]{0,6}", c in "[ab]{0,6}") {
            prop_assert_eq!(distance(&a, &b) == 0, a == b);
            prop_assert_eq!(distance(&a, &b), distance(&b, &a));
            prop_assert!(distance(&a, &c) <= distance(&a, &b) + distance(&b, &c));
        }
    }
}
