//! Objects on a line of ten places: readers must not see any beyond the first.
//!
//! 1. A pointer leads to the present object. Writers replace it; from then on the former one moves one place along the
//!    line with each grace period, whichever way that was waited for. At the end of the line it is used again.
//! 2. A reader remembers what it found, and looks at its place when its section ends. While the section lasts the object
//!    can have been replaced, and the period that runs may have ended, which had begun before: place 1. Beyond that a
//!    grace period has ended too early. If many have, the object may be in use again, and in place 0: so a reader remembers
//!    how often it has been used, too.
//! 3. Readers protect themselves in every way there is, with up to four ways that overlap, are preempted and moved, and
//!    read from interrupts, ticks and NMIs; CPUs go and come meanwhile.

mod readers;

use core::ptr::NonNull;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use ::rcu::{Callback, Domain, Head};
use alloc::boxed::Box;
use alloc::vec::Vec;
use hal::chaos::mix;
use hal::{Native, Platform};
use spin::Once;
use sync::{IrqSpinLock, TaskCx};

use super::control::{Random, Tally, bump, error, goes_on, spin};
use super::{MS, Plan, Scenario};
use crate::calls;
use crate::cpus;
use crate::rcu::Kernel;
use crate::task::{Builder, JoinHandle};

pub(super) use self::readers::{ON_TICK, read_in_nmi};
use self::readers::{TOO_OLD_IN_NMI, readers};

const NAME: &str = "rcu";

pub(super) static SCENARIO: Scenario = Scenario {
    name: NAME,
    what: "readers in every kind of section, writers that wait in every way, polls and barriers",
    twins: &[
        ("rcu-early", "two in three grace periods are over before they have begun"),
        ("rcu-cookie", "who polls asks about the grace period before"),
        ("rcu-hasty", "who waits for a polled grace period does not"),
        ("rcu-barrier", "who needs a barrier waits for a grace period"),
    ],
    start,
    settle,
    counts,
};

/// Where an object is used again.
const END: u32 = 10;
const OBJECTS: usize = 256;

/// An object on the line.
struct Object {
    /// 0 while it is the present one; then, how many grace periods have passed, and one.
    place: AtomicU32,
    /// How often it has become the present one.
    uses: AtomicU32,
    head: Head,
}

// SAFETY: the head is used by who moves the object along, which is one writer or callback at a time.
unsafe impl Sync for Object {}

static PRESENT: AtomicPtr<Object> = AtomicPtr::new(core::ptr::null_mut());
static FREE: IrqSpinLock<Vec<&'static Object>> = IrqSpinLock::new(Vec::new());

static READERS: AtomicU64 = AtomicU64::new(0);
static PERIODS: AtomicU64 = AtomicU64::new(0);
static CALLBACKS: AtomicU64 = AtomicU64::new(0);
static NESTED: AtomicU64 = AtomicU64::new(0);
static PREEMPTED: AtomicU64 = AtomicU64::new(0);
static IN_INTERRUPTS: AtomicU64 = AtomicU64::new(0);
static IN_TICKS: AtomicU64 = AtomicU64::new(0);
static IN_NMIS: AtomicU64 = AtomicU64::new(0);
static LAZY: AtomicU64 = AtomicU64::new(0);
static CONDITIONAL: AtomicU64 = AtomicU64::new(0);
static POLLS: AtomicU64 = AtomicU64::new(0);
static BARRIERS: AtomicU64 = AtomicU64::new(0);
/// How many grace periods had ended when the load began.
static ENDED: AtomicU64 = AtomicU64::new(0);

fn counts(tallies: &mut Vec<Tally>) {
    let ended = crate::rcu::figures().ended - ENDED.load(Ordering::Relaxed);
    tallies.push(Tally { what: "grace_periods", count: ended, least: 20 });
    tallies.extend([
        Tally::of("readers", &READERS, 600),
        Tally::of("readers_preempted", &PREEMPTED, 20),
        Tally::of("readers_nested_8", &NESTED, 5),
        Tally::of("readers_in_interrupts", &IN_INTERRUPTS, 20),
        Tally::of("readers_in_ticks", &IN_TICKS, 0),
        Tally::of("readers_in_nmis", &IN_NMIS, 0),
        Tally::of("moves", &PERIODS, 300),
        Tally::of("callbacks", &CALLBACKS, 66),
        Tally::of("callbacks_queued_lazily", &LAZY, 20),
        Tally::of("conditional_waits", &CONDITIONAL, 20),
        Tally::of("polls", &POLLS, 10),
        Tally::of("barriers", &BARRIERS, 6),
    ]);
}

/// The ways of waiting for a grace period that are tried.
trait Waiting: 'static {
    fn synchronize(cx: &mut TaskCx, expedited: bool);
    fn start_poll() -> <Kernel as Domain>::State;
    fn poll(state: <Kernel as Domain>::State) -> bool;
    /// # Safety
    /// As for [`Domain::call`].
    unsafe fn call(head: NonNull<Head>, function: Callback);
}

