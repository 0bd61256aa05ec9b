//! Names for the addresses that the guest prints.
//!
//! The guest writes code addresses as `[<ffffffff80201234>]`, already adjusted so that a look-up of exactly that address
//! gives the right line. Here each becomes `0xffffffff80201234 function (file:line)`, and every function that it was
//! inlined into follows on a line of its own, the outermost last.
//!
//! Where one place is meant, and the guest knows only how it got there, it writes the lower halves of all steps in a row,
//! the innermost first: `[?80201234?][?80205678?]`. That becomes `file:line` of the innermost that is in this checkout, and
//! not in a library's code.
//!
//! Everything else passes through unchanged and at once: a byte is held back only while it may belong to an address.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use addr2line::Loader;

use crate::workspace;

/// How an address begins, its digits, and how it ends.
struct Form {
    open: [u8; 2],
    digits: usize,
    close: [u8; 2],
}

const NAMED: Form = Form { open: *b"[<", digits: 16, close: *b">]" };
const STEP: Form = Form { open: *b"[?", digits: 8, close: *b"?]" };

/// What is in front of the lower half of a code address: the kernel is in the top 2 GiB.
const UPPER_HALF: u64 = 0xffff_ffff_0000_0000;

/// Function names longer than this are shortened.
const LONGEST_NAME: usize = 80;

/// One function of a chain of inlined ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) function: String,
    /// `file:line`.
    pub(crate) place: Option<String>,
    /// The file is in this checkout.
    pub(crate) is_ours: bool,
}

impl Frame {
    fn text(&self) -> String {
        match &self.place {
            Some(place) => format!("{} ({place})", self.function),
            None => self.function.clone(),
        }
    }
}

/// Turns addresses into frames, the innermost first; empty when the address is unknown.
pub(crate) trait Resolve {
    fn resolve(&mut self, address: u64) -> Vec<Frame>;
}

/// A row of steps of which one is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Row {
    /// None is, of those that came; this was the first.
    Searching(u64),
    /// It was shown.
    Shown,
}

/// A stream editor for the guest's output.
pub(crate) struct Symboliser<R> {
    resolver: R,
    /// The beginning of what may become an address.
    held: Vec<u8>,
    /// Lines that come after the end of the current one.
    after: Vec<u8>,
    /// The last thing that came was a step.
    row: Option<Row>,
}

impl<R: Resolve> Symboliser<R> {
    pub(crate) fn new(resolver: R) -> Self {
        Self { resolver, held: Vec::new(), after: Vec::new(), row: None }
    }

    /// Takes `input` and appends what can be shown to `out`.
    pub(crate) fn push(&mut self, input: &[u8], out: &mut Vec<u8>) {
        for &byte in input {
            self.byte(byte, out);
        }
    }

    /// Whether something is held back.
    pub(crate) fn holds(&self) -> bool {
        !self.held.is_empty() || matches!(self.row, Some(Row::Searching(_)))
    }

    /// Shows what is held back, because nothing follows soon or at all.
    pub(crate) fn flush(&mut self, out: &mut Vec<u8>) {
        self.end_row(out);
        out.append(&mut self.held);
    }

    fn byte(&mut self, byte: u8, out: &mut Vec<u8>) {
        while !self.held.is_empty() && form_of(&self.held, byte).is_none() {
            // No address after all. The held bytes hold at most one more beginning: the `[` of `[[<...`, which is the
            // byte at hand. So all of them can go.
            self.flush(out);
        }
        if self.held.is_empty() && byte != b'[' {
            self.end_row(out);
            out.push(byte);
            if byte == b'\n' {
                out.append(&mut self.after);
            }
            return;
        }
        let form = form_of(&self.held, byte);
        self.held.push(byte);
        if let Some(form) = form.filter(|form| self.held.len() == form.length()) {
            let digits = std::str::from_utf8(&self.held[2..2 + form.digits]);
            let address = digits.ok().and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or(0);
            self.held.clear();
            if form.open == STEP.open {
                self.step(UPPER_HALF | address, out);
            } else {
                self.end_row(out);
                self.named(address, out);
            }
        }
    }

