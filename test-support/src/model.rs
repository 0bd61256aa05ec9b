//! The platform of models: waiting lets other threads run, fences are fences, and there is nothing else.
//!
//! What a model needs beyond that it says by a [`Model`] of its own: which CPU a thread is, or how tasks block.

use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use hal::context::{Context, NO_RESCHED_NEEDED};
use hal::platform::{CpuRecord, Priority, Report, TaskId, Wakeup};
use hal::{CpuId, Platform};
#[cfg(loom)]
use loom::thread::yield_now;
#[cfg(shuttle)]
use shuttle::thread::yield_now;

/// What is special about a model's platform.
///
/// By default CPUs are not told apart, all threads are one task, and nobody blocks.
///
/// # Safety
/// What is implemented keeps the contract of the function of the same name in [`Platform`], for threads that nothing
/// interrupts or preempts between two operations that the model checker sees.
pub unsafe trait Model: 'static {
    /// [`Platform::cpu`].
    fn cpu() -> CpuId {
        CpuId::BOOT
    }

    /// [`Platform::cpu_count`].
    fn cpu_count() -> u32 {
        1
    }

    /// [`Platform::current_task`].
    fn current_task() -> TaskId {
        task_named(0)
    }

    /// [`Platform::running_on`].
    fn running_on(_cpu: CpuId) -> Option<TaskId> {
        None
    }

    /// [`Platform::block`].
    fn block(_deadline_ns: Option<u64>) -> Wakeup {
        unreachable!("nobody blocks in these models");
    }

    /// [`Platform::wake`].
    fn wake(_task: TaskId) -> bool {
        unreachable!("nobody blocks in these models");
    }

    /// [`Platform::priority_of`].
    fn priority_of(_task: TaskId) -> Priority {
        Priority::LEAST
    }

    /// [`Platform::set_inherited_priority`].
    fn set_inherited_priority(_task: TaskId, _priority: Priority) {}

    /// [`Platform::inheritance`].
    fn inheritance(_task: TaskId) -> Option<NonNull<()>> {
        None
    }
}

/// The name of task `number`.
pub fn task_named(number: usize) -> TaskId {
    TaskId(NonZeroUsize::new((number + 1) * TaskId::ALIGN).expect("is positive"))
}

/// The number of the task of that name.
pub fn number_of(task: TaskId) -> usize {
    task.0.get() / TaskId::ALIGN - 1
}

#[cfg(loom)]
fn fence() {
    loom::sync::atomic::fence(loom::sync::atomic::Ordering::SeqCst);
}

/// All of shuttle's executions are sequentially consistent.
#[cfg(shuttle)]
fn fence() {}

/// The platform of a model.
#[derive(Debug)]
pub struct Modelled<M>(PhantomData<M>);

// SAFETY: by the contract of `Model`; the rest is neither interrupted nor preempted, and has no records.
unsafe impl<M: Model> Platform for Modelled<M> {
    fn cpu() -> CpuId {
        M::cpu()
    }

    fn cpu_count() -> u32 {
        M::cpu_count()
    }

    fn is_online(_: CpuId) -> bool {
        true
    }

    fn kick(_: CpuId) {}

    fn context() -> Context {
        Context::from_word(NO_RESCHED_NEEDED)
    }

    fn preempt_add(_: u32) {}

    fn preempt_sub(_: u32) {}

    fn preempt_enable() {}

    fn set_need_resched(_: CpuId) {}

    fn clear_need_resched() {}

    fn irq_disable() {}

    fn irq_enable() -> bool {
        true
    }

    fn irq_depth() -> u32 {
        0
    }

    fn relax() {
        yield_now();
    }

    fn chaos_point() {}

    fn now_ns() -> u64 {
        0
    }

    fn fence_light() {
        // Pairs with the one in `fence_heavy`.
        fence();
    }

    fn fence_heavy() {
        // Pairs with the one in `fence_light`.
        fence();
    }

    fn record() -> NonNull<CpuRecord> {
        unreachable!("models need no record");
    }

    fn record_of(_: CpuId) -> NonNull<CpuRecord> {
        unreachable!("models need no record");
    }

    fn current_task() -> TaskId {
        M::current_task()
    }

    fn running_on(cpu: CpuId) -> Option<TaskId> {
        M::running_on(cpu)
    }

    fn check_resched() {}

    fn block(deadline_ns: Option<u64>) -> Wakeup {
        M::block(deadline_ns)
    }

    unsafe fn wake(task: TaskId) -> bool {
        M::wake(task)
    }

    unsafe fn priority_of(task: TaskId) -> Priority {
        M::priority_of(task)
    }

    unsafe fn set_inherited_priority(task: TaskId, priority: Priority) {
        M::set_inherited_priority(task, priority);
    }

    unsafe fn inheritance(task: TaskId) -> Option<NonNull<()>> {
        M::inheritance(task)
    }

    fn raise_softirq(_: u32) {}

    fn serve_softirqs() {}

    fn report(report: &Report<'_>) {
        panic!("{report}");
    }
}
