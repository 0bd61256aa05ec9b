//! Objects on a line of ten places: readers must not see any beyond the first.
//!
//! 1. A pointer leads to the present object. Writers replace it; from then on the former one moves one place along the
//!    line with each grace period, whichever way that was waited for. At the end of the line it is used again.
//! 2. A reader remembers what it found, and looks at its place when its section ends. While the section lasts the object
//!    can have been replaced, and the period that runs may have ended, which had begun before: place 1. Beyond that a
//!    grace period has ended too early.
//! 3. Readers protect themselves in every way there is, with up to four ways that overlap, are preempted and moved, and
//!    read from interrupts; CPUs go and come meanwhile.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};

use ::rcu::{Callback, Domain, Head, ReadGuard};
use alloc::boxed::Box;
use alloc::vec::Vec;
use hal::chaos::mix;
use hal::{CpuId, Native, Platform};
use sync::{BhGuard, IrqGuard, IrqSpinLock, PreemptGuard, TaskCx};

use crate::calls::{self, CallData};
use crate::rcu::Kernel;
use crate::task::{Builder, JoinHandle};
use crate::{check, cpus, hotplug, kernel_test};

const MS: u64 = 1_000_000;
/// Where an object is used again.
const END: u32 = 10;
const OBJECTS: usize = 256;

/// An object on the line.
struct Object {
    /// 0 while it is the present one; then, how many grace periods have passed, and one.
    place: AtomicU32,
    head: Head,
}

// SAFETY: the head is used by who moves the object along, which is one writer or callback at a time.
unsafe impl Sync for Object {}

static PRESENT: AtomicPtr<Object> = AtomicPtr::new(core::ptr::null_mut());
static FREE: IrqSpinLock<Vec<&'static Object>> = IrqSpinLock::new(Vec::new());

/// What was done, and what went wrong.
struct Count {
    /// How many readers found at their end an object at each place.
    places: [AtomicU64; END as usize + 1],
    periods: AtomicU64,
    callbacks: AtomicU64,
    preempted: AtomicU64,
    from_interrupts: AtomicU64,
    polls_too_early: AtomicU64,
    polls_too_late: AtomicU64,
    barriers_too_early: AtomicU64,
}

static COUNT: Count = Count {
    places: [const { AtomicU64::new(0) }; END as usize + 1],
    periods: AtomicU64::new(0),
    callbacks: AtomicU64::new(0),
    preempted: AtomicU64::new(0),
    from_interrupts: AtomicU64::new(0),
    polls_too_early: AtomicU64::new(0),
    polls_too_late: AtomicU64::new(0),
    barriers_too_early: AtomicU64::new(0),
};

impl Count {
    fn each(&self) -> impl Iterator<Item = &AtomicU64> {
        let rest = [
            &self.periods,
            &self.callbacks,
            &self.preempted,
            &self.from_interrupts,
            &self.polls_too_early,
            &self.polls_too_late,
            &self.barriers_too_early,
        ];
        self.places.iter().chain(rest)
    }

    fn of(number: &AtomicU64) -> u64 {
        number.load(Ordering::Relaxed)
    }

    /// Readers that saw an object beyond the first place.
    fn too_old(&self) -> u64 {
        self.places[2..].iter().map(Count::of).sum()
    }

    fn wrong(&self) -> u64 {
        let others = [&self.polls_too_early, &self.polls_too_late, &self.barriers_too_early];
        self.too_old() + others.map(Count::of).iter().sum::<u64>()
    }
}

fn bump(number: &AtomicU64) {
    number.fetch_add(1, Ordering::Relaxed);
}

static STOP: AtomicBool = AtomicBool::new(false);

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

/// Numbers that differ from each other.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = mix(self.0.wrapping_add(0x9e37_79b9_7f4a_7c15));
        self.0
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.next().is_multiple_of(n)
    }
}

// ---- Readers ----

/// The object that a reader finds.
fn find() -> &'static Object {
    // SAFETY: objects live for ever; whether this one may be looked at is what is tested. Acquire: pairs with the Release
    // in `replace`.
    unsafe { &*PRESENT.load(Ordering::Acquire) }
}

