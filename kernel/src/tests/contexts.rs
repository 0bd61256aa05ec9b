//! Contexts and guards on the machine: what interrupts see, when softirqs run, when a reschedule happens.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use hal::context::{HARDIRQ_UNIT, NMI_UNIT, PREEMPT_UNIT, SOFTIRQ_DISABLE_UNIT, SOFTIRQ_UNIT};
use hal::x86_64::apic;
use hal::{CpuId, Native, Platform, percpu};
use sync::{BhGuard, IrqGuard, LocalLock, PreemptGuard, SpinLock, bh, context, irq, preempt};

use crate::sched::RESCHEDULES;
use crate::softirq::{Handler, Vector};
use crate::testing::irq::{Source, send_call, set_hook};
use crate::testing::{Outcome, expect_report, nmi};
use crate::testing::{comes_true, comes_true_by_others, leads_through, told_after};
use crate::{check, check_eq, cpus, kernel_test, services, softirq};

/// How long to wait for what must not come: several ticks.
const A_WHILE_NS: u64 = 15_000_000;

// Hooks and handlers are one for all CPUs: a test installs its own and leaves it there, because others may need it still.
percpu! {
    /// How often this CPU ran the test's interrupt hook.
    static SEEN: AtomicU32 = AtomicU32::new(0);
    /// The preempt count there, the last time.
    static COUNT_THERE: AtomicU32 = AtomicU32::new(0);
    /// How often something was wrong there.
    static WRONG: AtomicU32 = AtomicU32::new(0);
    /// How often this CPU served the test's softirq.
    static SERVED: AtomicU32 = AtomicU32::new(0);
    /// The preempt count there, the last time.
    static COUNT_SERVING: AtomicU32 = AtomicU32::new(0);
    /// Softirqs that the timer interrupt, or the softirq itself, shall still raise on this CPU.
    static TO_RAISE: AtomicU32 = AtomicU32::new(0);
}

fn wait_a_while() {
    let end = Native::now_ns() + A_WHILE_NS;
    while Native::now_ns() < end {
        Native::relax();
    }
}

/// An interrupt hook that notes what it sees.
static LOOK: fn() = || {
    let right = context::in_hardirq()
        && !context::in_nmi()
        && !context::in_serving_softirq()
        && !context::in_task()
        && context::in_atomic()
        && context::irqs_disabled()
        && !context::preemptible();
    WRONG.add(u32::from(!right));
    COUNT_THERE.write(context::preempt_count());
    SEEN.inc();
};

/// The preempt count that the next interrupt of this CPU sees.
fn count_in_interrupt(cpu: CpuId, source: Source) -> Option<u32> {
    let before = SEEN.read();
    if source == Source::Call {
        send_call(cpu);
    }
    comes_true(|| SEEN.read() != before).then(|| COUNT_THERE.read())
}

fn interrupts_add_to_what_they_hit(cpu: CpuId, source: Source) -> Outcome {
    set_hook(source, Some(&LOOK));
    WRONG.write(0);
    check_eq!(count_in_interrupt(cpu, source), Some(HARDIRQ_UNIT));
    let here = preempt::disable();
    check_eq!(count_in_interrupt(cpu, source), Some(HARDIRQ_UNIT + PREEMPT_UNIT));
    let no_softirqs = bh::disable();
    let all = HARDIRQ_UNIT + PREEMPT_UNIT + SOFTIRQ_DISABLE_UNIT;
    check_eq!(count_in_interrupt(cpu, source), Some(all));
    drop(no_softirqs);
    drop(here);
    check_eq!(WRONG.read(), 0);
    check!(context::preemptible() && context::in_task());
    Ok(())
}

kernel_test! {
    everywhere,
    fn smoke_a_timer_interrupt_adds_to_what_it_hits(cpu) {
        interrupts_add_to_what_they_hit(cpu, Source::Timer)
    }
}

kernel_test! {
    everywhere,
    fn smoke_an_ipi_adds_to_what_it_hits(cpu) {
        interrupts_add_to_what_they_hit(cpu, Source::Call)
    }
}

kernel_test! {
    everywhere,
    fn an_nmi_adds_to_the_interrupt_it_hits(cpu) {
        // The call's handler has interrupts off; only an NMI gets in.
        static INTERRUPT_ITSELF: fn() = || {
            let before = SEEN.read();
            apic::send_nmi_to_cpu(Native::cpu());
            WRONG.add(u32::from(!comes_true(|| SEEN.read() != before)));
        };
        nmi::set_hook(Some(|_| {
            let right = context::in_nmi() && !context::in_task() && !context::preemptible();
            WRONG.add(u32::from(!right));
            COUNT_THERE.write(context::preempt_count());
            SEEN.inc();
        }));
        set_hook(Source::Call, Some(&INTERRUPT_ITSELF));
        WRONG.write(0);
        let before = SEEN.read();
        send_call(cpu);
        check!(comes_true(|| SEEN.read() != before));
        check_eq!(COUNT_THERE.read(), NMI_UNIT + HARDIRQ_UNIT);
        check_eq!(WRONG.read(), 0);
        check!(context::preemptible());
        Ok(())
    }
}

