//! Locks where they are used: by tasks on all CPUs, and meanwhile by the interrupts that may take them.
//!
//! 1. A [`Contest`] is one lock and those who want it besides tasks. Every CPU's task takes it again and again, raises
//!    softirqs, and sends calls and NMIs to its neighbour; the timer comes by itself.
//! 2. What the lock protects is a [`Pair`], which its visitors leave equal and find unequal if somebody else is inside.
//! 3. At the end no visit may be missing, no count left over, and everybody must have come: a contest in which nobody
//!    had to wait, or in which an interrupt never wanted the lock, has shown nothing and fails.

use core::hint::black_box;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};

use hal::x86_64::apic;
use hal::{CpuId, Native, Platform, percpu};
use sync::llist::{self, LList};
use sync::{
    BottomHalf, Flavor, Irq, IrqRwLock, IrqSeqLock, Latch, Queued, RwLock, SeqLock, SpinLock, Task, Ticketed,
    bh, irq,
};

use crate::testing::irq::{Source, send_call, set_hook};
use crate::testing::{Outcome, nmi};
use crate::{check, check_eq, cpus, kernel_test, softirq};

/// Who wants the lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Party {
    Task,
    Softirq,
    Timer,
    Call,
    Nmi,
}

const EVERYBODY: [Party; 5] = [Party::Task, Party::Softirq, Party::Timer, Party::Call, Party::Nmi];

/// What came of one attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Visit {
    /// Was inside and changed the data.
    Changed,
    /// Was inside and found the data in order.
    Looked,
    /// Was inside and was not alone, or found the data changed by half.
    Disturbed,
    /// Did not wait, and did not get in.
    Refused,
}

/// One lock and those who want it.
struct Contest {
    /// Who comes besides tasks.
    joined_by: &'static [Party],
    /// One attempt, by whoever it is.
    visit: fn(Party) -> Visit,
    /// How often the data was changed, by its own account.
    changes: fn() -> u64,
    /// Whether it is a kind of lock that is waited for.
    is_waited_for: bool,
    /// It is held on machines with no more CPUs than that.
    most_cpus: usize,
}

/// The contest that runs, or null.
static CONTEST: AtomicPtr<Contest> = AtomicPtr::new(ptr::null_mut());
/// Attempts of each party, by what came of them.
static VISITS: [[AtomicU64; 4]; 5] = [const { [const { AtomicU64::new(0) }; 4] }; 5];
/// Attempts that had to wait.
static WAITED: AtomicU64 = AtomicU64::new(0);
/// CPUs that have come to the contest.
static ARRIVED: AtomicU64 = AtomicU64::new(0);
/// CPUs whose counts were not given back.
static UNBALANCED: AtomicU32 = AtomicU32::new(0);

/// The softirq vector that the contest uses.
const VECTOR: u32 = 9;
/// Enough visits of all tasks together. Locks that serve in order of arrival take long for so many where CPUs outnumber
/// the host's, so that [`LONG_ENOUGH_NS`] is enough too.
const TASK_VISITS: u64 = 12_000;
const LONG_ENOUGH_NS: u64 = 500_000_000;
/// The least attempts of each other party, and the least waits of all.
const OTHER_VISITS: u64 = 24;
const WAITS: u64 = 4;
/// How long to wait until everybody has come.
const PATIENCE_NS: u64 = 30_000_000_000;

fn visits(party: Party, what: Visit) -> u64 {
    VISITS[party as usize][what as usize].load(Ordering::Relaxed)
}

fn attempts(party: Party) -> u64 {
    VISITS[party as usize].iter().map(|count| count.load(Ordering::Relaxed)).sum()
}

fn all_visits(what: Visit) -> u64 {
    EVERYBODY.into_iter().map(|party| visits(party, what)).sum()
}

/// One attempt of `party` in the contest that runs, if it takes part.
fn come(party: Party) {
    // SAFETY: null or a `'static` contest. Acquire: pairs with the Release in `hold`.
    let Some(contest) = (unsafe { CONTEST.load(Ordering::Acquire).as_ref() }) else { return };
    if party == Party::Task || contest.joined_by.contains(&party) {
        let what = (contest.visit)(party);
        VISITS[party as usize][what as usize].fetch_add(1, Ordering::Relaxed);
    }
}

static ON_TIMER: fn() = || {
    come(Party::Timer);
    Native::raise_softirq(VECTOR);
};
static ON_CALL: fn() = || come(Party::Call);
static ON_SOFTIRQ: fn() = || come(Party::Softirq);