    fn named(&mut self, address: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("{address:#018x}").as_bytes());
        let mut frames = self.resolver.resolve(address).into_iter();
        if let Some(first) = frames.next() {
            out.push(b' ');
            out.extend_from_slice(first.text().as_bytes());
        }
        for outer in frames {
            self.after.extend_from_slice(format!("      inlined by {}\r\n", outer.text()).as_bytes());
        }
    }

    fn step(&mut self, address: u64, out: &mut Vec<u8>) {
        if self.row == Some(Row::Shown) {
            return;
        }
        let frames = self.resolver.resolve(address);
        // The entries to the heap that the compiler makes carry the line of a static.
        let ours = frames.into_iter().find(|frame| frame.is_ours && !frame.function.contains("__rust_"));
        match ours.and_then(|frame| frame.place) {
            Some(place) => {
                out.extend_from_slice(place.as_bytes());
                self.row = Some(Row::Shown);
            }
            None => self.row = self.row.or(Some(Row::Searching(address))),
        }
    }

    /// Of a row without a place the innermost step is shown as it is.
    fn end_row(&mut self, out: &mut Vec<u8>) {
        if let Some(Row::Searching(first)) = self.row.take() {
            out.extend_from_slice(format!("{first:#018x}").as_bytes());
        }
    }
}

impl Form {
    const fn length(&self) -> usize {
        self.open.len() + self.digits + self.close.len()
    }

    /// Whether `byte` can follow `held`.
    fn fits(&self, held: &[u8], byte: u8) -> bool {
        let is_begun = held.iter().zip(&self.open).all(|(held, open)| held == open);
        is_begun
            && match held.len() {
                n if n < self.open.len() => byte == self.open[n],
                n if n < self.open.len() + self.digits => {
                    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
                }
                n => byte == self.close[n - self.open.len() - self.digits],
            }
    }
}

/// What `held` and `byte` may become an address of.
fn form_of(held: &[u8], byte: u8) -> Option<&'static Form> {
    [&NAMED, &STEP].into_iter().find(|form| form.fits(held, byte))
}

/// Looks addresses up in an ELF file with line tables, which is read at the first address.
pub(crate) struct ElfResolver {
    /// Kept open, so that a rebuild meanwhile does not change what this guest's addresses mean.
    file: Option<File>,
    loader: Option<Loader>,
    root: PathBuf,
}

impl ElfResolver {
    pub(crate) fn new(elf: &Path) -> Self {
        Self { file: File::open(elf).ok(), loader: None, root: workspace::root() }
    }

    fn loader(&mut self) -> Option<&Loader> {
        if self.loader.is_none() {
            let file = self.file.take()?;
            self.loader = Loader::new(format!("/proc/self/fd/{}", file.as_raw_fd())).ok();
        }
        self.loader.as_ref()
    }
}

impl Resolve for ElfResolver {
    fn resolve(&mut self, address: u64) -> Vec<Frame> {
        let root = self.root.clone();
        let Some(loader) = self.loader() else { return Vec::new() };
        let symbol = || loader.find_symbol(address).map(demangled);
        let mut found = Vec::new();
        if let Ok(mut frames) = loader.find_frames(address) {
            while let Ok(Some(frame)) = frames.next() {
                let file = frame.location.as_ref().and_then(|location| location.file);
                let line = frame.location.as_ref().and_then(|location| location.line);
                let line = line.map_or(String::new(), |line| format!(":{line}"));
                let place = file.map(|file| format!("{}{line}", short_path(file, &root)));
                let is_ours = file.is_some_and(|file| Path::new(file).starts_with(&root));
                let function =
                    frame.function.and_then(|name| name.raw_name().ok().map(|name| demangled(&name)));
                found.push((function, place, is_ours));
            }
        }
        if found.is_empty() {
            return symbol()
                .map(|function| Frame { function, place: None, is_ours: false })
                .into_iter()
                .collect();
        }
        // Line tables name functions without their path. The outermost one has a symbol, which says it whole.
        if let (Some((function, ..)), Some(symbol)) = (found.last_mut(), symbol()) {
            let same = function.as_deref().is_none_or(|name| symbol.ends_with(&format!("::{name}")));
            if same {
                *function = Some(symbol);
            }
        }
        let named = |function: Option<String>| function.unwrap_or_else(|| "?".to_owned());
        let frame = |(function, place, is_ours)| Frame { function: named(function), place, is_ours };
        found.into_iter().map(frame).collect()
    }
}