/// The vector that these tests raise.
const VECTOR: Vector = Vector::Poll;

/// Raises the softirq from the timer interrupt, as often as was asked for.
static RAISE: fn() = || {
    if TO_RAISE.read() != 0 {
        TO_RAISE.dec();
        softirq::raise(VECTOR);
    }
};

/// Serves the softirq.
static SERVE: Handler = |_| {
    let right = context::in_serving_softirq()
        && context::in_softirq()
        && !context::in_task()
        && !context::in_hardirq()
        && !context::irqs_disabled();
    WRONG.add(u32::from(!right));
    COUNT_SERVING.write(context::preempt_count());
    SERVED.inc();
};

/// Has the next timer interrupt of this CPU raise the softirq, and waits for that.
fn timer_raises() -> bool {
    TO_RAISE.write(1);
    comes_true(|| TO_RAISE.read() == 0)
}

fn prepare_softirqs() {
    softirq::set_handler(VECTOR, Some(&SERVE));
    set_hook(Source::Timer, Some(&RAISE));
    WRONG.write(0);
    TO_RAISE.write(0);
}

kernel_test! {
    everywhere,
    fn smoke_a_softirq_waits_for_the_outermost_bottom_half_guard(_) {
        prepare_softirqs();
        let before = SERVED.read();
        let outer = bh::disable();
        let inner = bh::disable();
        check!(timer_raises());
        check!(timer_raises());
        wait_a_while();
        check_eq!(SERVED.read(), before);
        drop(outer); // the older one first
        check_eq!(SERVED.read(), before);
        drop(inner);
        check_eq!(SERVED.read(), before + 1);
        // Enabling keeps the task here until the softirqs that it held up are served.
        check_eq!(COUNT_SERVING.read(), SOFTIRQ_UNIT + PREEMPT_UNIT);
        wait_a_while();
        check_eq!(SERVED.read(), before + 1);
        check_eq!(WRONG.read(), 0);
        check!(context::preemptible());
        Ok(())
    }
}

kernel_test! {
    everywhere,
    fn a_softirq_is_served_when_the_interrupt_that_raised_it_ends(_) {
        prepare_softirqs();
        let before = SERVED.read();
        check!(timer_raises());
        check_eq!(SERVED.read(), before + 1);
        check_eq!(COUNT_SERVING.read(), SOFTIRQ_UNIT);
        // Preemption off does not hold softirqs up.
        let here = preempt::disable();
        check!(timer_raises());
        check_eq!(SERVED.read(), before + 2);
        check_eq!(COUNT_SERVING.read(), SOFTIRQ_UNIT + PREEMPT_UNIT);
        drop(here);
        check_eq!(WRONG.read(), 0);
        Ok(())
    }
}

kernel_test! {
    everywhere,
    fn a_softirq_that_a_task_raises_is_served_soon(_) {
        prepare_softirqs();
        let before = SERVED.read();
        softirq::raise(VECTOR);
        check!(comes_true(|| SERVED.read() == before + 1));
        let quiet = irq::disable();
        softirq::raise(VECTOR);
        wait_a_while();
        let inside = SERVED.read();
        drop(quiet);
        check_eq!(inside, before + 1);
        check!(comes_true(|| SERVED.read() == before + 2));
        wait_a_while();
        check_eq!(SERVED.read(), before + 2);
        check_eq!(WRONG.read(), 0);
        Ok(())
    }
}

kernel_test! {
    everywhere,
    fn a_softirq_that_raises_itself_does_not_keep_the_task_out(_) {
        const TIMES: u32 = 300;
        static AGAIN: Handler = |_| {
            SERVED.inc();
            if TO_RAISE.read() != 0 {
                TO_RAISE.dec();
                softirq::raise(VECTOR);
            }
        };
        set_hook(Source::Timer, None);
        softirq::set_handler(VECTOR, Some(&AGAIN));
        let before = SERVED.read();
        let no_softirqs = bh::disable();
        TO_RAISE.write(TIMES);
        softirq::raise(VECTOR);
        drop(no_softirqs);
        // The task got here after a few rounds; the others are served by a task of their own.
        let here = SERVED.read() - before;
        check!(here >= 2 && TO_RAISE.read() != 0, "{here} times");
        check!(comes_true_by_others(|| SERVED.read() - before == TIMES + 1));
        wait_a_while();
        check_eq!(SERVED.read() - before, TIMES + 1);
        Ok(())
    }
}

