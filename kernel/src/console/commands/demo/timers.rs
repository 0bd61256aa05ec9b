//! Timers that free themselves: where the lock must not be, and where it is.
//!
//! One CPU calls timers, each of which frees itself in its function; all others delete them, as fast as they can. What is
//! "freed" here is an object that is marked, and whose memory stays until the end: so whoever touches it afterwards is
//! counted, and nothing is damaged.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use hal::{Native, Platform};
use sync::SpinLock;

use crate::console::registry::{CommandResult, Context, Failure};

/// How many timers are called, in each way.
const TIMERS: usize = 10_000;
/// How often somebody pauses where the race is.
const PAUSES: usize = 10;

/// A timer is armed for a while; an interrupt comes between reading an address and using it.
fn linger() {
    (0..PAUSES).for_each(|_| Native::relax());
}

/// A timer's memory: the lock that is in it, until it is freed.
struct Memory(AtomicU32);

const FREE: u32 = 0;
const LOCKED: u32 = 1;
/// The memory was given back.
const POISON: u32 = 0x6b6b_6b6b;

impl Memory {
    /// Takes the lock in it. Returns whether there was one.
    fn lock(&self) -> bool {
        loop {
            // Acquire: pairs with the Release in `unlock`.
            match self.0.compare_exchange(FREE, LOCKED, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(POISON) => return false,
                Err(_) => Native::relax(),
            }
        }
    }

    /// Releases the lock in it. Returns whether there was one.
    fn unlock(&self) -> bool {
        self.0.compare_exchange(LOCKED, FREE, Ordering::Release, Ordering::Relaxed).is_ok()
    }

    /// Frees it. Returns whether it was not before.
    fn free(&self) -> bool {
        self.0.swap(POISON, Ordering::AcqRel) != POISON
    }

    fn is_freed(&self) -> bool {
        self.0.load(Ordering::Acquire) == POISON
    }
}

/// What everybody sees: the timers, and which one is armed.
struct World {
    timers: Vec<Memory>,
    /// The timer that a pointer points to: `TIMERS` if to none.
    pointer: AtomicUsize,
    /// The same, under a lock that is in no timer.
    base: SpinLock<Option<usize>>,
    /// The caller has gone through all.
    over: AtomicBool,
    called: AtomicU64,
    deleted: AtomicU64,
    freed: AtomicU64,
    /// How often freed memory was touched by who called the function, and by who deleted.
    touched_by_caller: AtomicU64,
    touched_by_deleter: AtomicU64,
}

impl World {
    fn new() -> World {
        World {
            timers: (0..TIMERS).map(|_| Memory(AtomicU32::new(FREE))).collect(),
            pointer: AtomicUsize::new(TIMERS),
            base: SpinLock::new(None),
            over: AtomicBool::new(false),
            called: AtomicU64::new(0),
            deleted: AtomicU64::new(0),
            freed: AtomicU64::new(0),
            touched_by_caller: AtomicU64::new(0),
            touched_by_deleter: AtomicU64::new(0),
        }
    }

    /// Lets a timer be armed for a while.
    fn arm(&self, timer: usize) -> &Memory {
        // Release: pairs with the Acquire of who deletes.
        self.pointer.store(timer, Ordering::Release);
        linger();
        &self.timers[timer]
    }

    /// From here on nobody finds it. Who has found it has its address.
    fn detach(&self) {
        self.pointer.store(TIMERS, Ordering::Release);
    }

    /// The timer's function: frees the timer.
    fn call(&self, timer: usize) {
        count(&self.called, true);
        count(&self.freed, self.timers[timer].free());
    }
}

