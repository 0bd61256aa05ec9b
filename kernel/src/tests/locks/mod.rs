//! Locks where they are used: by tasks on all CPUs, and meanwhile by the interrupts that may take them.
//!
//! 1. A contest (`contest.rs`) is one lock and those who want it besides tasks. Every CPU's task takes it again and
//!    again, raises softirqs, and sends calls and NMIs to its neighbour; the timer comes by itself.
//! 2. What the lock protects (`visits.rs`) is numbers that its visitors leave equal, and find unequal if somebody else is
//!    inside.
//! 3. At the end no visit may be missing, no count left over, and everybody must have come: a contest in which nobody
//!    had to wait, or in which an interrupt never wanted the lock, has shown nothing and fails.

mod contest;
mod notes;
mod visits;

use sync::{
    BottomHalf, Irq, IrqRwLock, IrqSeqLock, Latch, Queued, RwLock, SeqLock, SpinLock, Task, Ticketed,
};

use crate::kernel_test;
use contest::{Contest, Party, hold};
use visits::{
    ByBit, Pair, Row, change, change_by_bit, change_with_proof, is_writers_turn, latch, sequence, share,
};

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
    fn a_bit_lock(Nmi): ByBit = ByBit::new(), |data, party| change_by_bit::<Task>(data, party), data.changes();
    fn a_bit_lock_of_interrupts(Softirq, Timer, Call, Nmi): ByBit = ByBit::new(),
        |data, party| change_by_bit::<Irq>(data, party), data.changes();
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
