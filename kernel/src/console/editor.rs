//! The line that somebody is typing: a value that takes bytes in and gives bytes out.
//!
//! It knows nothing of ports or of who else writes to the terminal. [`Editor::image`] says how to draw its line again
//! after others have written above it. The line takes one row of the screen at all times: one that is longer scrolls
//! sideways, with `<` and `>` where something is hidden. So erasing it never needs to know where rows broke.
//!
//! Every character counts as one column; wide and combining ones are kept and shown, but the cursor is then off.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

use super::keys::{Decoder, Key};

/// The columns that a line uses, for terminals of 80.
const COLUMNS: usize = 78;
/// The longest line, in characters.
const LONGEST: usize = 1024;
/// How many lines are remembered.
const REMEMBERED: usize = 64;
const BELL: char = '\x07';

/// What a byte brought about, besides the change of the line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// Enter: this is the line. The editor has an empty one now, not shown until [`Editor::image`] is.
    Line(String),
    /// Ctrl-C: the line was thrown away.
    Interrupted,
    /// Ctrl-D in an empty line.
    End,
}

/// What can stand where the cursor is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Completion {
    /// How many characters before the cursor the word to complete begins.
    pub typed: usize,
    /// The whole words that begin with what is typed.
    pub words: Vec<String>,
}

/// A line editor. Keys: cursor keys, Home, End, Delete, Backspace, Tab, Ctrl-A/E/B/F/P/N/H (move, history, delete),
/// Ctrl-K/U/W (cut to the end, to the beginning, a word), Ctrl-Y (put back what was cut), Ctrl-L (clear the screen),
/// Ctrl-C, Ctrl-D, Alt-B/F and Ctrl-Left/Right (words).
///
/// # Invariants
/// `cursor <= line.len() <= LONGEST`.
#[derive(Clone, Debug)]
pub struct Editor {
    prompt: &'static str,
    line: Vec<char>,
    cursor: usize,
    decoder: Decoder,
    history: VecDeque<Vec<char>>,
    /// Which line of the history is shown, and what was being typed before.
    browsing: Option<(usize, Vec<char>)>,
    cut: Vec<char>,
}

impl Editor {
    /// An editor with an empty line and no history.
    pub const fn new(prompt: &'static str) -> Editor {
        Editor {
            prompt,
            line: Vec::new(),
            cursor: 0,
            decoder: Decoder::new(),
            history: VecDeque::new(),
            browsing: None,
            cut: Vec::new(),
        }
    }

    /// The line as it is.
    pub fn line(&self) -> String {
        self.line.iter().collect()
    }

    /// How many characters are before the cursor.
    pub fn cursor(&self) -> usize {
        self.cursor
    }

    /// Takes in one byte from the terminal; appends to `out` what is to be sent back. `complete` is asked on Tab, with
    /// the text before the cursor.
    pub fn feed(
        &mut self,
        byte: u8,
        complete: impl Fn(&str) -> Completion,
        out: &mut String,
    ) -> Option<Event> {
        let mut decoder = core::mem::replace(&mut self.decoder, Decoder::new());
        let mut event = None;
        // Of two keys in one byte the first is a broken character and brings no event.
        decoder.feed(byte, |key| event = self.key(key, &complete, out));
        self.decoder = decoder;
        event
    }

    /// What draws the prompt and the line on an empty row, the cursor included.
    pub fn image(&self) -> String {
        let mut image = String::from(self.prompt);
        let room = self.room();
        let offset = self.offset();
        let hidden_behind = self.line.len() > offset + room;
        let visible = &self.line[offset..self.line.len().min(offset + room)];
        image.extend(visible.iter().enumerate().map(|(at, c)| if at == 0 && offset > 0 { '<' } else { *c }));
        image.extend(hidden_behind.then_some('>'));
        let back = visible.len() + usize::from(hidden_behind) - (self.cursor - offset);
        if back > 0 {
            let _ = write!(image, "\x1b[{back}D");
        }
        image
    }

    fn room(&self) -> usize {
        COLUMNS - self.prompt.chars().count()
    }

    /// How many characters are hidden before the visible part: a function of the cursor alone, in steps of half the room,
    /// so that the picture jumps now and then rather than at each key.
    fn offset(&self) -> usize {
        let (room, step) = (self.room(), self.room() / 2);
        if self.cursor < room { 0 } else { ((self.cursor - room) / step + 1) * step }
    }

    fn redraw(&self, out: &mut String) {
        let _ = write!(out, "\r\x1b[K{}", self.image());
    }

