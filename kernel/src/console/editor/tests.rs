//! The editor against a terminal that shows what it is sent, and against a cursor in a string.

use std::string::{String, ToString};
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;

/// A row of a terminal, as far as the editor uses one.
#[derive(Default)]
struct Screen {
    row: Vec<char>,
    column: usize,
    above: Vec<String>,
}

impl Screen {
    fn show(&mut self, text: &str) {
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            rest = &rest[c.len_utf8()..];
            match c {
                '\r' => self.column = 0,
                '\n' => {
                    self.above.push(core::mem::take(&mut self.row).into_iter().collect());
                }
                BELL => {}
                '\x1b' => {
                    let end = rest.find(|c: char| c.is_ascii_alphabetic()).expect("a whole sequence");
                    let number: usize = rest[1..end].parse().unwrap_or(1);
                    match &rest[end..=end] {
                        "K" => self.row.truncate(self.column),
                        "D" => self.column = self.column.checked_sub(number).expect("left of the screen"),
                        "J" => self.above.clear(),
                        "H" => (self.row, self.column) = (Vec::new(), 0),
                        other => panic!("unknown sequence {other}"),
                    }
                    rest = &rest[end + 1..];
                }
                printable => {
                    assert!(self.column < 80, "the row wraps");
                    self.row.resize(self.row.len().max(self.column + 1), ' ');
                    self.row[self.column] = printable;
                    self.column += 1;
                }
            }
        }
    }
}

/// What somebody sees who has typed `input`.
fn typed(input: &[u8]) -> (Editor, Screen, Vec<Event>) {
    let mut editor = Editor::new("> ");
    let (mut screen, mut events) = (Screen::default(), Vec::new());
    screen.show(&editor.image());
    for byte in input {
        let mut out = String::new();
        let event = editor.feed(*byte, completions, &mut out);
        screen.show(&out);
        if let Some(event) = event {
            events.push(event);
            screen.show(&editor.image());
        }
    }
    (editor, screen, events)
}

fn completions(before: &str) -> Completion {
    let typed = before.rsplit(' ').next().unwrap();
    let words = ["cpus", "crash", "clock", "größe", "größer"];
    let words = words.into_iter().filter(|word| word.starts_with(typed)).map(String::from).collect();
    Completion { typed: typed.chars().count(), words }
}

fn line(input: &str) -> (String, usize) {
    let (editor, ..) = typed(input.as_bytes());
    (editor.line(), editor.cursor())
}

#[test]
fn keys_do_what_they_say() {
    for (input, expected, cursor) in [
        ("abc", "abc", 3),
        ("abc\x1b[D\x1b[DX", "aXbc", 2),
        ("abc\x01X\x05Y", "XabcY", 5),
        ("abc\x7f\x7fd", "ad", 2),
        ("abc\x1b[H\x1b[3~", "bc", 0),
        ("abc def\x17", "abc ", 4),
        ("abc def  \x17", "abc ", 4),
        ("abc def\x02\x02\x0b", "abc d", 5),
        ("abc def\x02\x02\x15", "ef", 0),
        ("abc def\x17\x19\x19", "abc defdef", 10),
        ("ab cd\x1bb\x1bbX\x1bfY", "XabY cd", 4),
        ("größe\x7f\x7fx", "gröx", 4),
        ("one\rtwo\r\x1b[A", "two", 3),
        ("one\rtwo\r\x1b[A\x1b[A\x1b[A", "one", 3),
        ("one\rtwo\rdraft\x1b[A\x1b[A\x1b[B\x1b[B", "draft", 5),
        ("one\rtwo\r\x1b[A\x1b[B\x1b[B", "", 0),
        ("one\r\rone\r\x10\x10", "one", 3),
        ("x\x04", "x", 1),
        ("x\x1b[D\x04", "", 0),
    ] {
        assert_eq!(line(input), (String::from(expected), cursor), "{input:?}");
    }
}

#[test]
fn lines_and_control_keys_are_reported() {
    let (_, screen, events) = typed(b"cpus\rmem\x03\x04 \r");
    let lines = ["cpus", " "].map(|line| Event::Line(line.to_string()));
    assert_eq!(events, [lines[0].clone(), Event::Interrupted, Event::End, lines[1].clone()]);
    assert_eq!(screen.above, ["> cpus", "> mem^C", "> ", ">  "]);
}