/// Holds a contest and judges it.
fn hold(contest: &'static Contest) -> Outcome {
    if cpus::online_count() > contest.most_cpus {
        crate::skip!("strict order of arrival comes to a stop where CPUs outnumber the host's by that much");
    }
    VISITS.iter().flatten().for_each(|count| count.store(0, Ordering::Relaxed));
    WAITED.store(0, Ordering::Relaxed);
    ARRIVED.store(0, Ordering::Relaxed);
    UNBALANCED.store(0, Ordering::Relaxed);
    let before = (contest.changes)();
    softirq::set_handler(VECTOR, Some(&ON_SOFTIRQ));
    set_hook(Source::Timer, Some(&ON_TIMER));
    set_hook(Source::Call, Some(&ON_CALL));
    nmi::set_hook(Some(|_| come(Party::Nmi)));
    // Release: pairs with the Acquire in `come`.
    CONTEST.store(ptr::from_ref(contest).cast_mut(), Ordering::Release);
    cpus::run_on_all(&|cpu| take_part(cpu, contest));
    CONTEST.store(ptr::null_mut(), Ordering::Release);
    nmi::set_hook(None);
    set_hook(Source::Call, None);
    set_hook(Source::Timer, None);
    // Whoever was in an interrupt when the hooks went is out of it when its task runs. Enabling bottom halves serves
    // what was raised last.
    cpus::run_on_all(&|_| drop(bh::disable()));
    softirq::set_handler(VECTOR, None);

    check_eq!(all_visits(Visit::Disturbed), 0);
    check_eq!((contest.changes)() - before, all_visits(Visit::Changed));
    check_eq!(UNBALANCED.load(Ordering::Relaxed), 0);
    for party in contest.joined_by {
        check!(attempts(*party) >= OTHER_VISITS, "{party:?} came {} times", attempts(*party));
    }
    check!(enough_waits(contest), "{} attempts had to wait", WAITED.load(Ordering::Relaxed));
    Ok(())
}

fn enough_waits(contest: &Contest) -> bool {
    !contest.is_waited_for || cpus::online_count() == 1 || WAITED.load(Ordering::Relaxed) >= WAITS
}

/// A CPU's task: visits, and sees to it that the others come.
fn take_part(cpu: CpuId, contest: &Contest) {
    let counts = || (Native::context().count(), Native::irq_depth());
    let before = counts();
    let online = cpus::online_count() as u64;
    let neighbour = cpus::online().find(|other| *other > cpu).unwrap_or(CpuId::BOOT);
    // All begin together: who comes first has the lock for itself.
    ARRIVED.fetch_add(1, Ordering::Relaxed);
    while ARRIVED.load(Ordering::Relaxed) < online {
        Native::relax();
    }
    let begun = Native::now_ns();
    let everybody_came = || contest.joined_by.iter().all(|party| attempts(*party) >= OTHER_VISITS);
    for time in 1.. {
        come(Party::Task);
        match time % 16 {
            0 => send_call(neighbour),
            4 => Native::raise_softirq(VECTOR),
            // One NMI at a time is remembered; another that comes meanwhile is lost, which is no harm here.
            8 if contest.joined_by.contains(&Party::Nmi) => apic::send_nmi_to_cpu(neighbour),
            _ => {}
        }
        let took = Native::now_ns() - begun;
        let enough = time >= TASK_VISITS / online || took >= LONG_ENOUGH_NS;
        let has_failed = took >= PATIENCE_NS || all_visits(Visit::Disturbed) > 0;
        if (enough && everybody_came() && enough_waits(contest)) || has_failed {
            break;
        }
    }
    if counts() != before {
        UNBALANCED.fetch_add(1, Ordering::Relaxed);
    }
}

/// What the locks protect. `a` and `b` are equal unless somebody is inside.
struct Pair {
    busy: bool,
    a: u64,
    b: u64,
}

impl Pair {
    const fn new() -> Pair {
        Pair { busy: false, a: 0, b: 0 }
    }

    /// With the right to change. The compiler must believe that others look in the middle.
    fn change(&mut self) -> Visit {
        let alone = self.is_in_order();
        let pair = black_box(self);
        pair.busy = true;
        pair.a += 1;
        let pair = black_box(pair);
        linger(pair.a);
        pair.b += 1;
        black_box(pair).busy = false;
        if alone { Visit::Changed } else { Visit::Disturbed }
    }