    fn key(&mut self, key: Key, complete: impl Fn(&str) -> Completion, out: &mut String) -> Option<Event> {
        match key {
            Key::Char(c) => return self.insert(&[c], out),
            Key::Control('y') => {
                let cut = self.cut.clone();
                return self.insert(&cut, out);
            }
            Key::Enter => return self.enter(out),
            Key::Tab => self.complete(complete, out),
            Key::Control('c') => {
                out.push_str("^C\r\n");
                self.replace(Vec::new());
                self.browsing = None;
                return Some(Event::Interrupted);
            }
            Key::Control('d') if self.line.is_empty() => {
                out.push_str("\r\n");
                return Some(Event::End);
            }
            Key::Control('l') => out.push_str("\x1b[2J\x1b[H"),
            Key::Left | Key::Control('b') => self.cursor = self.cursor.saturating_sub(1),
            Key::Right | Key::Control('f') => self.cursor = self.line.len().min(self.cursor + 1),
            Key::Home | Key::Control('a') => self.cursor = 0,
            Key::End | Key::Control('e') => self.cursor = self.line.len(),
            Key::WordLeft => self.cursor = self.word_start(),
            Key::WordRight => self.cursor = self.word_end(),
            Key::Up | Key::Control('p') => self.browse(true),
            Key::Down | Key::Control('n') => self.browse(false),
            Key::Backspace => self.remove(self.cursor.saturating_sub(1), self.cursor),
            Key::Delete | Key::Control('d') => self.remove(self.cursor, self.line.len().min(self.cursor + 1)),
            Key::Control('k') => self.cut(self.cursor, self.line.len()),
            Key::Control('u') => self.cut(0, self.cursor),
            Key::Control('w') => self.cut(self.word_start(), self.cursor),
            Key::Control(_) => return None,
        }
        self.redraw(out);
        None
    }

    fn insert(&mut self, text: &[char], out: &mut String) -> Option<Event> {
        if self.line.len() + text.len() > LONGEST {
            out.push(BELL);
            return None;
        }
        let offset = self.offset();
        let at_end = self.cursor == self.line.len();
        self.line.splice(self.cursor..self.cursor, text.iter().copied());
        self.cursor += text.len();
        if at_end && offset == self.offset() {
            // The common case, and the one that looks right on a terminal that understands nothing.
            out.extend(text);
        } else {
            self.redraw(out);
        }
        None
    }

    fn enter(&mut self, out: &mut String) -> Option<Event> {
        out.push_str("\r\n");
        let line = core::mem::take(&mut self.line);
        self.replace(Vec::new());
        self.browsing = None;
        let text: String = line.iter().collect();
        if !text.trim().is_empty() && self.history.back() != Some(&line) {
            if self.history.len() == REMEMBERED {
                self.history.pop_front();
            }
            self.history.push_back(line);
        }
        Some(Event::Line(text))
    }

    fn replace(&mut self, line: Vec<char>) {
        self.cursor = line.len();
        self.line = line;
    }

    fn remove(&mut self, from: usize, to: usize) {
        self.line.drain(from..to);
        self.cursor = from;
    }

    fn cut(&mut self, from: usize, to: usize) {
        self.cut = self.line[from..to].to_vec();
        self.remove(from, to);
    }

    fn word_start(&self) -> usize {
        let before = &self.line[..self.cursor];
        let word = before.iter().rposition(|c| *c != ' ').map_or(0, |last| last + 1);
        before[..word].iter().rposition(|c| *c == ' ').map_or(0, |space| space + 1)
    }

    fn word_end(&self) -> usize {
        let behind = &self.line[self.cursor..];
        let word = behind.iter().position(|c| *c != ' ').unwrap_or(behind.len());
        self.cursor + behind[word..].iter().position(|c| *c == ' ').map_or(behind.len(), |space| word + space)
    }

    fn browse(&mut self, older: bool) {
        let shown = self.browsing.as_ref().map_or(self.history.len(), |(at, _)| *at);
        let next = if older { shown.checked_sub(1) } else { Some(shown + 1) };
        let Some(next) = next.filter(|next| *next <= self.history.len()) else { return };
        match self.history.get(next) {
            Some(line) => {
                let line = line.clone();
                let before = core::mem::take(&mut self.line);
                self.browsing.get_or_insert((next, before)).0 = next;
                self.replace(line);
            }
            None => {
                let draft = self.browsing.take().map(|(_, draft)| draft);
                self.replace(draft.unwrap_or_default());
            }
        }
    }

    fn complete(&mut self, complete: impl Fn(&str) -> Completion, out: &mut String) {
        let before: String = self.line[..self.cursor].iter().collect();
        let Completion { typed, words } = complete(&before);
        let Some(common) = common_start(&words) else {
            out.push(BELL);
            return;
        };
        let mut missing: Vec<char> = common.chars().skip(typed).collect();
        missing.extend((words.len() == 1).then_some(' '));
        if missing.is_empty() {
            // Nothing to add: show what there is to choose from.
            out.push_str("\r\n");
            for row in words.chunks(4) {
                for word in row {
                    let _ = write!(out, "{word:<19}");
                }
                out.push_str("\r\n");
            }
        }
        self.insert(&missing, &mut String::new());
    }
}

/// The longest beginning that all words share; `None` if there are none.
fn common_start(words: &[String]) -> Option<&str> {
    let (first, rest) = words.split_first()?;
    let length = rest.iter().fold(first.len(), |length, word| {
        let same =
            first.chars().zip(word.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum();
        length.min(same)
    });
    Some(&first[..length])
}

#[cfg(test)]
mod tests;
