//! The kernel command line: what the person who boots the machine may say about it.
//!
//! A line is words separated by spaces. A word is `key`, `key=value` or `key="value with spaces"`; in a value `\"`
//! stands for a quote and `\\` for a backslash. Parsing needs no heap, because the log level has to be known before there
//! is one: values stay slices of the line, and what is wrong is handed to the caller one [`Problem`] at a time.
//!
//! ```
//! use kernel::cmdline::{Options, TestFilter};
//!
//! let options = Options::parse(r#"seed=0x2a test=percpu exec="cpus; log \"debug\"""#, |problem| panic!("{problem}"));
//! assert_eq!(options.seed, Some(42));
//! assert_eq!(options.test, Some(TestFilter::Matching("percpu")));
//! assert_eq!(options.exec.unwrap().to_string(), r#"cpus; log "debug""#);
//! ```

use core::fmt;

use log::LevelFilter;

use crate::hotplug::HotAdd;
use crate::sched::Preemption;
use crate::tick::TickMode;

/// The boot options, typed. [`Options::default`] is what an empty line means.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options<'a> {
    /// `loglevel=`: the most detailed level that is logged; `None` leaves the build's default.
    pub loglevel: Option<LevelFilter>,
    /// `seed=`: the seed of chaos points and of everything else that is drawn; decimal or `0x` hexadecimal.
    pub seed: Option<u64>,
    /// `test` or `test=FILTER`: run the kernel's own tests and stop the machine.
    pub test: Option<TestFilter<'a>>,
    /// `exec=`: run these console commands, separated by `;`, and stop the machine.
    pub exec: Option<Text<'a>>,
    /// `crash=`: fail in this way once the machine is up, to see the report.
    pub crash: Option<&'a str>,
    /// `notsc`: do not use the time stamp counters as the clock, as if those of different CPUs had disagreed.
    pub notsc: bool,
    /// `lockdep=off`: do not check the dependencies of locks, in a build that would.
    pub lockdep_off: bool,
    /// `holds=`: what holds others up for so many microseconds is reported.
    pub holds_us: Option<u64>,
    /// `hung=`: a task that is blocked for so many seconds is reported; `off` is 0.
    pub hung_s: Option<u64>,
    /// `hotadd=`: what becomes of a CPU that the host plugs in.
    pub hotadd: HotAdd,
    /// `preempt=`: at which points tasks are replaced that did not ask.
    pub preempt: Preemption,
    /// `tick=`: when a CPU's tick rests.
    pub tick: TickMode,
    /// `debugexit`: the emulator's debug-exit device is there, and stopping the machine goes through it.
    pub debugexit: bool,
}

/// Which of the kernel's own tests to run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TestFilter<'a> {
    /// Every test.
    All,
    /// Those whose name contains this.
    Matching(&'a str),
}

impl TestFilter<'_> {
    /// Whether the test called `name` is to run.
    pub fn matches(&self, name: &str) -> bool {
        match self {
            TestFilter::All => true,
            TestFilter::Matching(part) => name.contains(part),
        }
    }
}

/// The keys that [`Options::parse`] knows, for messages.
pub const KNOWN: [&str; 13] = [
    "crash",
    "debugexit",
    "exec",
    "holds",
    "hotadd",
    "hung",
    "lockdep",
    "loglevel",
    "notsc",
    "preempt",
    "seed",
    "test",
    "tick",
];