/// As it should be.
enum Sound {}

impl Waiting for Sound {
    fn synchronize(cx: &mut TaskCx, expedited: bool) {
        if expedited { Kernel::synchronize_expedited(cx) } else { Kernel::synchronize(cx) }
    }

    fn start_poll() -> <Kernel as Domain>::State {
        Kernel::start_poll()
    }

    fn poll(state: <Kernel as Domain>::State) -> bool {
        Kernel::poll(state)
    }

    unsafe fn call(head: NonNull<Head>, function: Callback) {
        // SAFETY: the same contract.
        unsafe { Kernel::call(head, function) }
    }
}

/// Two in three grace periods that are waited for are over before they have begun, and all that are polled for.
enum Early {}

impl Waiting for Early {
    fn synchronize(cx: &mut TaskCx, _: bool) {
        static TURN: AtomicU32 = AtomicU32::new(0);
        if TURN.fetch_add(1, Ordering::Relaxed).is_multiple_of(3) {
            Kernel::synchronize(cx);
        }
    }

    fn start_poll() -> <Kernel as Domain>::State {
        Kernel::start_poll()
    }

    fn poll(_: <Kernel as Domain>::State) -> bool {
        true
    }

    unsafe fn call(head: NonNull<Head>, function: Callback) {
        // SAFETY: the same contract.
        unsafe { Kernel::call(head, function) }
    }
}

/// Puts another object in the place of the present one, which is returned.
fn replace() -> Option<&'static Object> {
    let next = FREE.lock().pop()?;
    next.uses.fetch_add(1, Ordering::Relaxed);
    // Release: pairs with the Acquire in `Found::place`.
    next.place.store(0, Ordering::Release);
    // Release: pairs with the Acquire in `find`.
    let former = PRESENT.swap(core::ptr::from_ref(next).cast_mut(), Ordering::AcqRel);
    // SAFETY: objects live for ever, and the first one was put there before writers began.
    let former = unsafe { &*former };
    former.place.store(1, Ordering::Release);
    Some(former)
}

/// A grace period has passed for `object`. Says whether it is to stay on the line.
fn advance(object: &'static Object) -> bool {
    bump(&PERIODS);
    let place = object.place.fetch_add(1, Ordering::AcqRel) + 1;
    if place >= END {
        FREE.lock().push(object);
    }
    place < END
}

/// A grace period has passed for the object of this head.
///
/// # Safety
/// The head is that of an [`Object`].
unsafe fn passed<W: Waiting>(head: NonNull<Head>) {
    bump(&CALLBACKS);
    // SAFETY: by the contract; objects live for ever.
    let object = unsafe { sync::container_of!(head, Object, head).as_ref() };
    if advance(object) {
        // SAFETY: the head is in no queue while its function is called, and the object lives for ever.
        unsafe { W::call(head, passed::<W>) };
    }
}

fn writer<W: Waiting>(mut random: Random) -> Option<JoinHandle<()>> {
    let write = move |cx: &mut TaskCx| {
        while goes_on(cx) {
            let Some(object) = replace() else {
                cx.block(Some(Native::now_ns() + MS));
                continue;
            };
            match random.next() % 7 {
                0 | 1 => {
                    // SAFETY: the object is this writer's, and lives for ever.
                    unsafe { W::call(NonNull::from(&object.head), passed::<W>) };
                }
                2 => {
                    while {
                        W::synchronize(cx, false);
                        advance(object)
                    } {}
                }
                3 => {
                    while {
                        W::synchronize(cx, true);
                        advance(object)
                    } {}
                }
                4 => {
                    bump(&LAZY);
                    // SAFETY: as above.
                    unsafe { Kernel::call_lazy(NonNull::from(&object.head), passed::<W>) };
                }
                5 => {
                    while {
                        let state = Kernel::get_state();
                        // Others may have had one pass meanwhile.
                        spin(random.next() % 100_000);
                        Kernel::cond_synchronize(state, cx);
                        bump(&CONDITIONAL);
                        advance(object)
                    } {}
                }
                _ => {
                    while {
                        let state = W::start_poll();
                        while !W::poll(state) {
                            cx.block(Some(Native::now_ns() + MS));
                        }
                        advance(object)
                    } {}
                }
            }
        }
    };
    Builder::new("rcu writer").spawn(write).ok()
}