    /// With the right to look.
    fn look(&self) -> Visit {
        let first = black_box(self).is_in_order();
        linger(self.a);
        if first && black_box(self).is_in_order() { Visit::Looked } else { Visit::Disturbed }
    }

    fn is_in_order(&self) -> bool {
        !self.busy && self.a == self.b
    }
}

/// Stays now and then, so that others come by also where CPUs take turns on one core.
fn linger(time: u64) {
    if time.is_multiple_of(32) {
        (0..4).for_each(|_| Native::relax());
    }
}

/// Counts a wait, and goes on to wait.
fn wait<T>(wait: impl FnOnce() -> T) -> T {
    WAITED.fetch_add(1, Ordering::Relaxed);
    wait()
}

/// A visit to a spin lock of any flavour.
fn change<F: Flavor>(lock: &SpinLock<Pair, F>, party: Party) -> Visit {
    match (lock.try_lock(), party) {
        (Some(mut pair), _) => pair.change(),
        (None, Party::Nmi) => Visit::Refused,
        (None, _) => wait(|| lock.lock()).change(),
    }
}

/// The same, by a party that shows that interrupts are off.
fn change_with_proof(lock: &SpinLock<Pair, Irq>, party: Party) -> Visit {
    if party == Party::Nmi {
        return change(lock, party);
    }
    WAITED.fetch_add(u64::from(lock.is_locked()), Ordering::Relaxed);
    let quiet = irq::disable();
    lock.lock_with(&quiet).change()
}

/// Whether it is a writer's turn: one in four.
fn is_writers_turn() -> bool {
    static TURN: AtomicU32 = AtomicU32::new(0);
    TURN.fetch_add(1, Ordering::Relaxed).is_multiple_of(4)
}

/// A visit to a reader-writer lock.
fn share<F: Flavor>(lock: &RwLock<Pair, F>, party: Party, writes: bool) -> Visit {
    match (writes, party) {
        (false, Party::Nmi) => lock.try_read().map_or(Visit::Refused, |pair| pair.look()),
        (true, Party::Nmi) => lock.try_write().map_or(Visit::Refused, |mut pair| pair.change()),
        (false, _) => lock.try_read().unwrap_or_else(|| wait(|| lock.read())).look(),
        (true, _) => lock.try_write().unwrap_or_else(|| wait(|| lock.write())).change(),
    }
}

/// The data of sequence locks: all alike, and too many for one instruction.
type Row = [u64; 16];

fn look_at(row: Row) -> Visit {
    if row.iter().all(|value| *value == row[0]) { Visit::Looked } else { Visit::Disturbed }
}

/// With the right to write.
fn change_row(row: &mut Row) -> Visit {
    let alone = look_at(*row) == Visit::Looked;
    linger(row[0]);
    row.iter_mut().for_each(|value| *value += 1);
    if alone { Visit::Changed } else { Visit::Disturbed }
}

/// A visit to a sequence lock.
fn sequence<F: Flavor>(lock: &SeqLock<Row, F>, party: Party, writes: bool) -> Visit {
    match (writes, party) {
        // It may have hit the writer.
        (_, Party::Nmi) => lock.try_read().map_or(Visit::Refused, look_at),
        (false, _) => look_at(lock.read()),
        (true, _) => change_row(&mut lock.try_write().unwrap_or_else(|| wait(|| lock.write()))),
    }
}

/// A visit to a latch.
fn latch<F: Flavor>(latch: &Latch<Row, F>, writes: bool) -> Visit {
    match writes {
        false => look_at(latch.read()),
        true => change_row(&mut latch.try_write().unwrap_or_else(|| wait(|| latch.write()))),
    }
}

/// Declares tests, each a contest over a lock of its own: who joins, the lock, and how it is visited.
macro_rules! contests {
    (most_cpus = $most:expr; $(fn $name:ident($($joined:ident),*): $Lock:ty = $new:expr, |$lock:ident, $party:ident| $visit:expr, $changes:expr;)*) => {$(
        kernel_test! {
            limit_ms = 60_000,
            fn $name() {
                static LOCK: $Lock = $new;
                static IT: Contest = Contest {
                    joined_by: &[$(Party::$joined),*],
                    visit: |$party| { let $lock = &LOCK; $visit },
                    changes: || { let $lock = &LOCK; $changes },
                    is_waited_for: true,
                    most_cpus: $most,
                };
                hold(&IT)
            }
        }
    )*};
}