#[test]
fn tab_completes_as_far_as_it_is_clear_and_then_shows() {
    assert_eq!(line("cp\t"), (String::from("cpus "), 5));
    assert_eq!(line("help cr\t"), (String::from("help crash "), 11));
    assert_eq!(line("gr\t"), (String::from("größe"), 5));
    assert_eq!(line("zzz\t").0, "zzz");
    let (_, screen, _) = typed(b"c\t");
    assert_eq!(screen.above.len(), 2);
    assert_eq!(screen.above[1].split_whitespace().collect::<Vec<_>>(), vec!["cpus", "crash", "clock"]);
    assert_eq!(screen.row.iter().collect::<String>(), "> c");
}

#[test]
fn a_long_line_scrolls_and_keeps_its_row() {
    let input = "0123456789".repeat(12);
    let (editor, screen, _) = typed(input.as_bytes());
    assert_eq!(editor.line(), input);
    assert!(screen.above.is_empty());
    let row: String = screen.row.iter().collect();
    assert!(row.starts_with("> <") && row.ends_with('9'), "{row}");
    let (_, screen, _) = typed(&[input.as_bytes(), b"\x01"].concat());
    let row: String = screen.row.iter().collect();
    assert!(row.starts_with("> 0123") && row.ends_with('>'), "{row}");
    assert_eq!(screen.column, 2);
    let (editor, ..) = typed("x".repeat(3 * LONGEST).as_bytes());
    assert_eq!(editor.line().len(), LONGEST);
}

#[test]
fn history_is_bounded_and_forgets_the_oldest() {
    let mut input: String = (0..REMEMBERED + 5).map(|n| std::format!("line{n}\r")).collect();
    input.push_str(&"\x1b[A".repeat(REMEMBERED + 20));
    assert_eq!(line(&input).0, "line5");
}

/// Input that does things more often than random bytes do.
fn some_input() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => "[a-c ]{1,12}".prop_map(String::into_bytes),
        1 => "\\PC{1,3}".prop_map(String::into_bytes),
        2 => any::<[u8; 2]>().prop_map(Vec::from),
        1 => (1u8..0x20).prop_map(|control| vec![control]),
        3 => prop::sample::select(vec!["\x1b[A", "\x1b[B", "\x1b[C", "\x1b[D", "\x1b[H", "\x1b[F", "\x1b[3~", "\x7f", "\r"])
            .prop_map(|key| key.as_bytes().to_vec()),
        1 => "[a-z]{60,90}".prop_map(String::into_bytes),
    ];
    proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(test_support::cases(256)))]

    /// Whatever is typed, the screen shows the editor's line and cursor, in one row.
    #[test]
    fn the_screen_shows_the_line(input in some_input()) {
        let (editor, screen, _) = typed(&input);
        let mut expected = Screen::default();
        expected.show(&editor.image());
        let trimmed = |row: &[char]| row.iter().collect::<String>().trim_end().to_string();
        prop_assert_eq!(trimmed(&screen.row), trimmed(&expected.row));
        prop_assert_eq!(screen.column, expected.column);
        if editor.line.len() < 70 {
            prop_assert_eq!(screen.column, 2 + editor.cursor());
            let whole = format!("> {}", editor.line());
            prop_assert_eq!(trimmed(&screen.row), whole.trim_end());
        }
    }

    /// Inserting, moving and deleting equal the same done to a plain string.
    #[test]
    fn equals_a_cursor_in_a_string(operations in proptest::collection::vec((0u8..8, any::<char>()), 0..80)) {
        let (mut model, mut cursor) = (Vec::<char>::new(), 0usize);
        let mut input = Vec::new();
        for (operation, c) in operations {
            match operation {
                0..3 => {
                    if c.is_control() {
                        continue;
                    }
                    model.insert(cursor, c);
                    cursor += 1;
                    input.extend_from_slice(c.to_string().as_bytes());
                }
                3 => {
                    cursor = cursor.saturating_sub(1);
                    input.extend_from_slice(b"\x1b[D");
                }
                4 => {
                    cursor = model.len().min(cursor + 1);
                    input.extend_from_slice(b"\x1b[C");
                }
                5 => {
                    if cursor > 0 {
                        cursor -= 1;
                        model.remove(cursor);
                    }
                    input.push(0x7f);
                }
                6 => {
                    cursor = 0;
                    input.push(1);
                }
                _ => {
                    model.truncate(cursor);
                    input.push(0x0b);
                }
            }
        }
        let (editor, ..) = typed(&input);
        prop_assert_eq!(editor.line(), model.into_iter().collect::<String>());
        prop_assert_eq!(editor.cursor(), cursor);
    }
}
