//! The readers: in every way there is to be one, in tasks, interrupts, ticks and NMIs.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ::rcu::{Domain, Head, ReadGuard};
use alloc::vec::Vec;
use hal::chaos::mix;
use hal::{Native, Platform, percpu};
use sync::{BhGuard, IrqGuard, PreemptGuard, TaskCx};

use super::super::control::{Random, bump, error, goes_on, goes_on_here, spin};
use super::{
    CALLBACKS, END, IN_INTERRUPTS, IN_NMIS, IN_TICKS, MS, NAME, NESTED, Object, PREEMPTED, PRESENT, READERS,
};
use crate::calls::{self, CallData};
use crate::cpus;
use crate::rcu::Kernel;
use crate::task::{Builder, JoinHandle};

/// What a reader has found.
#[derive(Clone, Copy)]
struct Found {
    object: &'static Object,
    /// Its `uses` then.
    uses: u32,
}

/// The object that a reader finds. There is one once a load has begun.
fn find() -> Found {
    // SAFETY: objects live for ever; whether this one may be looked at is what is tested. Acquire: pairs with the Release
    // in `replace`.
    let object = unsafe { &*PRESENT.load(Ordering::Acquire) };
    Found { object, uses: object.uses.load(Ordering::Relaxed) }
}

impl Found {
    /// How far behind the present one the object is: at the end of the line, if it has been used again.
    fn place(self) -> u32 {
        // Acquire: pairs with the Release in `replace`; who sees the place of a later use sees the count of it.
        let place = self.object.place.load(Ordering::Acquire).min(END);
        if self.object.uses.load(Ordering::Relaxed) == self.uses { place } else { END }
    }
}

/// The end of a reader.
fn note(found: Found) {
    let place = found.place();
    bump(&READERS);
    if place > 1 {
        error(NAME, format_args!("a reader saw an object {place} places behind the present one"));
    }
}

/// A way to be in a section, which ends when the value is dropped.
///
/// The guards are there to be dropped.
struct Way {
    _reader: Option<ReadGuard<'static, Kernel>>,
    _preemption: Option<PreemptGuard>,
    _bottom_halves: Option<BhGuard>,
    _interrupts: Option<IrqGuard>,
}

/// How many there are; readers nest, so that there are two of them.
const WAYS: usize = 5;
const BOTTOM_HALVES: usize = 3;
const INTERRUPTS: usize = 4;

/// How many sections a reader can be in at a time, with those of the ways.
const DEEPEST: usize = 8;

fn begin(way: usize) -> Way {
    Way {
        _reader: (way < 2).then(crate::rcu::read),
        _preemption: (way == 2).then(sync::preempt::disable),
        _bottom_halves: (way == BOTTOM_HALVES).then(sync::bh::disable),
        _interrupts: (way == INTERRUPTS).then(sync::irq::disable),
    }
}

