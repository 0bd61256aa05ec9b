//! When to free what somebody may be reading: three ways to be too early, and two that are not.
//!
//! A reader finds an object and holds on to it for a while; a writer takes the object out of its place and frees it. What
//! is "freed" here is an object that is marked, and whose memory stays until the end: so a reader that finds the mark is
//! counted, and nothing is damaged.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use ::rcu::{Domain, RcuBox, Retired};
use hal::{Native, Platform};
use sync::TaskCx;

use super::super::spans::Span;
use crate::console::rcu::Readers;
use crate::console::registry::{CommandResult, Context, Failure};

/// How many objects are read and freed, in each way.
const ROUNDS: usize = 8;
/// How long a reader holds on to an object that nobody frees.
const HOLD_NS: u64 = 20_000_000;
/// How long one waits who guesses.
const GUESS_NS: u64 = 1_000_000;
/// How long the demonstration waits for its reader to be given a CPU.
const PATIENCE_NS: u64 = 10_000_000_000;
/// Between two looks of the writer.
const LOOK_NS: u64 = 500_000;

/// No object.
const NOTHING: usize = usize::MAX;

/// What reader and writer share.
struct World {
    /// Which objects have been freed.
    freed: Vec<AtomicBool>,
    /// The object that readers find.
    place: AtomicUsize,
    /// How many objects the reader has found, and how many it has left.
    found: AtomicUsize,
    left: AtomicUsize,
    /// How many of them were freed under it.
    touched: AtomicU64,
    over: AtomicBool,
    ended: AtomicBool,
}

impl World {
    fn new() -> World {
        World {
            freed: (0..ROUNDS).map(|_| AtomicBool::new(false)).collect(),
            place: AtomicUsize::new(NOTHING),
            found: AtomicUsize::new(0),
            left: AtomicUsize::new(0),
            touched: AtomicU64::new(0),
            over: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        }
    }

    fn free(&self, object: usize) {
        self.freed[object].store(true, Ordering::Release);
    }

    fn freed(&self) -> usize {
        self.freed.iter().filter(|freed| freed.load(Ordering::Acquire)).count()
    }

    /// The reader: holds on to each object that it finds, in a section, until it has been freed or for a time.
    fn read(&self, cx: &mut TaskCx) {
        while !self.over.load(Ordering::Relaxed) {
            let section = ::rcu::read::<Readers>();
            // Acquire: pairs with the Release in `round`.
            let object = self.place.load(Ordering::Acquire);
            if object != NOTHING {
                let begun = Native::now_ns();
                self.found.store(object + 1, Ordering::Release);
                let is_freed = || self.freed[object].load(Ordering::Acquire);
                while !is_freed() && Native::now_ns() - begun < HOLD_NS {
                    Native::relax();
                }
                self.touched.fetch_add(u64::from(is_freed()), Ordering::Relaxed);
            }
            drop(section);
            if object != NOTHING {
                self.left.store(object + 1, Ordering::Release);
                // Each object once.
                while self.place.load(Ordering::Relaxed) == object && !self.over.load(Ordering::Relaxed) {
                    cx.cond_resched();
                    Native::relax();
                }
            }
            cx.cond_resched();
            Native::relax();
        }
        self.ended.store(true, Ordering::Release);
    }
}

/// A time to free an object that has been taken out.
struct Way {
    title: &'static str,
    explanation: &'static str,
    free: fn(&Arc<World>, usize, &mut Context<'_>),
    /// Whether the reader may find it freed.
    may_touch: bool,
}

/// Marks its object as freed when it is dropped.
struct Owner(Arc<World>, usize);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.free(self.1);
    }
}