/// A function's path without the hash that makes it unique, and short enough to read.
fn demangled(name: &str) -> String {
    let full = format!("{:#}", rustc_demangle::demangle(name));
    if full.len() > LONGEST_NAME { without_generics(&full) } else { full }
}

/// `name` with what is inside of `<..>` left out: an iterator chain inlined into a loop fills screens otherwise. In
/// `<Type as Trait>::function` it is what is inside of Type's that goes.
fn without_generics(name: &str) -> String {
    let kept_depth = usize::from(name.starts_with('<'));
    let (mut short, mut depth, mut previous) = (String::new(), 0_usize, ' ');
    for c in name.chars() {
        // The arrow of a function type closes nothing.
        let closes = c == '>' && previous != '-';
        previous = c;
        if closes {
            depth = depth.saturating_sub(1);
        }
        if depth <= kept_depth {
            short.push(c);
            if c == '<' && depth == kept_depth {
                short.push_str("..");
            }
        }
        depth += usize::from(c == '<');
    }
    short
}

/// `path` relative to the checkout, or from the name of the library crate on.
fn short_path(path: &str, root: &Path) -> String {
    if let Ok(inside) = Path::new(path).strip_prefix(root) {
        return inside.display().to_string();
    }
    for (marker, keep) in [("/library/", 1), ("/registry/src/", 0)] {
        if let Some(at) = path.find(marker) {
            let rest = &path[at + marker.len()..];
            // Behind `registry/src/` comes the registry's own folder.
            return if keep == 1 { rest } else { rest.split_once('/').map_or(rest, |(_, rest)| rest) }
                .to_owned();
        }
    }
    path.to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    struct Table(BTreeMap<u64, Vec<Frame>>);

    impl Resolve for Table {
        fn resolve(&mut self, address: u64) -> Vec<Frame> {
            self.0.get(&address).cloned().unwrap_or_default()
        }
    }

    fn frame(function: &str, place: &str) -> Frame {
        let is_ours = place.starts_with("kernel/");
        Frame { function: function.to_owned(), place: Some(place.to_owned()), is_ours }
    }

    fn table() -> Table {
        let inlined = vec![frame("inner", "a.rs:1"), frame("middle", "b.rs:2"), frame("outer", "c.rs:3")];
        Table(BTreeMap::from([
            (0xffff_ffff_8020_1234, vec![frame("f", "kernel/src/f.rs:7")]),
            (0x10, inlined),
            (0xffff_ffff_0000_0010, vec![frame("read", "core/ptr.rs:1")]),
            (0xffff_ffff_0000_0020, vec![frame("read", "core/ptr.rs:1"), frame("user", "kernel/src/u.rs:2")]),
            (0xffff_ffff_0000_0030, vec![frame("__rust_alloc", "kernel/src/memory.rs:3")]),
        ]))
    }

    fn all(input: &[u8]) -> String {
        let mut out = Vec::new();
        let mut symboliser = Symboliser::new(table());
        symboliser.push(input, &mut out);
        symboliser.flush(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_address_gets_its_name() {
        assert_eq!(all(b"at [<ffffffff80201234>]!\r\n"), "at 0xffffffff80201234 f (kernel/src/f.rs:7)!\r\n");
    }

    #[test]
    fn inlined_functions_follow_the_line() {
        assert_eq!(
            all(b"0: [<0000000000000010>] x\r\nnext"),
            "0: 0x0000000000000010 inner (a.rs:1) x\r\n      inlined by middle (b.rs:2)\r\n      \
             inlined by outer (c.rs:3)\r\nnext"
        );
    }

    #[test]
    fn of_a_row_of_steps_the_first_place_in_the_checkout_is_shown() {
        let user = "in kernel/src/u.rs:2, and";
        assert_eq!(all(b"in [?00000010?][?00000030?][?00000020?][?80201234?], and"), user);
        assert_eq!(all(b"[?80201234?] [?00000020?][?80201234?]"), "kernel/src/f.rs:7 kernel/src/u.rs:2");
        assert_eq!(all(b"[?00000010?][?00000030?]!"), "0xffffffff00000010!");
        assert_eq!(all(b"[?00000010?]"), "0xffffffff00000010");
    }

    #[test]
    fn what_is_no_address_stays() {
        for text in [
            "[[<x>]",
            "[<12>]",
            "[?12?]",
            "[?1234567>]",
            "[?<12?]",
            "[<ffffffff8020123",
            "[<FFFFFFFF80201234>]",
            "a[b<c",
            "[<[<",
            "[ 0.1] [<",
        ] {
            assert_eq!(all(text.as_bytes()), text);
        }
        assert_eq!(all(b"[<00000000000000ff>]"), "0x00000000000000ff");
        assert_eq!(all(b"[[<00000000000000ff>]"), "[0x00000000000000ff");
    }

    #[test]
    fn a_prompt_is_not_held_back() {
        let mut out = Vec::new();
        let mut symboliser = Symboliser::new(table());
        symboliser.push(b"quiesce> ", &mut out);
        assert_eq!(out, b"quiesce> ");
        assert!(!symboliser.holds());
    }

    proptest! {
        /// However the stream is cut into pieces, the result is that of the whole.
        #[test]
        fn pieces_do_not_matter(
            words in prop::collection::vec(prop_oneof![
                Just("[<ffffffff80201234>]".to_owned()), Just("[<0000000000000010>]".to_owned()),
                Just("[?00000010?]".to_owned()), Just("[?00000020?]".to_owned()),
                "[\\[<>?\\]0-9a-f\\n ]{0,8}",
            ], 0..8),
            cuts in prop::collection::vec(1usize..7, 0..60),
        ) {
            let input = words.concat().into_bytes();
            let mut out = Vec::new();
            let mut symboliser = Symboliser::new(table());
            let mut rest = &input[..];
            let mut cuts = cuts.into_iter();
            while !rest.is_empty() {
                let (piece, tail) = rest.split_at(cuts.next().unwrap_or(rest.len()).min(rest.len()));
                symboliser.push(piece, &mut out);
                rest = tail;
            }
            symboliser.flush(&mut out);
            prop_assert_eq!(String::from_utf8(out).unwrap(), all(&input));
        }
    }

    #[test]
    fn paths_are_short() {
        let root = Path::new("/home/me/quiesce");
        assert_eq!(short_path("/home/me/quiesce/kernel/src/main.rs", root), "kernel/src/main.rs");
        assert_eq!(short_path("/rustc/abc/library/core/src/fmt/mod.rs", root), "core/src/fmt/mod.rs");
        assert_eq!(
            short_path("/h/.cargo/registry/src/index-1/acpi-6.1.1/src/lib.rs", root),
            "acpi-6.1.1/src/lib.rs"
        );
        assert_eq!(short_path("/elsewhere/x.rs", root), "/elsewhere/x.rs");
    }

    #[test]
    fn generics_are_left_out_of_long_names() {
        assert_eq!(
            without_generics("fold<u32, fn(u32) -> Option<CpuId>, {closure_env#0}<A<B>>>"),
            "fold<..>"
        );
        assert_eq!(
            without_generics("<Map<I, F> as Iterator>::fold::<usize, G<H>>"),
            "<Map<..> as Iterator>::fold::<usize, G<..>>"
        );
        assert_eq!(without_generics("a::b"), "a::b");
        let long = format!("sum<{}>", "x, ".repeat(50));
        assert_eq!(demangled(&long), "sum<..>");
        assert_eq!(demangled("call_once<u32>"), "call_once<u32>");
    }

    #[inline(never)]
    fn a_function_to_look_up() -> usize {
        std::hint::black_box(3)
    }

    /// xtask's own test binary is as good an ELF as any: its symbols are looked up by their unrelocated addresses.
    #[test]
    fn a_real_elf_resolves() {
        use object::{Object, ObjectSymbol};
        std::hint::black_box(a_function_to_look_up());
        let path = std::env::current_exe().unwrap();
        let data = std::fs::read(&path).unwrap();
        let object = object::File::parse(&*data).unwrap();
        let symbol =
            object.symbols().find(|symbol| symbol.name().is_ok_and(|n| n.contains("a_function_to_look_up")));
        let address = symbol.expect("the symbol is in the table").address();
        let frames = ElfResolver::new(&path).resolve(address);
        let last = frames.last().expect("the address is known");
        assert!(last.function.contains("a_function_to_look_up"), "{frames:?}");
        assert!(last.place.as_deref().is_some_and(|place| place.contains("symbolise.rs:")), "{frames:?}");
        assert!(ElfResolver::new(&path).resolve(0xdead_beef_dead_beef).is_empty());
    }
}
