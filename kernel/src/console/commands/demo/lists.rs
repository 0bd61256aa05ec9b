//! A list that readers walk while a writer moves things in it: what they see, and what they do not.
//!
//! Some objects stay where they are; one is moved from the front to the end and back all the time: the object that is
//! there is taken out, and another one with its number is put in at the other end. Readers walk the list without a lock,
//! linger at each object, and note what they met.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use ::rcu::{Domain, RcuBox, RcuHList};
use hal::{Native, Platform};
use sync::TaskCx;
use sync::list::HLink;

use crate::console::rcu::Readers;
use crate::console::registry::{CommandResult, Context, Failure};

/// The objects that stay are numbered from 1 to this.
const STAY: u32 = 6;
/// The number of the one that is moved.
const MOVED: u32 = 0;
/// How often it is moved at the most, and for how long.
const MOVES: u64 = 2_000;
const LONGEST_NS: u64 = 500_000_000;
/// After so many moves the writer lets others run.
const BURST: u64 = 25;
const REST_NS: u64 = 100_000;
/// How often a reader pauses at each object, and the writer after each move.
const PAUSES: usize = 50;

fn linger() {
    (0..PAUSES).for_each(|_| Native::relax());
}

/// How long the demonstration waits for its readers to end.
const PATIENCE_NS: u64 = 10_000_000_000;

/// An object of the list.
struct Entry {
    number: u32,
    /// `ALIVE` until it is dropped.
    state: AtomicU32,
    tally: Arc<Tally>,
    link: HLink,
}

sync::link_field! { struct Listed = Entry => link: HLink; }

type List = RcuHList<RcuBox<Entry>, Listed, Readers>;

const ALIVE: u32 = 0x600d_da7a;
const POISON: u32 = 0x6b6b_6b6b;

impl Drop for Entry {
    fn drop(&mut self) {
        self.state.store(POISON, Ordering::Release);
        self.tally.freed.fetch_add(1, Ordering::Relaxed);
    }
}

/// What was counted.
#[derive(Default)]
struct Tally {
    made: AtomicU64,
    freed: AtomicU64,
    walks: AtomicU64,
    /// Walks that met the one that is moved not at all, once, and more often.
    missed: AtomicU64,
    once: AtomicU64,
    again: AtomicU64,
    /// Walks that did not meet those that stay, once each and in their order.
    disordered: AtomicU64,
    /// Objects that were met after they had been freed.
    dead: AtomicU64,
    over: AtomicBool,
    reading: AtomicUsize,
}

fn entry(number: u32, tally: &Arc<Tally>) -> RcuBox<Entry> {
    tally.made.fetch_add(1, Ordering::Relaxed);
    RcuBox::new(Entry { number, state: AtomicU32::new(ALIVE), tally: Arc::clone(tally), link: HLink::new() })
}

/// One walk of a reader.
fn walk(list: &List, tally: &Tally) {
    let section = ::rcu::read::<Readers>();
    let (mut met_moved, mut expected, mut in_order) = (0, 1, true);
    for entry in list.iter(&section) {
        linger();
        tally.dead.fetch_add(u64::from(entry.state.load(Ordering::Acquire) != ALIVE), Ordering::Relaxed);
        match entry.number {
            MOVED => met_moved += 1,
            number => {
                in_order &= number == expected;
                expected = number + 1;
            }
        }
    }
    drop(section);
    let met = match met_moved {
        0 => &tally.missed,
        1 => &tally.once,
        _ => &tally.again,
    };
    met.fetch_add(1, Ordering::Relaxed);
    tally.disordered.fetch_add(u64::from(!in_order || expected != STAY + 1), Ordering::Relaxed);
    tally.walks.fetch_add(1, Ordering::Relaxed);
}

/// A reader: walks at least once.
fn read(list: &List, tally: &Tally, cx: &mut TaskCx) {
    loop {
        walk(list, tally);
        if tally.over.load(Ordering::Relaxed) {
            break;
        }
        cx.cond_resched();
    }
}

