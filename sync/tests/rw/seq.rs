//! Sequence locks, latches and counts.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;

use hal::{Native, Platform, hosted};
use proptest::prelude::*;
use sync::seq::NoUninit;
use sync::{Cpu, Irq, IrqSeqLock, Latch, SeqCount, SeqLock, Task, preempt};

use super::support::{Event, Journaling, is_at_rest, journal};

/// Data whose parts show whether they belong together; 19 bytes, so that every size of piece is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, NoUninit)]
#[bytemuck(crate = "sync::seq::bytemuck")]
#[repr(C, packed)]
struct Checked {
    whole: [u64; 2],
    half: u16,
    byte: u8,
}

impl Checked {
    fn new(n: u64) -> Checked {
        Checked { whole: [n, !n], half: n as u16, byte: n as u8 }
    }

    fn number(self) -> u64 {
        let n = self.whole[0];
        assert_eq!(self, Checked::new(n), "a mixture");
        n
    }
}

/// Two writers count up while two readers look.
fn hammer(read: impl Fn() -> Checked + Sync, step: impl Fn() + Sync) {
    const WRITES: u64 = 20_000;
    let done = AtomicBool::new(false);
    let reads = AtomicU64::new(0);
    thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut last = 0;
                    while !done.load(Relaxed) || last < 2 * WRITES {
                        let now = read().number();
                        assert!(now >= last, "back in time");
                        last = now;
                        reads.fetch_add(1, Relaxed);
                    }
                })
            })
            .collect();
        let writers: Vec<_> = (0..2).map(|_| scope.spawn(|| (0..WRITES).for_each(|_| step()))).collect();
        for writer in writers {
            writer.join().unwrap();
        }
        done.store(true, Relaxed);
        for reader in readers {
            reader.join().unwrap();
        }
    });
    assert_eq!(read().number(), 2 * WRITES);
    assert!(reads.load(Relaxed) > 100, "the readers read");
}

#[test]
fn readers_of_a_lock_get_what_was_published() {
    let lock = SeqLock::<Checked, Task<Journaling>>::new(Checked::new(0));
    hammer(
        || lock.read(),
        || {
            let mut data = lock.write();
            *data = Checked::new(data.number() + 1);
        },
    );
}

#[test]
fn readers_that_give_up_and_lock_get_it_too() {
    let lock = SeqLock::<Checked, Irq<Journaling>>::new(Checked::new(0));
    hammer(
        || lock.read_or_lock(2),
        || {
            let mut data = lock.write();
            *data = Checked::new(data.number() + 1);
        },
    );
}

#[test]
fn readers_of_a_latch_get_what_was_published() {
    let latch = Latch::<Checked, Task<Journaling>>::new(Checked::new(0));
    hammer(
        || latch.read(),
        || {
            let mut data = latch.write();
            *data = Checked::new(data.number() + 1);
        },
    );
}

#[test]
fn readers_under_a_count_get_one_state() {
    let count = SeqCount::<Journaling>::new();
    let writers = std::sync::Mutex::new(());
    let parts = [AtomicU64::new(0), AtomicU64::new(0)];
    hammer(
        || {
            let [a, b] = count.read(|| parts.each_ref().map(|part| part.load(Relaxed)));
            assert_eq!(a, b, "a mixture");
            Checked::new(a)
        },
        || {
            let _one = writers.lock().unwrap();
            let pinned = Cpu::<Journaling>::disable_preemption();
            let _writing = count.write(&pinned);
            for part in &parts {
                part.fetch_add(1, Relaxed);
            }
        },
    );
}

/// NMIs and interrupts read in the middle of the writer's section, on the writer's CPU. A waiting reader would hang.
#[test]
fn interrupts_read_what_they_interrupt() {
    let _cpu = hosted::bind().unwrap();
    static LATCH: Latch<[u64; 2]> = Latch::new([0; 2]);
    static LOCK: SeqLock<[u64; 2]> = SeqLock::new([0; 2]);
    static SEEN: AtomicU64 = AtomicU64::new(0);
    let mut latch = LATCH.write();
    let mut lock = LOCK.write();
    (*latch, *lock) = ([1; 2], [1; 2]);
    hosted::send_interrupt(Native::cpu(), || {
        assert!(Native::context().in_hardirq());
        assert_eq!((LATCH.read(), LOCK.read(), LOCK.try_read()), ([0; 2], [0; 2], Some([0; 2])));
        SEEN.fetch_add(1, Relaxed);
    })
    .unwrap();
    Native::relax();
    assert_eq!(SEEN.load(Relaxed), 1);
    drop((latch, lock));
    assert_eq!((LATCH.read(), LOCK.read()), ([1; 2], [1; 2]));
}