impl<'a> Options<'a> {
    /// Reads a command line. Each word that is not understood goes to `problem` and is otherwise ignored: a machine with
    /// a mistyped option still boots. Of a repeated option the last one counts.
    ///
    /// Contexts: any, before the heap too. Cost: linear.
    pub fn parse(line: &'a str, mut problem: impl FnMut(Problem<'a>)) -> Options<'a> {
        let mut options = Options::default();
        for word in words(line) {
            match word.and_then(|word| options.apply(word)) {
                Ok(()) => {}
                Err(found) => problem(found),
            }
        }
        options
    }

    fn apply(&mut self, word: Word<'a>) -> Result<(), Problem<'a>> {
        let Word { key, value } = word;
        let needed = |needs| value.ok_or(Problem::Missing { key, needs });
        let bad = |needs| Problem::Bad { key, value: value.unwrap_or(Text("")), needs };
        match key {
            "loglevel" => {
                let level = needed(LEVELS)?.0.parse().map_err(|_| bad(LEVELS))?;
                self.loglevel = Some(level);
            }
            "lockdep" => {
                self.lockdep_off = match needed(ON_OFF)?.0 {
                    "on" => false,
                    "off" => true,
                    _ => return Err(bad(ON_OFF)),
                };
            }
            "holds" => {
                self.holds_us = match needed(HOLDS)?.0 {
                    "off" => None,
                    text => {
                        Some(number(text).filter(|us| (1..=MOST_US).contains(us)).ok_or_else(|| bad(HOLDS))?)
                    }
                };
            }
            "hung" => {
                self.hung_s = Some(match needed(HUNG)?.0 {
                    "off" => 0,
                    text => {
                        number(text).filter(|s| (1..=MOST_HUNG_S).contains(s)).ok_or_else(|| bad(HUNG))?
                    }
                });
            }
            "hotadd" => {
                let name = needed(HOTADD)?.0;
                let kind = HotAdd::NAMES.iter().find(|(known, _)| *known == name);
                self.hotadd = kind.map(|(_, kind)| *kind).ok_or_else(|| bad(HOTADD))?;
            }
            "preempt" => {
                let name = needed(PREEMPT)?.0;
                let mode = Preemption::NAMES.iter().find(|(known, _)| *known == name);
                self.preempt = mode.map(|(_, mode)| *mode).ok_or_else(|| bad(PREEMPT))?;
            }
            "tick" => {
                let name = needed(TICK)?.0;
                let mode = TickMode::NAMES.iter().find(|(known, _)| *known == name);
                self.tick = mode.map(|(_, mode)| *mode).ok_or_else(|| bad(TICK))?;
            }
            "seed" => self.seed = Some(number(needed(NUMBER)?.0).ok_or_else(|| bad(NUMBER))?),
            "test" => {
                self.test = Some(match value {
                    None | Some(Text("")) => TestFilter::All,
                    Some(text) => TestFilter::Matching(text.0),
                });
            }
            "exec" => self.exec = Some(needed("console commands in quotes")?),
            "crash" => self.crash = Some(needed("a kind of crash; the console's `crash` lists them")?.0),
            "debugexit" if value.is_none() => self.debugexit = true,
            "notsc" if value.is_none() => self.notsc = true,
            "debugexit" | "notsc" => return Err(bad("no value")),
            _ => return Err(Problem::Unknown { key }),
        }
        Ok(())
    }
}

const LEVELS: &str = "one of off, error, warn, info, debug, trace";
const TICK: &str = "auto, idle or always";
const PREEMPT: &str = "full, voluntary or none";
const HOTADD: &str = "online or present";
const HOLDS: &str = "a number of microseconds, or off";
const HUNG: &str = "a number of seconds, or off";
/// A day.
pub(crate) const MOST_HUNG_S: u64 = 86_400;
/// The same in microseconds.
pub(crate) const MOST_US: u64 = MOST_HUNG_S * 1_000_000;
const ON_OFF: &str = "on or off";
const NUMBER: &str = "a number below 2^64, decimal or hexadecimal with 0x";

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        // `from_str_radix` would take a sign.
        Some(digits) if !digits.starts_with('+') => u64::from_str_radix(digits, 16).ok(),
        None if !text.starts_with('+') => text.parse().ok(),
        _ => None,
    }
}