/// The end of a reader that found `object`.
fn note(object: &Object) {
    let place = object.place.load(Ordering::Acquire).min(END);
    bump(&COUNT.places[place as usize]);
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

fn begin(way: usize) -> Way {
    Way {
        _reader: (way < 2).then(crate::rcu::read),
        _preemption: (way == 2).then(sync::preempt::disable),
        _bottom_halves: (way == BOTTOM_HALVES).then(sync::bh::disable),
        _interrupts: (way == INTERRUPTS).then(sync::irq::disable),
    }
}

fn spin(ns: u64) {
    let begun = Native::now_ns();
    while Native::now_ns() - begun < ns {
        Native::relax();
    }
}

/// One reader: begins in one way, goes on in others that overlap, and looks when the last of them ends.
fn read_once(random: &mut Random) {
    let mut held: [Option<Way>; WAYS] = [const { None }; WAYS];
    let first = (random.next() % WAYS as u64) as usize;
    held[first] = Some(begin(first));
    let object = find();
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
            bump(&COUNT.preempted);
        }
        if only_reader && random.one_in(2_000) {
            spin(20 * MS);
        }
        // One of those that are held may go, as long as another one stays.
        let last = (random.next() % WAYS as u64) as usize;
        let possible = last != BOTTOM_HALVES || held[INTERRUPTS].is_none();
        if possible && held.iter().flatten().count() > 1 {
            held[last] = None;
        }
    }
    note(object);
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
        bump(&COUNT.from_interrupts);
        drop(section);
    });
}