#[test]
fn the_flavour_is_in_force_while_a_guard_lives() {
    let lock = SeqLock::<u64, Irq<Journaling>>::new(0);
    journal();
    let guard = lock.write();
    assert_eq!(journal(), [Event::IrqOff]);
    assert!(lock.try_write().is_none());
    journal();
    drop(guard);
    assert_eq!(journal(), [Event::IrqOn]);
    let quiet = Cpu::<Journaling>::disable_interrupts();
    journal();
    *lock.write_with(&quiet) = 5;
    assert_eq!(journal(), []);
    drop(quiet);
    lock.set(lock.read() + 1);
    assert_eq!(lock.into_inner(), 6);
    assert!(is_at_rest());
}

#[test]
fn a_guard_that_is_only_read_publishes_nothing() {
    let lock = IrqSeqLock::new(7_u32);
    let before = format!("{lock:?}");
    assert_eq!(*lock.write(), 7);
    let mut guard = lock.write();
    *guard = 8;
    guard.discard();
    assert_eq!(format!("{lock:?}"), before);
    assert!(!lock.is_locked());
    let mut lock = lock;
    *lock.get_mut() += 1;
    assert_eq!(lock.read(), 8);
}

fn report_of(f: impl FnOnce()) -> String {
    *catch_unwind(AssertUnwindSafe(f)).expect_err("reported").downcast::<String>().expect("formatted")
}

#[test]
fn a_reader_that_waits_for_its_own_cpus_writer_is_reported() {
    if !cfg!(debug_assertions) {
        return;
    }
    let count = SeqCount::<Journaling>::new();
    let pinned = Cpu::<Journaling>::disable_preemption();
    let first_line = line!() + 1;
    let writing = count.write(&pinned);
    let second_line = line!() + 1;
    let message = report_of(|| count.read(|| ()));
    let cpu = Journaling::cpu();
    let file = file!();
    let expected = format!(
        "BUG: seqcount: reader on CPU#{cpu} waits for the write section that this CPU began at {file}:{first_line}:"
    );
    assert!(message.starts_with(&expected), "{message}");
    assert!(message.contains(&format!("at {file}:{second_line}:")), "{message}");
    drop(writing);
    count.read(|| ());
}

#[test]
fn a_writer_inside_of_another_is_reported() {
    if !cfg!(debug_assertions) {
        return;
    }
    let count = SeqCount::<Journaling>::new();
    let pinned = Cpu::<Journaling>::disable_preemption();
    let writing = count.write(&pinned);
    let message = report_of(|| drop(count.write(&pinned)));
    let expected = format!(
        "BUG: seqcount: write section inside of the one that CPU#{} began at {}:",
        Journaling::cpu(),
        file!()
    );
    assert!(message.starts_with(&expected), "{message}");
    drop(writing);
}

#[test]
fn a_count_tells_readers_that_came_before_a_write_from_those_after() {
    let count: SeqCount = SeqCount::new();
    let begun = count.begin();
    let pinned = preempt::disable();
    let writing = count.write(&pinned);
    assert!(!count.is_current(begun));
    assert_eq!(count.try_begin(), None);
    drop(writing);
    assert!(!count.is_current(begun));
    assert!(count.is_current(count.begin()));
}

#[test]
fn sizes() {
    let debug = if cfg!(debug_assertions) { 16 } else { 0 };
    assert_eq!(size_of::<SeqCount>(), 8 + debug);
    let spin = size_of::<sync::SpinLock<()>>();
    assert!(size_of::<SeqLock<[u64; 3]>>() <= 24 + 8 + debug + spin.next_multiple_of(8));
    assert!(size_of::<Latch<[u64; 3]>>() <= 48 + 8 + spin.next_multiple_of(8));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(test_support::cases(256)))]

    /// Writes that publish, discard or only look, against a plain variable.
    #[test]
    fn a_lock_and_a_latch_are_a_variable(steps in prop::collection::vec((0..5_u8, any::<[u32; 3]>()), 0..40)) {
        let lock = SeqLock::<[u32; 3], Task<Journaling>>::new([0; 3]);
        let latch = Latch::<[u32; 3], Task<Journaling>>::new([0; 3]);
        let mut plain = [0; 3];
        for (kind, value) in steps {
            let (mut a, mut b) = (lock.write(), latch.write());
            match kind {
                0 => (*a, *b, plain) = (value, value, value),
                1 => {
                    (a[1], b[1], plain[1]) = (value[1], value[1], value[1]);
                }
                2 => {
                    (*a, *b) = (value, value);
                    a.discard();
                    b.discard();
                    prop_assert_eq!((lock.read(), latch.read()), (plain, plain));
                    continue;
                }
                3 => {
                    drop((a, b));
                    lock.set(value);
                    latch.set(value);
                    plain = value;
                    prop_assert_eq!((lock.read(), latch.read()), (plain, plain));
                    continue;
                }
                _ => prop_assert_eq!((*a, *b), (plain, plain)),
            }
            drop((a, b));
            prop_assert_eq!((lock.read(), latch.read()), (plain, plain));
            prop_assert_eq!(lock.try_read(), Some(plain));
        }
    }
}