/// Moves the one: to the end if it is in front, otherwise to the front.
fn shift(list: &List, tally: &Arc<Tally>, to_end: bool) {
    let other = entry(MOVED, tally);
    let mut writer = list.write();
    let removed = writer.remove_first(|entry| entry.number == MOVED);
    match to_end {
        true => writer.insert_before(other, |_| false),
        false => writer.push_front(other),
    }
    drop(writer);
    // Freed after a grace period: a reader may be at it.
    drop(removed);
}

pub(super) fn run(cx: &mut Context<'_>) -> CommandResult {
    let tally = Arc::new(Tally::default());
    let list = Arc::new(List::new());
    let mut writer = list.write();
    (MOVED..=STAY).rev().for_each(|number| writer.push_front(entry(number, &tally)));
    drop(writer);
    let readers = cx.machine.cpus().iter().filter(|cpu| cpu.state == "online").count();
    let started = (0..readers).try_for_each(|_| {
        tally.reading.fetch_add(1, Ordering::Relaxed);
        let (list, own) = (Arc::clone(&list), Arc::clone(&tally));
        let body = move |cx: &mut TaskCx| {
            read(&list, &own, cx);
            drop(list);
            // Release: pairs with the Acquire of who waits for all to end.
            own.reading.fetch_sub(1, Ordering::Release);
        };
        let started = cx.machine.start("demo-walker", Box::new(body));
        if started.is_err() {
            tally.reading.fetch_sub(1, Ordering::Relaxed);
        }
        started
    });
    let (begun, mut moves) = (Native::now_ns(), 0);
    while started.is_ok() && moves < MOVES && Native::now_ns() - begun < LONGEST_NS {
        shift(&list, &tally, moves % 2 == 0);
        moves += 1;
        linger();
        if moves % BURST == 0 {
            cx.machine.pause(REST_NS, false, cx.task);
        }
    }
    tally.over.store(true, Ordering::Relaxed);
    let waits = Native::now_ns();
    // Acquire: pairs with the Release of each reader's end.
    while tally.reading.load(Ordering::Acquire) != 0 && Native::now_ns() - waits < PATIENCE_NS {
        cx.machine.pause(REST_NS, false, cx.task);
        Native::relax();
    }
    started.map_err(Failure::Failed)?;
    if tally.reading.load(Ordering::Acquire) != 0 {
        return Err(Failure::Failed(String::from("a reader was not given a CPU")));
    }
    drop(list);
    Readers::barrier(cx.task);
    tell(cx, readers, moves, &tally)
}

fn tell(cx: &mut Context<'_>, readers: usize, moves: u64, tally: &Tally) -> CommandResult {
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (walks, made, freed) = (read(&tally.walks), read(&tally.made), read(&tally.freed));
    let (dead, disordered) = (read(&tally.dead), read(&tally.disordered));
    let plural = if readers == 1 { "" } else { "s" };
    writeln!(
        cx.out,
        "{STAY} objects stay in a list, one is moved from end to end {moves} times;\n\
         {readers} reader{plural} walked it {walks} times, without a lock:\n\
         freed objects that were met: {dead}; {made} were put in, {freed} have been freed\n    \
         What is taken out keeps its own pointer to the next one, and is freed after a grace\n    \
         period: a reader that stands on it goes on from there.\n\
         walks that did not meet each object that stays once, in order: {disordered}\n    \
         An object is put in by one store, when it is complete, and taken out by one.\n\
         the one that is moved: met once by {}, not at all by {}, twice by {}\n    \
         A walk is no picture of one moment. Who is past the place where it is put in does not\n    \
         meet it; who has met it at the front may meet its successor at the end. Who must have\n    \
         all at one moment takes the writers' lock, or counts changes as a seqlock does.",
        read(&tally.once),
        read(&tally.missed),
        read(&tally.again)
    )?;
    match dead + disordered + made.abs_diff(freed) {
        0 => Ok(()),
        wrong => Err(Failure::Failed(alloc::format!("{wrong} things went wrong where nothing may"))),
    }
}