/// What is wrong with a word. Displays as one line that says what would be right.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Problem<'a> {
    /// No such option.
    Unknown {
        /// The word before the `=`.
        key: &'a str,
    },
    /// The option needs a value and has none.
    Missing {
        /// The option.
        key: &'a str,
        /// What its value may be.
        needs: &'static str,
    },
    /// The option does not take this value.
    Bad {
        /// The option.
        key: &'a str,
        /// Its value.
        value: Text<'a>,
        /// What its value may be.
        needs: &'static str,
    },
    /// A quote is opened and never closed, or something other than a space follows the closing one.
    Quotes {
        /// The option.
        key: &'a str,
    },
}

impl fmt::Display for Problem<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Problem::Unknown { key } => {
                write!(f, "unknown boot option `{key}`; known:")?;
                KNOWN.iter().try_for_each(|known| write!(f, " {known}"))
            }
            Problem::Missing { key, needs } => {
                write!(f, "boot option `{key}` needs a value: {key}=.., {needs}")
            }
            Problem::Bad { key, value, needs } => {
                write!(f, "boot option `{key}` cannot be `{value}`; it takes {needs}")
            }
            Problem::Quotes { key } => {
                write!(
                    f,
                    "boot option `{key}`: quotes must be closed, and a space must follow: {key}=\"a b\""
                )
            }
        }
    }
}

/// One word of the line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Word<'a> {
    /// What stands before the `=`.
    pub key: &'a str,
    /// What stands behind it, if there is one.
    pub value: Option<Text<'a>>,
}

/// A value as it stands in the line, with its escapes; [`fmt::Display`] and [`Text::chars`] give it without.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Text<'a>(&'a str);

impl<'a> Text<'a> {
    /// The characters that are meant.
    pub fn chars(self) -> impl Iterator<Item = char> + 'a {
        let mut rest = self.0.chars();
        core::iter::from_fn(move || match rest.next() {
            // `words` keeps backslashes of quoted values only in pairs or before a quote or an ordinary character.
            Some('\\') if matches!(rest.as_str().as_bytes().first(), Some(b'"' | b'\\')) => rest.next(),
            other => other,
        })
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        self.chars().try_for_each(|c| f.write_char(c))
    }
}

/// Cuts a line into words.
pub fn words(line: &str) -> impl Iterator<Item = Result<Word<'_>, Problem<'_>>> {
    let mut rest = line;
    core::iter::from_fn(move || {
        rest = rest.trim_ascii_start();
        if rest.is_empty() {
            return None;
        }
        let end = rest.find([' ', '\t', '\n', '=']).unwrap_or(rest.len());
        let (key, after) = rest.split_at(end);
        let Some(value) = after.strip_prefix('=') else {
            rest = after;
            return Some(Ok(Word { key, value: None }));
        };
        let (value, remaining) = match value.strip_prefix('"') {
            Some(quoted) => match closing_quote(quoted) {
                Some(at) => (Ok(&quoted[..at]), &quoted[at + 1..]),
                None => (Err(Problem::Quotes { key }), ""),
            },
            None => {
                let (plain, remaining) = value.split_at(value.find([' ', '\t', '\n']).unwrap_or(value.len()));
                (Ok(plain), remaining)
            }
        };
        rest = remaining;
        if !rest.is_empty() && !rest.starts_with([' ', '\t', '\n']) {
            // Skip what sticks to the closing quote, rather than take it for another option.
            rest = &rest[rest.find([' ', '\t', '\n']).unwrap_or(rest.len())..];
            return Some(Err(Problem::Quotes { key }));
        }
        Some(value.map(|value| Word { key, value: Some(Text(value)) }))
    })
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    })
}

#[cfg(test)]
mod tests {
    use std::format;
    use std::string::{String, ToString};
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn parse(line: &str) -> (Options<'_>, Vec<String>) {
        let mut problems = Vec::new();
        let options = Options::parse(line, |problem| problems.push(problem.to_string()));
        (options, problems)
    }

    #[test]
    fn an_empty_line_is_the_default() {
        assert_eq!(parse("").0, Options::default());
        assert_eq!(parse("  \n "), (Options::default(), Vec::new()));
    }