/// Polled grace periods: not over within a section that had begun before, over after one was waited for.
fn poller(plan: &Plan) -> Option<JoinHandle<()>> {
    let (seed, asks_before, hasty) = (plan.seed, plan.is("rcu-cookie"), plan.is("rcu-hasty"));
    let poll = move |cx: &mut TaskCx| {
        let mut random = Random(seed);
        let mut before = Kernel::get_state();
        while goes_on(cx) {
            let section = crate::rcu::read_in(cx);
            let state = if random.one_in(2) { Kernel::get_state() } else { Kernel::start_poll() };
            let state = if asks_before { core::mem::replace(&mut before, state) } else { state };
            spin(random.next() % 300_000);
            if Kernel::poll(state) {
                error(NAME, format_args!("a polled grace period was over in a section that began before it"));
            }
            drop(section);
            if asks_before {
                // Over by the time that it is asked about.
                Kernel::cond_synchronize(before, cx);
            } else if !hasty {
                Kernel::cond_synchronize(state, cx);
            }
            if !Kernel::poll(state) {
                error(NAME, format_args!("a polled grace period was not over after it had been waited for"));
            }
            bump(&POLLS);
            cx.block(Some(Native::now_ns() + MS));
        }
    };
    Builder::new("rcu poller").spawn(poll).ok()
}

/// Barriers: all callbacks that were queued before have been called.
fn barriers(waits_only: bool) -> Option<JoinHandle<()>> {
    static CALLED: AtomicU32 = AtomicU32::new(0);
    unsafe fn called(head: NonNull<Head>) {
        CALLED.fetch_add(1, Ordering::Relaxed);
        // SAFETY: every head that is queued with this function was a leaked box.
        drop(unsafe { Box::from_raw(head.as_ptr()) });
    }
    let test = move |cx: &mut TaskCx| {
        while goes_on(cx) {
            CALLED.store(0, Ordering::Relaxed);
            let mut queued = 0;
            for cpu in cpus::online() {
                let is_lazy = queued % 2 == 1;
                // CPUs may go meanwhile; then it is queued here.
                let head = NonNull::from(Box::leak(Box::new(Head::new())));
                let address = head.as_ptr() as usize;
                let queue = move || {
                    let head = NonNull::new(address as *mut Head);
                    let Some(head) = head else { return };
                    // SAFETY: fresh, in place until it is called, and queued once.
                    unsafe {
                        if is_lazy { Kernel::call_lazy(head, called) } else { Kernel::call(head, called) }
                    }
                };
                if calls::single(cpu, queue).is_err() {
                    queue();
                }
                queued += 1;
            }
            if waits_only {
                Kernel::synchronize(cx)
            } else {
                Kernel::barrier(cx)
            }
            let called = CALLED.load(Ordering::Relaxed);
            if called != queued {
                error(NAME, format_args!("a barrier ended after {called} of {queued} callbacks"));
            }
            bump(&BARRIERS);
            cx.block(Some(Native::now_ns() + MS));
        }
    };
    Builder::new("rcu barrier").spawn(test).ok()
}

fn objects() -> &'static [&'static Object] {
    static ALL: Once<Vec<&'static Object>> = Once::new();
    let make = |_| {
        &*Box::leak(Box::new(Object { place: AtomicU32::new(0), uses: AtomicU32::new(0), head: Head::new() }))
    };
    ALL.call_once(|| (0..OBJECTS).map(make).collect())
}

fn start(plan: &Plan, _: &mut TaskCx) -> Vec<JoinHandle<()>> {
    for counter in [
        &READERS,
        &PERIODS,
        &CALLBACKS,
        &NESTED,
        &PREEMPTED,
        &IN_INTERRUPTS,
        &IN_TICKS,
        &IN_NMIS,
        &LAZY,
        &CONDITIONAL,
        &POLLS,
        &BARRIERS,
        &TOO_OLD_IN_NMI,
    ] {
        counter.store(0, Ordering::Relaxed);
    }
    ENDED.store(crate::rcu::figures().ended, Ordering::Relaxed);
    if let Some((first, rest)) = objects().split_first() {
        first.place.store(0, Ordering::Relaxed);
        PRESENT.store(core::ptr::from_ref::<Object>(first).cast_mut(), Ordering::Release);
        *FREE.lock() = rest.to_vec();
    }
    let seed = plan.seed;
    let mut tasks = readers(seed);
    let writer = |number| {
        let random = Random(mix(seed ^ 0x77 ^ number));
        if plan.is("rcu-early") { writer::<Early>(random) } else { writer::<Sound>(random) }
    };
    tasks.extend((0..4).filter_map(writer));
    tasks.extend(poller(plan).into_iter().chain(barriers(plan.is("rcu-barrier"))));
    tasks
}

/// Each callback moves its object one place, and queues itself again.
fn settle(cx: &mut TaskCx) {
    for _ in 0..=END {
        Kernel::barrier(cx);
    }
    for _ in 0..TOO_OLD_IN_NMI.load(Ordering::Relaxed) {
        error(NAME, format_args!("a reader in an NMI saw an object too far behind the present one"));
    }
}
