//! What the kernel is for: using locks and lists on two CPUs, with interrupts in between, and counting whether all went
//! right.
//!
//! Each [`Exercise`] is done by both CPUs at the same time and then judged by the boot CPU. An exercise in which nothing
//! happened (nobody had to wait, no interrupt came) fails as well.

use core::hint::black_box;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use hal::{CpuId, Platform, percpu};
use sync::context::HardirqGuard;
use sync::list::{self, List};
use sync::llist::{self, LList};
use sync::{Irq, SpinLock, Task};

use crate::interrupts::TICKS;
use crate::platform::{CPUS, Own, REPORTS, go_online};
use crate::{grace, machine, timing};

/// Something that both CPUs do at once.
pub(crate) struct Exercise {
    pub(crate) name: &'static str,
    /// Both CPUs do it, in task context.
    pub(crate) work: fn(CpuId),
    /// Both CPUs' timer interrupts do it meanwhile.
    pub(crate) on_timer: Option<fn(&HardirqGuard<Own>)>,
    /// The boot CPU's look at the result: how often a lock was taken, or what is wrong.
    pub(crate) judge: fn() -> Result<u32, &'static str>,
}

const EXERCISES: [Exercise; 6] = [
    tasks::EXERCISE,
    interrupts::EXERCISE,
    lists::EXERCISE,
    messages::EXERCISE,
    timing::EXERCISE,
    grace::EXERCISE,
];

/// The exercise whose `on_timer` runs; an index past the end is none.
static CURRENT: AtomicUsize = AtomicUsize::new(usize::MAX);
/// How often a CPU came to [`meet`].
static ARRIVED: AtomicU32 = AtomicU32::new(0);

percpu! {
    static MEETINGS: AtomicU32 = AtomicU32::new(0);
    /// Locks that this CPU had to wait for.
    static WAITED: AtomicU32 = AtomicU32::new(0);
}

/// Waits for the other CPU.
fn meet() {
    MEETINGS.inc();
    // AcqRel: what either did before, the other sees after.
    ARRIVED.fetch_add(1, Ordering::AcqRel);
    while ARRIVED.load(Ordering::Acquire) < MEETINGS.read() * CPUS as u32 {
        Own::relax();
    }
}

/// The boot CPU: leads, judges, and ends the run.
pub(crate) fn run_all() -> ! {
    go_online();
    let (mut taken, mut failed) = (0, false);
    for (index, exercise) in EXERCISES.iter().enumerate() {
        CURRENT.store(index, Ordering::Relaxed);
        meet();
        (exercise.work)(CpuId::BOOT);
        meet();
        CURRENT.store(usize::MAX, Ordering::Relaxed);
        match (exercise.judge)() {
            Ok(acquisitions) => taken += acquisitions,
            Err(wrong) => {
                failed = true;
                machine::print(format_args!("other-kernel: {}: FAILED: {wrong}\n", exercise.name));
            }
        }
    }
    for (what, wrong) in left_over() {
        failed |= wrong;
        if wrong {
            machine::print(format_args!("other-kernel: FAILED: {what}\n"));
        }
    }
    let sum = |count: fn(CpuId) -> u32| percpu::cpus().map(count).sum::<u32>();
    let ticks = sum(|cpu| TICKS.on(cpu).load(Ordering::Relaxed));
    let waited = sum(|cpu| WAITED.on(cpu).load(Ordering::Relaxed));
    machine::print(format_args!(
        "other-kernel: {} CPUs, {taken} acquisitions, {waited} of them after a wait, {ticks} timer interrupts, \
         {} ms: {}\n",
        percpu::cpus().count(),
        Own::now_ns() / 1_000_000,
        if failed { "FAILED" } else { "ok" },
    ));
    machine::exit(!failed)
}

/// The other CPU: does each exercise, then nothing.
pub(crate) fn take_part(cpu: CpuId) -> ! {
    go_online();
    for exercise in &EXERCISES {
        meet();
        (exercise.work)(cpu);
        meet();
    }
    loop {
        Own::block(None);
    }
}

/// The timer interrupt of the executing CPU.
pub(crate) fn on_timer(serving: &HardirqGuard<Own>) {
    // Relaxed: an exercise begins and ends at meetings, and does not mind a tick more.
    if let Some(exercise) = EXERCISES.get(CURRENT.load(Ordering::Relaxed))
        && let Some(on_timer) = exercise.on_timer
    {
        on_timer(serving);
    }
}