/// One reader: begins in one way, goes on in others that overlap, and looks when the last of them ends.
fn read_once(random: &mut Random) {
    let mut held: [Option<Way>; WAYS] = [const { None }; WAYS];
    let first = (random.next() % WAYS as u64) as usize;
    held[first] = Some(begin(first));
    let found = find();
    let mut deeper: [Option<ReadGuard<'static, Kernel>>; DEEPEST - 2] = [const { None }; DEEPEST - 2];
    if random.one_in(16) {
        held[0].get_or_insert_with(|| begin(0));
        held[1].get_or_insert_with(|| begin(1));
        deeper.iter_mut().for_each(|section| *section = Some(crate::rcu::read()));
        bump(&NESTED);
    }
    for _ in 0..random.next() % 4 {
        let next = (random.next() % WAYS as u64) as usize;
        // Bottom halves cannot be enabled while interrupts are off.
        if held[next].is_none() && !(next == BOTTOM_HALVES && held[INTERRUPTS].is_some()) {
            held[next] = Some(begin(next));
        }
        let only_reader = held[2..].iter().all(Option::is_none);
        if random.one_in(50) {
            spin(random.next() % 200_000);
        }
        if only_reader && random.one_in(8) {
            // Preempted here and now, and perhaps moved.
            Native::set_need_resched(Native::cpu());
            Native::check_resched();
            bump(&PREEMPTED);
        }
        if only_reader && random.one_in(2_000) {
            spin(20 * MS);
        }
        if only_reader && random.one_in(20_000) {
            spin(300 * MS);
        }
        // One of those that are held may go, as long as another one stays.
        let last = (random.next() % WAYS as u64) as usize;
        let possible = last != BOTTOM_HALVES || held[INTERRUPTS].is_none();
        if possible && held.iter().flatten().count() > 1 {
            held[last] = None;
        }
        // They end in an order of their own.
        deeper[(random.next() % deeper.len() as u64) as usize] = None;
    }
    drop(deeper);
    note(found);
    // In one of two orders, so that an outermost section ends in every kind of region.
    let order = if random.one_in(2) {
        [2, INTERRUPTS, BOTTOM_HALVES, 1, 0]
    } else {
        [0, 1, INTERRUPTS, BOTTOM_HALVES, 2]
    };
    order.into_iter().for_each(|way| held[way] = None);
}

hal::percpu! {
    /// A reader in an interrupt, which may have hit one of this CPU's tasks in its section.
    static INTERRUPT: CallData = CallData::new(|| {
        let section = crate::rcu::read();
        note(find());
        bump(&IN_INTERRUPTS);
        drop(section);
    });
}

/// What a CPU retires in its ticks.
struct TickCall {
    queued: AtomicBool,
    head: Head,
}

// SAFETY: the head is used by who set the flag, until its callback has cleared it.
unsafe impl Sync for TickCall {}

percpu! {
    static TICK_CALL: TickCall = TickCall { queued: AtomicBool::new(false), head: Head::new() };
}

/// # Safety
/// The head is that of a [`TickCall`].
unsafe fn tick_call_over(head: NonNull<Head>) {
    // SAFETY: by the contract; per-CPU data live for ever.
    let call = unsafe { sync::container_of!(head, TickCall, head).as_ref() };
    bump(&CALLBACKS);
    // Release: pairs with the Acquire in `on_tick`.
    call.queued.store(false, Ordering::Release);
}

/// What is done in each tick of a CPU: reads, and has something called.
pub(in crate::torture) static ON_TICK: fn() = on_tick;

fn on_tick() {
    if !goes_on_here() {
        return;
    }
    let section = crate::rcu::read();
    note(find());
    bump(&IN_TICKS);
    drop(section);
    let call = TICK_CALL.on(Native::cpu());
    // Acquire: pairs with the Release in `tick_call_over`.
    if !call.queued.swap(true, Ordering::Acquire) {
        // SAFETY: in no queue, as the flag said; it lives for ever.
        unsafe { Kernel::call(NonNull::from(&call.head), tick_call_over) };
    }
}

/// A reader in an NMI, which may have hit anything.
pub(in crate::torture) fn read_in_nmi() {
    if PRESENT.load(Ordering::Relaxed).is_null() {
        return;
    }
    let section = crate::rcu::read();
    let place = find().place();
    bump(&IN_NMIS);
    drop(section);
    if place > 1 {
        TOO_OLD_IN_NMI.fetch_add(1, Ordering::Relaxed);
    }
}

/// What NMIs found wrong. They do not print.
pub(super) static TOO_OLD_IN_NMI: AtomicU64 = AtomicU64::new(0);

pub(super) fn readers(seed: u64) -> Vec<JoinHandle<()>> {
    let reader = |number: u64| {
        let read = move |cx: &mut TaskCx| {
            let mut random = Random(mix(seed ^ number));
            while goes_on(cx) {
                read_once(&mut random);
                if random.one_in(16) {
                    calls::irq_work(INTERRUPT.on(Native::cpu()));
                }
                if random.one_in(64) {
                    // The CPU idles, perhaps.
                    cx.block(Some(Native::now_ns() + random.next() % (3 * MS)));
                }
                cx.cond_resched();
            }
        };
        Builder::new("rcu reader").spawn(read).ok()
    };
    (0..2 * cpus::online_count().min(8) as u64).filter_map(reader).collect()
}
