//! Data races made on purpose, each of which a build that watches for them reports, and their twins, which are none.

use core::cell::UnsafeCell;
use core::hint::black_box;
use core::sync::atomic::{AtomicU64, Ordering};

use hal::{Native, Platform};
use sync::{SpinLock, TaskCx};

use crate::testing::irq::{Source, set_hook};
use crate::testing::{PATIENCE_NS, expect_report};
use crate::{check, cpus, kernel_test, sanitize, skip, task};

/// A word that anybody may get at.
struct Word(UnsafeCell<u64>);
// SAFETY: none in the language's terms, which is the point; a word is loaded and stored in one piece.
unsafe impl Sync for Word {}

impl Word {
    const fn new() -> Word {
        Word(UnsafeCell::new(0))
    }

    const fn at(&self) -> *mut u64 {
        self.0.get()
    }

    fn as_atomic(&self) -> &AtomicU64 {
        // SAFETY: a word with the layout of one, alive as long as `self`.
        unsafe { AtomicU64::from_ptr(self.at()) }
    }
}

/// Expects a report that names these lines of this file, in this order, and begins with what the first did.
fn expect(first: u32, second: u32, kind: &str) {
    expect_report(&alloc::format!("BUG: data race in {0}:{first} / {0}:{second}: {kind}", file!()));
}

/// How often each side of a twin does what would be a race if it were plain.
const ROUNDS: u64 = 40_000;

/// Runs `mine` here and `theirs` in another task until there is a report, or both had their `rounds`. Returns how many
/// reports there were.
fn together(cx: &mut TaskCx, rounds: u64, mine: fn(), theirs: fn()) -> Option<u32> {
    let before = sanitize::races_found();
    let begun = Native::now_ns();
    let go_on = move |round: u64| {
        round < rounds && sanitize::races_found() == before && Native::now_ns() - begun < PATIENCE_NS
    };
    let side = move |work: fn()| {
        let mut round = 0;
        while go_on(round) {
            (0..100).for_each(|_| work());
            round += 100;
        }
    };
    let other = task::spawn("racer", move |_| side(theirs)).ok()?;
    side(mine);
    other.join(cx);
    Some(sanitize::races_found() - before)
}

/// The plain counter's only access, which is a write: where two meet, both are on this line.
const PLAIN_WRITE: u32 = line!() + 5;

#[inline(never)]
fn write(word: &Word) {
    // SAFETY: the word is alive.
    unsafe { word.at().write(1) };
}

kernel_test! {
    task,
    fn smoke_plain_writes_on_two_cpus_are_a_race(cx) {
        static WORD: Word = Word::new();
        if cpus::online_count() < 2 {
            skip!("needs 2 CPUs");
        }
        expect(PLAIN_WRITE, PLAIN_WRITE, "write of 8 bytes, write of 8 bytes");
        check!(together(cx, u64::MAX, || write(&WORD), || write(&WORD)) == Some(1));
        Ok(())
    }
}

kernel_test! {
    task,
    fn smoke_a_plain_read_against_an_atomic_write_is_a_race(cx) {
        static WORD: Word = Word::new();
        const READ: u32 = line!() + 4;
        #[inline(never)]
        fn read() {
            // SAFETY: the word is a static.
            black_box(unsafe { WORD.at().read() });
        }
        const ADD: u32 = line!() + 4;
        #[inline(never)]
        fn add() {
            // Not the last step: a call there would leave this function's frame before the access.
            black_box(WORD.as_atomic().fetch_add(1, Ordering::AcqRel));
        }
        if cpus::online_count() < 2 {
            skip!("needs 2 CPUs");
        }
        expect(READ, ADD, "read of 8 bytes, atomic write of 8 bytes");
        check!(together(cx, u64::MAX, read, add) == Some(1));
        Ok(())
    }
}

kernel_test! {
    fn smoke_an_interrupt_against_its_task_is_a_race() {
        static WORD: Word = Word::new();
        const IN_INTERRUPT: u32 = line!() + 4;
        #[inline(never)]
        fn interrupt() {
            // SAFETY: the word is a static.
            unsafe { black_box(&WORD).at().write(2) };
        }
        const IN_TASK: u32 = line!() + 4;
        #[inline(never)]
        fn in_task() {
            // SAFETY: the word is a static.
            black_box(unsafe { WORD.at().read() });
        }
        expect(IN_INTERRUPT, IN_TASK, "write of 8 bytes, read of 8 bytes");
        let before = sanitize::races_found();
        let begun = Native::now_ns();
        set_hook(Source::Timer, Some(&(interrupt as fn())));
        // Pinned here, so that it is this CPU's interrupts that meet it, on machines with one.
        while sanitize::races_found() == before && Native::now_ns() - begun < PATIENCE_NS {
            (0..1000).for_each(|_| in_task());
        }
        set_hook(Source::Timer, None);
        check!(sanitize::races_found() == before + 1);
        Ok(())
    }
}

kernel_test! {
    task,
    fn smoke_what_is_all_atomic_is_no_race(cx) {
        static WORD: Word = Word::new();
        fn add() {
            WORD.as_atomic().fetch_add(1, Ordering::Relaxed);
            black_box(WORD.as_atomic().load(Ordering::Relaxed));
        }
        WORD.as_atomic().store(0, Ordering::Relaxed);
        let samples = sanitize::samples();
        check!(together(cx, ROUNDS, add, add) == Some(0));
        check!(WORD.as_atomic().load(Ordering::Relaxed) <= 2 * ROUNDS);
        check!(sanitize::samples() > samples, "nothing was sampled");
        Ok(())
    }
}

kernel_test! {
    task,
    fn smoke_what_a_lock_protects_is_no_race(cx) {
        static LOCKED: SpinLock<u64> = SpinLock::new(0);
        fn add() {
            *LOCKED.lock() += 1;
        }
        check!(together(cx, ROUNDS, add, add) == Some(0));
        Ok(())
    }
}

kernel_test! {
    task,
    fn smoke_what_is_each_ones_own_is_no_race(cx) {
        static MINE: Word = Word::new();
        static THEIRS: Word = Word::new();
        check!(together(cx, ROUNDS, || write(&MINE), || write(&THEIRS)) == Some(0));
        Ok(())
    }
}

kernel_test! {
    task,
    fn smoke_plain_reads_are_no_race(cx) {
        static WORD: Word = Word::new();
        fn read() {
            // SAFETY: the word is a static.
            black_box(unsafe { WORD.at().read() });
        }
        check!(together(cx, ROUNDS, read, read) == Some(0));
        Ok(())
    }
}