    #[test]
    fn every_option_is_read() {
        let (options, problems) = parse(
            r#" loglevel=debug  seed=0xffffffffffffffff test=rcu exec="a b; c" crash=panic debugexit lockdep=off "#,
        );
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(options.loglevel, Some(LevelFilter::Debug));
        assert_eq!(options.seed, Some(u64::MAX));
        assert_eq!(options.test, Some(TestFilter::Matching("rcu")));
        assert_eq!(options.exec.unwrap().to_string(), "a b; c");
        assert_eq!(options.crash, Some("panic"));
        assert!(options.debugexit && options.lockdep_off);
        assert!(!parse("lockdep=on").0.lockdep_off);
        assert_eq!(parse("holds=100 hung=60").0.holds_us, Some(100));
        assert_eq!(parse("holds=off hung=60").0, Options { hung_s: Some(60), ..Options::default() });
        assert_eq!(parse("hung=off").0.hung_s, Some(0));
        assert_eq!(parse("").0.preempt, Preemption::Full);
        assert_eq!(parse("preempt=voluntary").0.preempt, Preemption::Voluntary);
        assert_eq!(parse("preempt=none").0.preempt, Preemption::None);
        assert_eq!(parse("").0.hotadd, HotAdd::Online);
        assert_eq!(parse("hotadd=present").0.hotadd, HotAdd::Present);
        assert_eq!(parse("test").0.test, Some(TestFilter::All));
        assert_eq!(parse("test=").0.test, Some(TestFilter::All));
    }

    #[test]
    fn problems_say_what_would_be_right() {
        let complaint = |line| {
            let (options, problems) = parse(line);
            assert_eq!(options, Options::default(), "{line}");
            assert_eq!(problems.len(), 1, "{line}: {problems:?}");
            problems[0].clone()
        };
        assert!(complaint("sede=1").contains("unknown boot option `sede`; known: crash debugexit"));
        assert!(complaint("seed").contains("needs a value"));
        assert!(complaint("hotadd=yes").contains("cannot be `yes`; it takes online or present"));
        assert!(complaint("seed=x1").contains("cannot be `x1`; it takes a number"));
        assert!(complaint("seed=0x+1").contains("cannot be"));
        assert!(complaint("seed=18446744073709551616").contains("below 2^64"));
        assert!(complaint("loglevel=loud").contains("error, warn, info"));
        assert!(complaint("lockdep=maybe").contains("on or off"));
        assert!(complaint("preempt=partly").contains("cannot be `partly`; it takes full, voluntary or none"));
        assert!(complaint("holds=soon").contains("microseconds, or off"));
        assert!(complaint("holds=86400000001").contains("cannot be"));
        assert!(complaint("hung=0").contains("seconds, or off"));
        assert!(complaint("debugexit=1").contains("no value"));
        assert!(complaint("exec=\"unclosed test").contains("closed"));
        assert!(complaint("exec=\"a\"b").contains("closed"));
    }

    #[test]
    fn a_problem_hides_nothing_behind_it() {
        let (options, problems) = parse(r#"exec="a"b foo seed=7"#);
        assert_eq!(options.seed, Some(7));
        assert_eq!(problems.len(), 2);
    }

    /// What a caller that wants to hand over any text does.
    fn quote(text: &str) -> String {
        format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(test_support::cases(256)))]

        #[test]
        fn any_text_survives_quoting(before in "[a-z]{1,8}", text in any::<String>(), after in "[a-z]{1,8}") {
            let line = format!("{before} key={} {after}", quote(&text));
            let words: Vec<_> = words(&line).map(Result::unwrap).collect();
            prop_assert_eq!(words.len(), 3);
            prop_assert_eq!(words[1].key, "key");
            prop_assert_eq!(words[1].value.unwrap().to_string(), text);
            prop_assert_eq!(words[2].key, after);
        }

        #[test]
        fn any_line_is_read_to_its_end(line in any::<String>(), quotes in r#"[ a="\\]{0,24}"#) {
            parse(&line);
            parse(&quotes);
        }
    }
}