contests! {
    most_cpus = usize::MAX;
    fn a_task_lock(Nmi): SpinLock<Pair, Task> = SpinLock::new(Pair::new()),
        |lock, party| change(lock, party), lock.lock().a;
    fn a_bottom_half_lock(Softirq): SpinLock<Pair, BottomHalf> = SpinLock::new(Pair::new()),
        |lock, party| change(lock, party), lock.lock().a;
    fn an_interrupt_lock(Softirq, Timer, Call, Nmi): SpinLock<Pair, Irq> = SpinLock::new(Pair::new()),
        |lock, party| change(lock, party), lock.lock().a;
    fn an_interrupt_lock_by_proof(Softirq, Timer, Call, Nmi): SpinLock<Pair, Irq> = SpinLock::new(Pair::new()),
        |lock, party| change_with_proof(lock, party), lock.lock().a;
    fn a_reader_writer_lock(Nmi): RwLock<Pair, Task> = RwLock::new(Pair::new()),
        |lock, party| share(lock, party, is_writers_turn()), lock.read().a;
    fn a_reader_writer_lock_of_bottom_halves(Softirq): RwLock<Pair, BottomHalf> = RwLock::new(Pair::new()),
        |lock, party| share(lock, party, is_writers_turn()), lock.read().a;
    fn a_reader_writer_lock_of_interrupts(Softirq, Timer, Call, Nmi): IrqRwLock<Pair> = RwLock::new(Pair::new()),
        |lock, party| share(lock, party, is_writers_turn()), lock.read().a;
    fn readers_with_interrupts_on(Softirq, Timer, Call, Nmi): IrqRwLock<Pair> = RwLock::new(Pair::new()),
        |lock, party| match party {
            Party::Task if !is_writers_turn() => lock.read_irqs_on().look(),
            _ => share(lock, party, party == Party::Task),
        },
        lock.read().a;
    fn a_sequence_lock(Nmi): SeqLock<Row, Task> = SeqLock::new([0; 16]),
        |lock, party| sequence(lock, party, is_writers_turn()), lock.read()[0];
    fn a_sequence_lock_of_bottom_halves(Softirq): SeqLock<Row, BottomHalf> = SeqLock::new([0; 16]),
        |lock, party| sequence(lock, party, is_writers_turn()), lock.read()[0];
    fn a_sequence_lock_of_interrupts(Softirq, Timer, Call, Nmi): IrqSeqLock<Row> = SeqLock::new([0; 16]),
        |lock, party| sequence(lock, party, is_writers_turn()), lock.read()[0];
    fn a_latch(Softirq, Timer, Call, Nmi): Latch<Row, Task> = Latch::new([0; 16]),
        |lock, party| latch(lock, party == Party::Task && is_writers_turn()), lock.read()[0];
    fn a_latch_of_interrupts(Softirq, Timer, Call, Nmi): Latch<Row, Irq> = Latch::new([0; 16]),
        |lock, party| latch(lock, party != Party::Nmi && is_writers_turn()), lock.read()[0];
}

// Locks that are handed on in order of arrival, sooner or later to a CPU that the host does not run.
contests! {
    most_cpus = 4;
    fn a_task_lock_with_tickets(Nmi): SpinLock<Pair, Ticketed<Task>> = SpinLock::new(Pair::new()),
        |lock, party| change(lock, party), lock.lock().a;
    fn a_task_lock_with_a_queue(Nmi): SpinLock<Pair, Queued<Task>> = SpinLock::new(Pair::new()),
        |lock, party| change(lock, party), lock.lock().a;
    fn a_bottom_half_lock_with_a_queue(Softirq): SpinLock<Pair, Queued<BottomHalf>> = SpinLock::new(Pair::new()),
        |lock, party| change(lock, party), lock.lock().a;
    fn an_interrupt_lock_with_tickets(Softirq, Timer, Call, Nmi): SpinLock<Pair, Ticketed<Irq>> =
        SpinLock::new(Pair::new()),
        |lock, party| change(lock, party), lock.lock().a;
    fn an_interrupt_lock_with_a_queue(Softirq, Timer, Call, Nmi): SpinLock<Pair, Queued<Irq>> =
        SpinLock::new(Pair::new()),
        |lock, party| change(lock, party), lock.lock().a;
}

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