/// What must not be, when all is over.
fn left_over() -> [(&'static str, bool); 4] {
    let waited = |cpu: CpuId| WAITED.on(cpu).load(Ordering::Relaxed);
    [
        ("a count of the preempt word was not given back", Own::context().count() != 0),
        ("interrupts are still off", Own::irq_depth() != 0),
        ("something was reported", REPORTS.load(Ordering::Relaxed) != 0),
        ("no CPU ever waited for a lock", percpu::cpus().map(waited).sum::<u32>() == 0),
    ]
}

/// Data behind a lock that notices when somebody else is in there.
struct Turn {
    busy: bool,
    overlaps: u32,
    visits: u32,
}

impl Turn {
    const fn new() -> Turn {
        Turn { busy: false, overlaps: 0, visits: 0 }
    }

    /// To be called with the lock held. The compiler must not see that nothing happens in between.
    fn visit(&mut self) {
        let turn = black_box(self);
        turn.overlaps += u32::from(turn.busy);
        turn.busy = true;
        let turn = black_box(turn);
        turn.visits += 1;
        if turn.visits.is_multiple_of(64) {
            // Long enough now and then for the other CPU to come by, also where CPUs take turns on one core.
            Own::relax();
        }
        black_box(turn).busy = false;
    }
}

/// A lock that only tasks take.
mod tasks {
    use super::*;

    const TIMES: u32 = 200_000;
    static TURN: SpinLock<Turn, Task<Own>> = SpinLock::new(Turn::new());

    pub(super) const EXERCISE: Exercise =
        Exercise { name: "a lock between tasks", work, on_timer: None, judge };

    fn work(_: CpuId) {
        for _ in 0..TIMES {
            let mut turn = TURN.try_lock().unwrap_or_else(|| {
                WAITED.inc();
                TURN.lock()
            });
            turn.visit();
        }
    }

    fn judge() -> Result<u32, &'static str> {
        let turn = TURN.lock();
        match (turn.overlaps, turn.visits) {
            (0, visits) if visits == TIMES * CPUS as u32 => Ok(visits),
            (0, _) => Err("visits are missing"),
            _ => Err("two CPUs had the lock at the same time"),
        }
    }
}

/// A lock that the timer interrupt takes too.
mod interrupts {
    use super::*;

    /// The least that each CPU does, and the interrupts that it waits for.
    const TIMES: u32 = 20_000;
    const INTERRUPTS: u32 = 50;
    static TURN: SpinLock<Turn, Irq<Own>> = SpinLock::new(Turn::new());

    percpu! {
        static BY_TASK: AtomicU32 = AtomicU32::new(0);
        static BY_INTERRUPT: AtomicU32 = AtomicU32::new(0);
    }

    pub(super) const EXERCISE: Exercise =
        Exercise { name: "a lock shared with interrupts", work, on_timer: Some(on_timer), judge };

    fn work(_: CpuId) {
        while BY_TASK.read() < TIMES || BY_INTERRUPT.read() < INTERRUPTS {
            TURN.lock().visit();
            BY_TASK.inc();
        }
    }

    fn on_timer(serving: &HardirqGuard<Own>) {
        // Interrupts are off in here, so there is nothing to switch off.
        let mut turn = TURN.lock_with(serving);
        turn.visit();
        // With the lock held, so that the judge sees both or neither.
        BY_INTERRUPT.inc();
    }

    fn judge() -> Result<u32, &'static str> {
        let turn = TURN.lock();
        let counted =
            |cpu| BY_TASK.on(cpu).load(Ordering::Relaxed) + BY_INTERRUPT.on(cpu).load(Ordering::Relaxed);
        match (turn.overlaps, turn.visits) {
            (0, visits) if visits == percpu::cpus().map(counted).sum::<u32>() => Ok(visits),
            (0, _) => Err("visits are missing"),
            _ => Err("two had the lock at the same time"),
        }
    }
}

/// Objects that wander between two lists, each behind a lock of its own. One CPU moves them there, the other back.
mod lists {
    use super::*;

    const TIMES: u32 = 50_000;
    const OBJECTS: usize = 64;

    struct Object {
        moves: AtomicU32,
        link: list::Link<Own>,
    }
    sync::link_field! { struct Here = Object => link: list::Link<Own>; }

    type Shelf = SpinLock<List<&'static Object, Here>, Task<Own>>;

    static OBJECT: [Object; OBJECTS] =
        [const { Object { moves: AtomicU32::new(0), link: list::Link::new_in() } }; OBJECTS];
    static SHELVES: [Shelf; CPUS] = [const { Shelf::new(List::new()) }; CPUS];

    percpu! {
        static MOVED: AtomicU32 = AtomicU32::new(0);
    }