fn readers(seed: u64) -> Vec<JoinHandle<()>> {
    let reader = |number: u64| {
        let read = move |cx: &mut TaskCx| {
            let mut random = Random(mix(seed ^ number));
            while !STOP.load(Ordering::Relaxed) {
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
    (0..2 * cpus::online_count().min(4) as u64).filter_map(reader).collect()
}

// ---- Writers ----

/// Puts another object in the place of the present one, which is returned.
fn replace() -> Option<&'static Object> {
    let next = FREE.lock().pop()?;
    next.place.store(0, Ordering::Relaxed);
    // Release: pairs with the Acquire in `find`.
    let former = PRESENT.swap(core::ptr::from_ref(next).cast_mut(), Ordering::AcqRel);
    // SAFETY: objects live for ever, and the first one was put there before writers began.
    let former = unsafe { &*former };
    former.place.store(1, Ordering::Release);
    Some(former)
}

/// A grace period has passed for `object`. Says whether it is to stay on the line.
fn advance(object: &'static Object) -> bool {
    bump(&COUNT.periods);
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
    bump(&COUNT.callbacks);
    // SAFETY: by the contract; objects live for ever.
    let object = unsafe { sync::container_of!(head, Object, head).as_ref() };
    if advance(object) {
        // SAFETY: the head is in no queue while its function is called, and the object lives for ever.
        unsafe { W::call(head, passed::<W>) };
    }
}

fn writer<W: Waiting>(mut random: Random) -> Option<JoinHandle<()>> {
    let write = move |cx: &mut TaskCx| {
        while !STOP.load(Ordering::Relaxed) {
            let Some(object) = replace() else {
                cx.block(Some(Native::now_ns() + MS));
                continue;
            };
            match random.next() % 5 {
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
fn poller(seed: u64) -> Option<JoinHandle<()>> {
    let poll = move |cx: &mut TaskCx| {
        let mut random = Random(seed);
        while !STOP.load(Ordering::Relaxed) {
            let section = crate::rcu::read_in(cx);
            let state = if random.one_in(2) { Kernel::get_state() } else { Kernel::start_poll() };
            spin(random.next() % 300_000);
            COUNT.polls_too_early.fetch_add(Kernel::poll(state).into(), Ordering::Relaxed);
            drop(section);
            Kernel::cond_synchronize(state, cx);
            COUNT.polls_too_late.fetch_add((!Kernel::poll(state)).into(), Ordering::Relaxed);
            cx.block(Some(Native::now_ns() + MS));
        }
    };
    Builder::new("rcu poller").spawn(poll).ok()
}

/// Barriers: all callbacks that were queued before have been called.
fn barriers() -> Option<JoinHandle<()>> {
    static CALLED: AtomicU32 = AtomicU32::new(0);
    unsafe fn called(head: NonNull<Head>) {
        CALLED.fetch_add(1, Ordering::Relaxed);
        // SAFETY: every head that is queued with this function was a leaked box.
        drop(unsafe { Box::from_raw(head.as_ptr()) });
    }
    let test = |cx: &mut TaskCx| {
        while !STOP.load(Ordering::Relaxed) {
            CALLED.store(0, Ordering::Relaxed);
            let mut queued = 0;
            for cpu in cpus::online() {
                // CPUs may go meanwhile; then it is queued here.
                let head = NonNull::from(Box::leak(Box::new(Head::new())));
                let address = head.as_ptr() as usize;
                let queue = move || {
                    let head = NonNull::new(address as *mut Head);
                    // SAFETY: fresh, in place until it is called, and queued once.
                    head.into_iter().for_each(|head| unsafe { Kernel::call(head, called) });
                };
                if calls::single(cpu, queue).is_err() {
                    queue();
                }
                queued += 1;
            }
            Kernel::barrier(cx);
            let early = CALLED.load(Ordering::Relaxed) != queued;
            COUNT.barriers_too_early.fetch_add(early.into(), Ordering::Relaxed);
            cx.block(Some(Native::now_ns() + MS));
        }
    };
    Builder::new("rcu barrier").spawn(test).ok()
}

/// Runs everything at once until `enough`, or for `ms`.
fn torture<W: Waiting>(ms: u64, cx: &mut TaskCx, mut meanwhile: impl FnMut(&mut TaskCx) -> bool) {
    COUNT.each().for_each(|count| count.store(0, Ordering::Relaxed));
    STOP.store(false, Ordering::Relaxed);
    let objects: Vec<&'static Object> = (0..OBJECTS)
        .map(|_| &*Box::leak(Box::new(Object { place: AtomicU32::new(0), head: Head::new() })))
        .collect();
    let (first, rest) = objects.split_first().expect("there are some");
    PRESENT.store(core::ptr::from_ref::<Object>(first).cast_mut(), Ordering::Release);
    *FREE.lock() = rest.to_vec();
    let seed = Native::now_ns();
    let mut tasks = readers(seed);
    tasks.extend((0..4).filter_map(|number| writer::<W>(Random(mix(seed ^ 0x77 ^ number)))));
    tasks.extend(poller(seed).into_iter().chain(barriers()));
    let end = Native::now_ns() + ms * MS;
    while Native::now_ns() < end && meanwhile(cx) {
        cx.block(Some(Native::now_ns() + 10 * MS));
    }
    STOP.store(true, Ordering::Relaxed);
    tasks.into_iter().for_each(|task| task.join(cx));
    // Each callback moves its object one place, and queues itself again.
    for _ in 0..=END {
        Kernel::barrier(cx);
    }
}

kernel_test! {
    task, limit_ms = 60_000,
    fn readers_see_no_object_after_its_grace_period_while_cpus_come_and_go(cx) {
        let others: Vec<CpuId> = cpus::online().filter(|cpu| *cpu != CpuId::BOOT).collect();
        let (mut turn, mut changes) = (0, 0);
        let ended = crate::rcu::figures();
        torture::<Sound>(if cfg!(feature = "chaos") { 100 } else { 1_500 }, cx, |cx| {
            if !others.is_empty() {
                let cpu = others[turn / 2 % others.len()];
                let change = if turn % 2 == 0 { hotplug::take_offline } else { hotplug::bring_online };
                turn += 1;
                changes += u32::from(change(cpu, cx).is_ok());
            }
            true
        });
        if turn % 2 == 1 {
            let _ = hotplug::bring_online(others[turn / 2 % others.len()], cx);
        }
        let now = crate::rcu::figures();
        ::log::info!(
            "{} readers, {} preempted, {} in interrupts; {} grace periods ({} expedited) for {} moves, {} by callback; \
             {changes} CPUs came or went",
            COUNT.places.iter().map(Count::of).sum::<u64>(),
            Count::of(&COUNT.preempted),
            Count::of(&COUNT.from_interrupts),
            now.ended - ended.ended,
            now.expedited - ended.expedited,
            Count::of(&COUNT.periods),
            Count::of(&COUNT.callbacks),
        );
        check!(
            COUNT.wrong() == 0,
            "places {:?}; polls {} early, {} late; barriers {} early",
            COUNT.places.each_ref().map(Count::of),
            Count::of(&COUNT.polls_too_early),
            Count::of(&COUNT.polls_too_late),
            Count::of(&COUNT.barriers_too_early)
        );
        // Something was tried.
        check!(Count::of(&COUNT.places[0]) > 100 && Count::of(&COUNT.periods) > 50);
        check!(now.ended > ended.ended && Count::of(&COUNT.callbacks) > 10);
        Ok(())
    }
}

kernel_test! {
    task, limit_ms = 60_000,
    fn grace_periods_that_end_early_are_caught(cx) {
        torture::<Early>(10_000, cx, |_| COUNT.too_old() == 0);
        check!(COUNT.too_old() > 0, "nobody noticed in {} moves", Count::of(&COUNT.periods));
        Ok(())
    }
}