fn count(counter: &AtomicU64, happened: bool) {
    if happened {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// One place for the lock.
struct Way {
    title: &'static str,
    explanation: &'static str,
    /// Calls the timer of that number, which is due.
    call: fn(&World, usize),
    /// Deletes whichever timer it finds armed.
    delete: fn(&World),
    /// Whether freed memory may be touched.
    may_touch: bool,
}

const WAYS: [Way; 3] = [
    Way {
        title: "a lock in the timer, held over the call",
        explanation: "The function has freed the timer, lock and all; releasing it writes to memory\n\
                      that is somebody else's by now. (And a delete in it would wait for itself.)",
        call: |world, timer| {
            let memory = world.arm(timer);
            count(&world.touched_by_caller, !memory.lock());
            world.detach();
            world.call(timer);
            count(&world.touched_by_caller, !memory.unlock());
        },
        delete: delete_through_pointer,
        may_touch: true,
    },
    Way {
        title: "a lock in the timer, released before the call",
        explanation: "Who deletes has the timer's address, and is about to take the lock in it. Then\n\
                      the function frees the timer.",
        call: |world, timer| {
            let memory = world.arm(timer);
            count(&world.touched_by_caller, !memory.lock());
            world.detach();
            count(&world.touched_by_caller, !memory.unlock());
            world.call(timer);
        },
        delete: delete_through_pointer,
        may_touch: true,
    },
    Way {
        title: "a lock in the base, which is never freed",
        explanation: "Under it a timer is taken out before it is called, and nothing of it is read\n\
                      afterwards. Who deletes finds it armed under the same lock, or not at all.",
        call: |world, timer| {
            *world.base.lock() = Some(timer);
            linger();
            let due = world.base.lock().take();
            if let Some(timer) = due {
                count(&world.touched_by_caller, world.timers[timer].is_freed());
                world.call(timer);
            }
        },
        delete: |world| {
            let mut armed = world.base.lock();
            if let Some(timer) = *armed {
                linger();
                count(&world.touched_by_deleter, world.timers[timer].is_freed());
                *armed = None;
                drop(armed);
                count(&world.deleted, true);
                count(&world.freed, world.timers[timer].free());
            }
        },
        may_touch: false,
    },
];

/// What a delete does whose lock is in the timer.
fn delete_through_pointer(world: &World) {
    let Some(memory) = world.timers.get(world.pointer.load(Ordering::Acquire)) else { return };
    linger();
    match memory.lock() {
        true => count(&world.touched_by_deleter, !memory.unlock()),
        false => count(&world.touched_by_deleter, true),
    }
}

pub(super) fn run(cx: &mut Context<'_>) -> CommandResult {
    let mut wrong = 0;
    for way in &WAYS {
        let world = race(cx, way);
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (caller, deleter) = (read(&world.touched_by_caller), read(&world.touched_by_deleter));
        let (called, deleted, freed) = (read(&world.called), read(&world.deleted), read(&world.freed));
        writeln!(
            cx.out,
            "{}, {TIMERS} timers:\n    touched after being freed: {caller} times by the caller, {deleter} by deleters",
            way.title
        )?;
        way.explanation.lines().try_for_each(|line| writeln!(cx.out, "    {line}"))?;
        if !way.may_touch {
            let lost = (called + deleted).abs_diff(TIMERS as u64) + freed.abs_diff(TIMERS as u64);
            writeln!(cx.out, "    {called} were called, {deleted} deleted, {freed} freed")?;
            wrong += caller + deleter + lost;
        }
    }
    wrong += real(cx)?;
    match wrong {
        0 => Ok(()),
        _ => Err(Failure::Failed(alloc::format!("{wrong} things went wrong where nothing may"))),
    }
}

/// The first CPU that comes calls all timers; the others delete until it is done.
fn race(cx: &Context<'_>, way: &Way) -> World {
    let cpus = cx.machine.cpus().iter().filter(|cpu| cpu.state == "online").count() as u32;
    let (world, arrived) = (World::new(), AtomicU32::new(0));
    cx.machine.on_all_cpus(&|_| {
        let place = arrived.fetch_add(1, Ordering::Relaxed);
        // Start together: a race against CPUs that have not come yet is none.
        while arrived.load(Ordering::Relaxed) < cpus {
            Native::relax();
        }
        if place == 0 {
            (0..TIMERS).for_each(|timer| (way.call)(&world, timer));
            world.over.store(true, Ordering::Relaxed);
        } else {
            while !world.over.load(Ordering::Relaxed) {
                (way.delete)(&world);
                Native::relax();
            }
        }
    });
    world
}

/// How many of the kernel's own timers are armed, and for how long at most.
const REAL: u64 = 100;
const LONGEST_NS: u64 = 50_000_000;
/// How long the demonstration waits for them.
const PATIENCE_NS: u64 = 10_000_000_000;

/// What a timer's function owns. Whoever drops it last has freed it.
struct State {
    memory: Memory,
    tally: Arc<Tally>,
}

#[derive(Default)]
struct Tally {
    called: AtomicU64,
    freed: AtomicU64,
    touched: AtomicU64,
    latest_ns: AtomicU64,
}

impl Drop for State {
    fn drop(&mut self) {
        count(&self.tally.touched, !self.memory.free());
        count(&self.tally.freed, true);
    }
}

/// The kernel's timers: one that frees itself is a closure. Returns how much went wrong.
fn real(cx: &mut Context<'_>) -> Result<u64, Failure> {
    let tally = Arc::new(Tally::default());
    for timer in 1..=REAL {
        let state = State { memory: Memory(AtomicU32::new(FREE)), tally: tally.clone() };
        let function = move |late_ns| {
            count(&state.tally.touched, state.memory.is_freed());
            count(&state.tally.called, true);
            state.tally.latest_ns.fetch_max(late_ns, Ordering::Relaxed);
        };
        cx.machine.call_after(LONGEST_NS / REAL * timer, Box::new(function));
    }
    let deadline = cx.machine.now_ns() + PATIENCE_NS;
    while tally.freed.load(Ordering::Acquire) < REAL && cx.machine.now_ns() < deadline {
        cx.machine.pause(LONGEST_NS / 5, false, cx.task);
    }
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (called, freed, touched) = (read(&tally.called), read(&tally.freed), read(&tally.touched));
    writeln!(
        cx.out,
        "`timer::after`: {called} of {REAL} called, {freed} freed, {touched} touched after that\n    late by {} at most",
        super::super::spans::Span(read(&tally.latest_ns))
    )?;
    writeln!(
        cx.out,
        "    The function is a closure. The machine moves it out of the timer, frees the\n\
         \x20   timer, and calls it: nothing is left that could be touched, nor a pointer to it."
    )?;
    Ok(called.abs_diff(REAL) + freed.abs_diff(REAL) + touched)
}