    pub(super) const EXERCISE: Exercise =
        Exercise { name: "a list behind a lock", work, on_timer: None, judge };

    fn work(cpu: CpuId) {
        let [mine, other] = [&SHELVES[cpu.index()], &SHELVES[1 - cpu.index()]];
        // Each CPU fills its own shelf with half of the objects.
        OBJECT.iter().skip(cpu.index()).step_by(CPUS).for_each(|object| mine.lock().push_back(object));
        while MOVED.read() < TIMES {
            let taken = mine.lock().pop_front();
            if let Some(object) = taken {
                object.moves.fetch_add(1, Ordering::Relaxed);
                other.lock().push_back(object);
                MOVED.inc();
            } else {
                Own::relax();
            }
        }
    }

    fn judge() -> Result<u32, &'static str> {
        let (mut found, mut moves) = (0, 0);
        for shelf in &SHELVES {
            let mut shelf = shelf.lock();
            while let Some(object) = shelf.pop_front() {
                found += 1;
                // Each is counted once: what was found does not count again.
                moves += object.moves.swap(0, Ordering::Relaxed);
            }
        }
        match (found == OBJECTS, moves == TIMES * CPUS as u32) {
            (true, true) => Ok(moves * 2),
            (false, _) => Err("objects were lost or doubled"),
            _ => Err("moves are missing"),
        }
    }
}

/// Messages from the timer interrupts of both CPUs to a task, by a list without a lock.
mod messages {
    use super::*;

    const MESSAGES: u32 = 50;
    /// How many of a CPU's messages can be on their way.
    const SLOTS: usize = 8;

    struct Message {
        /// From sending until it has been read.
        in_use: AtomicBool,
        number: AtomicU32,
        from: AtomicU32,
        link: llist::Link<Own>,
    }
    sync::link_field! { struct InMailbox = Message => link: llist::Link<Own>; }

    static SLOT: [[Message; SLOTS]; CPUS] = [const {
        [const {
            Message {
                in_use: AtomicBool::new(false),
                number: AtomicU32::new(0),
                from: AtomicU32::new(0),
                link: llist::Link::new_in(),
            }
        }; SLOTS]
    }; CPUS];
    static MAILBOX: LList<&'static Message, InMailbox> = LList::new();
    static OUT_OF_ORDER: AtomicU32 = AtomicU32::new(0);
    static ENOUGH: AtomicU32 = AtomicU32::new(0);

    percpu! {
        static SENT: AtomicU32 = AtomicU32::new(0);
        static RECEIVED: AtomicU32 = AtomicU32::new(0);
    }

    pub(super) const EXERCISE: Exercise =
        Exercise { name: "messages from interrupts", work, on_timer: Some(on_timer), judge };

    fn on_timer(_: &HardirqGuard<Own>) {
        let cpu = Own::cpu();
        let number = SENT.read();
        let message = &SLOT[cpu.index()][number as usize % SLOTS];
        // All are on their way if the task is slow; then there is nothing to send with.
        // Acquire: pairs with the Release in `receive`, which is done with the message.
        if !message.in_use.load(Ordering::Acquire) {
            message.in_use.store(true, Ordering::Relaxed);
            message.number.store(number, Ordering::Relaxed);
            message.from.store(cpu.as_u32(), Ordering::Relaxed);
            MAILBOX.push(message);
            SENT.inc();
        }
    }

    /// The boot CPU's task receives. The other's waits, and is interrupted.
    fn work(cpu: CpuId) {
        while ENOUGH.load(Ordering::Relaxed) == 0 {
            if cpu == CpuId::BOOT {
                receive();
                let all = percpu::cpus().all(|cpu| RECEIVED.on(cpu).load(Ordering::Relaxed) >= MESSAGES);
                ENOUGH.store(u32::from(all), Ordering::Relaxed);
            }
            Own::relax();
        }
    }

    fn receive() {
        for message in MAILBOX.take_all().into_fifo() {
            let from = CpuId::new(message.from.load(Ordering::Relaxed)).unwrap_or(CpuId::BOOT);
            let expected = RECEIVED.on(from).fetch_add(1, Ordering::Relaxed);
            if message.number.load(Ordering::Relaxed) != expected {
                OUT_OF_ORDER.fetch_add(1, Ordering::Relaxed);
            }
            // Release: pairs with the Acquire in `on_timer`.
            message.in_use.store(false, Ordering::Release);
        }
    }

    fn judge() -> Result<u32, &'static str> {
        receive();
        match OUT_OF_ORDER.load(Ordering::Relaxed) {
            0 => Ok(0),
            _ => Err("messages came out of order, or twice, or not at all"),
        }
    }
}
