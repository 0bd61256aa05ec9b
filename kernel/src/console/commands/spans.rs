//! Spans of time, as people write and read them.

use alloc::string::String;
use core::fmt;

/// The units, the longest first, and how many nanoseconds they are.
const UNITS: [(&str, u64); 6] = [
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Reads `3s`, `10ms`, `1.5s`: a number and its unit.
///
/// # Errors
/// What is wrong with it, and what would be right.
pub(super) fn parse(word: &str) -> Result<u64, String> {
    let digits = word.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(word.len());
    let (number, unit) = word.split_at(digits);
    let wrong =
        || alloc::format!("`{word}` is no time: write a number and its unit (ns us ms s m h), as in `10ms`");
    let ns_each = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?.1;
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    // Nine digits are nanoseconds of a second; more would claim what no timer does.
    if whole.is_empty() || part.is_empty() || part.len() > 9 {
        return Err(wrong());
    }
    let too_long = || alloc::format!("`{word}` is too long: no more than 5000000h are counted");
    let whole: u64 = whole.parse().map_err(|_| too_long())?;
    let part =
        part.parse::<u128>().map_err(|_| wrong())? * u128::from(ns_each) / 10_u128.pow(part.len() as u32);
    let ns = u128::from(whole) * u128::from(ns_each) + part;
    u64::try_from(ns).ok().filter(|ns| *ns <= 5_000_000 * UNITS[0].1).ok_or_else(too_long)
}

/// Nanoseconds, in the unit that leaves few digits: `300 ns`, `12.000 ms`, `3.500 s`, `12.00 h`. Rounded down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Span(pub(super) u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ns = self.0;
        match ns {
            0..1_000 => write!(f, "{ns} ns"),
            1_000..1_000_000 => write!(f, "{}.{:03} us", ns / 1_000, ns % 1_000),
            1_000_000..1_000_000_000 => write!(f, "{}.{:03} ms", ns / 1_000_000, ns / 1_000 % 1_000),
            1_000_000_000..3_600_000_000_000 => {
                write!(f, "{}.{:03} s", ns / 1_000_000_000, ns / 1_000_000 % 1_000)
            }
            _ => write!(f, "{}.{:02} h", ns / UNITS[0].1, ns % UNITS[0].1 / (UNITS[0].1 / 100)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_have_units() {
        for (word, ns) in [
            ("0ns", 0),
            ("1ns", 1),
            ("250us", 250_000),
            ("10ms", 10_000_000),
            ("3s", 3_000_000_000),
            ("1.5s", 1_500_000_000),
            ("0.000000001s", 1),
            ("2m", 120_000_000_000),
            ("1.25h", 4_500_000_000_000),
            ("1.9ns", 1),
            ("5000000h", 18_000_000_000_000_000_000),
        ] {
            assert_eq!(parse(word), Ok(ns), "{word}");
        }
        for word in
            ["", "3", "s", "-3s", "3 s", "3S", "3sec", "1.s", ".5s", "1.2.3s", "1.0000000000s", "1e3s"]
        {
            assert!(
                parse(word).unwrap_err().contains("write a number and its unit (ns us ms s m h)"),
                "{word}"
            );
        }
        for word in ["5000001h", "99999999999999999999s", "18446744073709551615m"] {
            assert!(parse(word).unwrap_err().contains("is too long"), "{word}");
        }
    }

    #[test]
    fn spans_read_well() {
        for (ns, text) in [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_000, "1.000 us"),
            (999_999, "999.999 us"),
            (12_000_000, "12.000 ms"),
            (3_500_000_000, "3.500 s"),
            (3_599_999_999_999, "3599.999 s"),
            (3_600_000_000_000, "1.00 h"),
            (u64::MAX, "5124095.57 h"),
        ] {
            assert_eq!(Span(ns).to_string(), text);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(test_support::cases(256)))]

        #[test]
        fn what_is_read_is_what_was_written(number in 0..5_000_000_u64, unit in 0..UNITS.len()) {
            let (name, ns) = UNITS[unit];
            prop_assert_eq!(parse(&format!("{number}{name}")), Ok(number * ns));
        }

        #[test]
        fn any_word_is_read_or_refused(word in ".*") {
            let _ = parse(&word);
        }
    }
}