const WAYS: [Way; 4] = [
    Way {
        title: "freed at once",
        explanation: "The writer takes the object out of its place, in one store: nobody finds it any\n\
                      more. Who found it a moment before still reads it.",
        free: |world, object, _| world.free(object),
        may_touch: true,
    },
    Way {
        title: "freed after a while",
        explanation: "No while is long enough: a reader may be preempted, and a host may stop its CPU.",
        free: |world, object, cx| {
            cx.machine.pause(GUESS_NS, false, cx.task);
            world.free(object);
        },
        may_touch: true,
    },
    Way {
        title: "freed after a grace period",
        explanation: "`synchronize` returns when all sections have ended that had begun before. Those\n\
                      that begin later do not find the object, and nobody waits for them.",
        free: |world, object, cx| {
            Readers::synchronize(cx.task);
            world.free(object);
        },
        may_touch: false,
    },
    Way {
        title: "freed by a callback after a grace period",
        explanation: "`free_after_grace_period` queues the object and returns; it is freed in a softirq\n\
                      when a grace period has passed. So it can be used where nobody can wait.",
        free: |world, object, _| {
            let owner = RcuBox::new(Owner(Arc::clone(world), object));
            Retired::<_, Readers>::new(owner).free_after_grace_period();
        },
        may_touch: false,
    },
];

pub(super) fn run(cx: &mut Context<'_>) -> CommandResult {
    writeln!(
        cx.out,
        "A reader holds on to each of {ROUNDS} objects until it is freed, or for {}.",
        Span(HOLD_NS)
    )?;
    let mut wrong = 0;
    for way in &WAYS {
        let world = Arc::new(World::new());
        let reader = Arc::clone(&world);
        let body = move |cx: &mut TaskCx| reader.read(cx);
        cx.machine.start("demo-reader", Box::new(body)).map_err(Failure::Failed)?;
        let result = (0..ROUNDS).map(|object| round(cx, way, &world, object)).collect::<Option<Vec<u64>>>();
        world.over.store(true, Ordering::Relaxed);
        let ended = until(cx, || world.ended.load(Ordering::Acquire));
        let (Some(mut waits), true) = (result, ended) else {
            return Err(Failure::Failed(String::from("the reader was not given a CPU")));
        };
        // What callbacks have not freed yet.
        Readers::barrier(cx.task);
        waits.sort_unstable();
        let (touched, freed) = (world.touched.load(Ordering::Relaxed), world.freed());
        writeln!(
            cx.out,
            "{}: {touched} of {ROUNDS} were read after that, {freed} freed\n    \
             the writer waited for {} (median)",
            way.title,
            Span(waits[ROUNDS / 2])
        )?;
        if way.may_touch && touched == 0 {
            writeln!(cx.out, "    Nobody was caught: on one CPU without preemption they take turns.")?;
        }
        way.explanation.lines().try_for_each(|line| writeln!(cx.out, "    {line}"))?;
        wrong += freed.abs_diff(ROUNDS) as u64 + if way.may_touch { 0 } else { touched };
    }
    writeln!(
        cx.out,
        "What the kernel's own pointers, `rcu::Rcu`, give back is a `Retired`: whatever is done with\n\
         it, dropping it included, frees it after a grace period. The first two ways do not compile."
    )?;
    match wrong {
        0 => Ok(()),
        _ => Err(Failure::Failed(alloc::format!("{wrong} things went wrong where nothing may"))),
    }
}

/// The writer: publishes an object, lets the reader find it, takes it out and frees it in that way. Returns how long the
/// last took; `None` if no reader came.
fn round(cx: &mut Context<'_>, way: &Way, world: &Arc<World>, object: usize) -> Option<u64> {
    // Release: pairs with the Acquire in `read`.
    world.place.store(object, Ordering::Release);
    let found = until(cx, || world.found.load(Ordering::Acquire) > object);
    world.place.store(NOTHING, Ordering::Release);
    if !found {
        return None;
    }
    let begun = Native::now_ns();
    (way.free)(world, object, cx);
    let took = Native::now_ns() - begun;
    until(cx, || world.left.load(Ordering::Acquire) > object).then_some(took)
}

/// Lets time pass until `done`, and says whether it came to that.
fn until(cx: &mut Context<'_>, done: impl Fn() -> bool) -> bool {
    let begun = Native::now_ns();
    while !done() && Native::now_ns() - begun < PATIENCE_NS {
        cx.machine.pause(LOOK_NS, false, cx.task);
        Native::relax();
    }
    done()
}
