//! [`Native`] in a build that has no machine of ours.
//!
//! Crates above name `Native` as the default of their type parameters, and the compiler wants it to be a platform even
//! where everybody names another. So it is one, of which nothing can be compiled into a program: each function's body is
//! an error that appears when, and only when, somebody calls it.

use core::ptr::NonNull;

use crate::CpuId;
use crate::context::Context;
use crate::platform::{CpuRecord, Native, Platform, Report, TaskId, Wakeup};

/// Compiles as part of a library; is an error in a program that gets here.
///
/// Not inlined, because the compiler looks at the constants of what it inlines before it knows whether anybody calls it.
#[inline(never)]
fn no_machine<T>() -> T {
    // It depends on `T` in name only, which puts its evaluation off until the function is compiled for a caller.
    const {
        panic!(
            "`hal::Native` is used in a build without hal's feature `machine`: name your own platform \
             (`Cpu::<Yours>::..`, `SpinLock<T, Task<Yours>>`), or turn the feature on"
        )
    }
}

/// Functions of the contract whose bodies are errors. `inline` keeps them from being compiled before they are called.
macro_rules! absent {
    ($(fn $name:ident($($argument:ident: $Argument:ty),*) $(-> $Result:ty)?;)*) => {$(
        #[inline]
        fn $name($($argument: $Argument),*) $(-> $Result)? {
            $(let _ = $argument;)*
            no_machine()
        }
    )*};
}

// SAFETY: no function of it exists in a program, so none breaks a promise there.
unsafe impl Platform for Native {
    absent! {
        fn cpu() -> CpuId;
        fn cpu_count() -> u32;
        fn is_online(cpu: CpuId) -> bool;
        fn kick(cpu: CpuId);
        fn context() -> Context;
        fn preempt_add(units: u32);
        fn preempt_sub(units: u32);
        fn preempt_enable();
        fn set_need_resched(cpu: CpuId);
        fn clear_need_resched();
        fn irq_disable();
        fn irq_enable() -> bool;
        fn irq_depth() -> u32;
        fn relax();
        fn chaos_point();
        fn now_ns() -> u64;
        fn fence_light();
        fn fence_heavy();
        fn record() -> NonNull<CpuRecord>;
        fn record_of(cpu: CpuId) -> NonNull<CpuRecord>;
        fn current_task() -> TaskId;
        fn check_resched();
        fn block(deadline_ns: Option<u64>) -> Wakeup;
        fn raise_softirq(vector: u32);
        fn serve_softirqs();
        fn report(report: &Report<'_>);
    }

    #[inline]
    unsafe fn wake(_: TaskId) -> bool {
        no_machine()
    }
}