/// A section that keeps the scheduler off.
#[expect(dead_code, reason = "guards are there to be dropped")]
enum Section<'a> {
    Preempt(PreemptGuard),
    Bh(BhGuard),
    Irq(IrqGuard),
    Lock(sync::spin::SpinLockGuard<'a, (), sync::Task>),
    BhLock(sync::spin::SpinLockGuard<'a, (), sync::BottomHalf>),
    IrqLock(sync::spin::SpinLockGuard<'a, (), sync::Irq>),
}

kernel_test! {
    limit_ms = 60_000,
    fn a_reschedule_ipi_inside_a_section_is_honoured_at_its_end() {
        static LOCK: SpinLock<()> = SpinLock::new(());
        static BH_LOCK: SpinLock<(), sync::BottomHalf> = SpinLock::new(());
        static IRQ_LOCK: SpinLock<(), sync::Irq> = SpinLock::new(());
        const KINDS: [fn() -> Section<'static>; 6] = [
            || Section::Preempt(preempt::disable()),
            || Section::Bh(bh::disable()),
            || Section::Irq(irq::disable()),
            || Section::Lock(LOCK.lock()),
            || Section::BhLock(BH_LOCK.lock()),
            || Section::IrqLock(IRQ_LOCK.lock()),
        ];
        /// What has been done: a section was entered (odd), the reschedule was asked for (even).
        static STEP: AtomicU32 = AtomicU32::new(0);
        static RESULTS: [AtomicU64; 6] = [const { AtomicU64::new(0) }; 6];
        let Some(other) = cpus::online().nth(1) else { crate::skip!("one CPU only") };
        let me = Native::cpu();
        STEP.store(0, Ordering::Relaxed);
        services::run_on_all(&|cpu| {
            for (kind, enter) in KINDS.iter().enumerate() {
                let entered = 2 * kind as u32 + 1;
                if cpu == me {
                    // Acquire and Release: the two CPUs take turns.
                    comes_true(|| STEP.load(Ordering::Acquire) == entered);
                    Native::set_need_resched(other);
                    STEP.store(entered + 1, Ordering::Release);
                } else if cpu == other {
                    let before = RESCHEDULES.read();
                    let section = enter();
                    STEP.store(entered, Ordering::Release);
                    comes_true(|| STEP.load(Ordering::Acquire) == entered + 1);
                    // With interrupts on, the IPI comes and leaves the request; with interrupts off it waits.
                    let came = context::irqs_disabled() || comes_true(|| Native::context().resched_due());
                    wait_a_while();
                    let inside = RESCHEDULES.read() - before;
                    drop(section);
                    let at_end = comes_true(|| RESCHEDULES.read() - before == 1);
                    wait_a_while();
                    let once = RESCHEDULES.read() - before == 1;
                    RESULTS[kind].store(
                        u64::from(came && inside == 0 && at_end && once && context::preemptible()),
                        Ordering::Relaxed,
                    );
                }
            }
        });
        for (kind, result) in RESULTS.iter().enumerate() {
            check_eq!((kind, result.load(Ordering::Relaxed)), (kind, 1));
        }
        Ok(())
    }
}

kernel_test! {
    everywhere,
    fn a_reschedule_due_in_a_section_happens_at_the_very_enable(cpu) {
        let before = RESCHEDULES.read();
        let no_softirqs = bh::disable();
        let here = preempt::disable();
        Native::set_need_resched(cpu);
        drop(here);
        check_eq!(RESCHEDULES.read(), before);
        drop(no_softirqs);
        check_eq!(RESCHEDULES.read(), before + 1);
        check!(!context::cond_resched());
        Native::set_need_resched(cpu);
        // Here, or in an interrupt that came just before.
        context::cond_resched();
        check_eq!(RESCHEDULES.read(), before + 2);
        Ok(())
    }
}

kernel_test! {
    everywhere,
    fn a_local_lock_keeps_the_timer_interrupt_out(_) {
        percpu! {
            static WORDS: LocalLock<[u64; 4], sync::Irq> = LocalLock::new([0; 4]);
        }
        static COUNT: fn() = || {
            let mut words = LocalLock::lock(&WORDS);
            WRONG.add(u32::from(words.iter().any(|word| *word != words[0])));
            words.iter_mut().for_each(|word| *word += 1);
            SEEN.inc();
        };
        WRONG.write(0);
        let before = SEEN.read();
        let sum_before = LocalLock::lock(&WORDS)[0];
        set_hook(Source::Timer, Some(&COUNT));
        let came = comes_true(|| {
            let mut words = LocalLock::lock(&WORDS);
            for word in words.iter_mut() {
                *word += 1;
                core::hint::black_box(word);
            }
            SEEN.read() - before >= 5
        });
        let rounds = LocalLock::lock(&WORDS)[0] - sum_before;
        check!(came && rounds > 5, "{rounds} rounds");
        check_eq!(WRONG.read(), 0);
        Ok(())
    }
}

#[inline(never)]
fn sleep_perhaps() {
    context::might_sleep();
    // Comes back here.
    core::hint::black_box(());
}

kernel_test! {
    fn sleeping_in_atomic_is_reported() {
        expect_report("sleeping function called from invalid context at kernel/src/tests/contexts.rs");
        let here = preempt::disable();
        sleep_perhaps();
        drop(here);
        let told = told_after("sleeping function called");
        check!(leads_through(&told, sleep_perhaps as *const ()), "{told}");
        Ok(())
    }
}
