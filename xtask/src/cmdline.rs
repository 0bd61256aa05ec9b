//! The guest's command line: words separated by spaces, `key`, `key=value` or `key="value with spaces"`.
//!
//! Inside quotes `\"` and `\\` stand for themselves. QEMU hands the string over unchanged (it is an argument of its
//! own, no shell in between), so the guest's parser is the only one to please.

use anyhow::{Result, ensure};

/// The longest command line handed to a guest, in bytes.
const LONGEST: usize = 2048;

/// A guest command line in the making.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cmdline {
    text: String,
}

impl Cmdline {
    /// Adds words that are already in the guest's form.
    pub(crate) fn words(&mut self, words: &str) -> &mut Self {
        let words = words.trim();
        if !words.is_empty() {
            if !self.text.is_empty() {
                self.text.push(' ');
            }
            self.text.push_str(words);
        }
        self
    }

    /// Adds `key=value`, quoted where it needs to be.
    pub(crate) fn set(&mut self, key: &str, value: &str) -> &mut Self {
        let word = format!("{key}={}", quote(value));
        self.words(&word)
    }

    /// The finished string; an error when the guest could not take it.
    pub(crate) fn finish(&self) -> Result<&str> {
        ensure!(
            self.text.len() <= LONGEST,
            "the guest's command line is {} bytes long; it takes at most {LONGEST}: pass fewer commands",
            self.text.len()
        );
        if let Some(bad) = self.text.chars().find(|c| c.is_control()) {
            anyhow::bail!("the guest's command line may not contain the control character {bad:?}");
        }
        Ok(&self.text)
    }
}

/// `value` as the guest's parser reads it back.
fn quote(value: &str) -> String {
    let plain = !value.is_empty() && !value.contains(|c: char| c.is_whitespace() || c == '"' || c == '\\');
    if plain {
        return value.to_owned();
    }
    let mut quoted = String::with_capacity(value.len() + 2);
    quoted.push('"');
    for c in value.chars() {
        if c == '"' || c == '\\' {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The guest's side, in its plainest form.
    fn parse(line: &str) -> Vec<String> {
        let (mut words, mut word, mut quoted, mut any) = (Vec::new(), String::new(), false, false);
        let mut characters = line.chars();
        while let Some(c) = characters.next() {
            match c {
                '"' => (quoted, any) = (!quoted, true),
                '\\' if quoted => word.extend(characters.next()),
                ' ' if !quoted => {
                    if any || !word.is_empty() {
                        words.push(std::mem::take(&mut word));
                    }
                    any = false;
                }
                c => word.push(c),
            }
        }
        if any || !word.is_empty() {
            words.push(word);
        }
        words
    }

    #[test]
    fn words_are_joined_by_one_space() {
        let mut line = Cmdline::default();
        line.words("debugexit ").words("").set("seed", "7").set("exec", "cpus; poweroff");
        assert_eq!(line.finish().unwrap(), r#"debugexit seed=7 exec="cpus; poweroff""#);
    }

    #[test]
    fn a_line_break_is_refused() {
        assert!(Cmdline::default().set("exec", "a\nb").finish().is_err());
        assert!(Cmdline::default().set("exec", &"x".repeat(4000)).finish().is_err());
    }

    proptest! {
        #[test]
        fn any_value_comes_back(value in "[ -~\u{e4}]{0,40}") {
            let mut line = Cmdline::default();
            line.words("first").set("exec", &value).words("last");
            prop_assert_eq!(
                parse(line.finish().unwrap()),
                ["first".to_owned(), format!("exec={value}"), "last".to_owned()]
            );
        }
    }
}
