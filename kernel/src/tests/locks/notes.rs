//! The list that needs no lock, pushed to from everywhere.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use hal::{CpuId, Native, Platform, percpu};
use sync::llist::{self, LList};

use super::contest::{Contest, Party, Visit, hold};
use super::visits::is_writers_turn;
use crate::kernel_test;

/// What is pushed in the test of the list without a lock.
struct Note {
    /// From being chosen until it has been read.
    in_use: AtomicBool,
    /// CPU and party.
    from: AtomicU32,
    number: AtomicU64,
    link: llist::Link,
}

sync::link_field! { struct InBox = Note => link: llist::Link; }

const NOTES: usize = 64;
static NOTE: [Note; NOTES] = [const {
    Note {
        in_use: AtomicBool::new(false),
        from: AtomicU32::new(0),
        number: AtomicU64::new(0),
        link: llist::Link::new(),
    }
}; NOTES];
static BOX: LList<&'static Note, InBox> = LList::new();
/// Taken out of the box.
static TAKEN: AtomicU64 = AtomicU64::new(0);

percpu! {
    /// What each party on this CPU has pushed, and what of it was taken.
    static PUSHED: [AtomicU64; 5] = [const { AtomicU64::new(0) }; 5];
    static EXPECTED: [AtomicU64; 5] = [const { AtomicU64::new(0) }; 5];
}

/// Pushes a note, if one is free.
fn push_note(party: Party) -> Visit {
    let cpu = Native::cpu();
    let free = |note: &&Note| {
        // Acquire: pairs with the Release in `take_notes`, whose reader is done with it.
        note.in_use.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
    };
    let Some(note) = NOTE.iter().cycle().skip(cpu.index() * 7).take(NOTES).find(free) else {
        return Visit::Refused;
    };
    note.from.store(cpu.as_u32() * 5 + party as u32, Ordering::Relaxed);
    // No other execution counts this party's on this CPU: it is interrupted by other parties only.
    note.number.store(PUSHED.on(cpu)[party as usize].fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
    BOX.push(note);
    Visit::Changed
}

/// Takes all notes. Each party's come in the order in which it pushed them. For one CPU's task.
fn take_notes() -> Visit {
    let mut right = true;
    for note in BOX.take_fifo() {
        let from = note.from.load(Ordering::Relaxed);
        let cpu = CpuId::new(from / 5).unwrap_or(CpuId::BOOT);
        let expected = EXPECTED.on(cpu)[from as usize % 5].fetch_add(1, Ordering::Relaxed);
        right &= note.number.load(Ordering::Relaxed) == expected;
        // Release: pairs with the Acquire in `push_note`.
        note.in_use.store(false, Ordering::Release);
        TAKEN.fetch_add(1, Ordering::Relaxed);
    }
    if right { Visit::Looked } else { Visit::Disturbed }
}

kernel_test! {
    limit_ms = 60_000,
    fn a_list_without_a_lock() {
        static IT: Contest = Contest {
            joined_by: &[Party::Softirq, Party::Timer, Party::Call, Party::Nmi],
            visit: |party| match party {
                Party::Task if Native::cpu() == CpuId::BOOT && is_writers_turn() => take_notes(),
                _ => push_note(party),
            },
            changes: || {
                take_notes();
                TAKEN.load(Ordering::Relaxed)
            },
            is_waited_for: false,
            most_cpus: usize::MAX,
        };
        hold(&IT)
    }
}
