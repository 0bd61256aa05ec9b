//! The shortest paths, each as a function of its own, so that the machine code can be looked at.
//!
//! `cargo xtask test-smp` decodes these functions in the finished kernel and counts their instructions. Nothing calls
//! them.

use core::sync::atomic::AtomicU64;

use ::rcu::RcuBox;
use hal::x86_64::fpu::FpuGuard;
use hal::{Native, Platform, percpu};
use sync::{IrqSeqLock, Latch, PreemptGuard};

use crate::rcu::RcuOption;

percpu! {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
}

/// Keeps the functions in the image.
#[used]
static SEQLOCK_READER: fn(&IrqSeqLock<[u64; 3]>) -> u64 = hot_seqlock_try_read;
/// Keeps the functions in the image.
#[used]
static LATCH_READER: fn(&Latch<[u64; 3]>) -> u64 = hot_latch_read;

/// Keeps the functions in the image.
#[used]
static RCU_READER: for<'g> fn(&'g RcuOption<RcuBox<u64>>, &'g PreemptGuard) -> Option<&'g u64> =
    hot_rcu_load_without_preemption;

/// Keeps the functions in the image.
#[used]
static FUNCTIONS: [extern "C" fn(); 9] = [
    hot_percpu_increment,
    hot_preempt_disable,
    hot_preempt_enable,
    hot_preempt_guard,
    hot_bh_guard,
    hot_irq_guard,
    hot_rcu_section,
    hot_vector_section,
    hot_trace_point,
];

#[unsafe(no_mangle)]
extern "C" fn hot_percpu_increment() {
    COUNTER.inc();
}

#[unsafe(no_mangle)]
extern "C" fn hot_preempt_disable() {
    Native::preempt_disable();
}

#[unsafe(no_mangle)]
extern "C" fn hot_preempt_enable() {
    Native::preempt_enable();
}

#[unsafe(no_mangle)]
extern "C" fn hot_preempt_guard() {
    drop(sync::preempt::disable());
}

#[unsafe(no_mangle)]
extern "C" fn hot_rcu_section() {
    drop(crate::rcu::read());
}

#[unsafe(no_mangle)]
fn hot_rcu_load_without_preemption<'g>(
    pointer: &'g RcuOption<RcuBox<u64>>,
    guard: &'g PreemptGuard,
) -> Option<&'g u64> {
    pointer.load(guard)
}

#[unsafe(no_mangle)]
extern "C" fn hot_bh_guard() {
    drop(sync::bh::disable());
}

#[unsafe(no_mangle)]
extern "C" fn hot_irq_guard() {
    drop(sync::irq::disable());
}

#[unsafe(no_mangle)]
extern "C" fn hot_vector_section() {
    drop(FpuGuard::begin());
}

#[unsafe(no_mangle)]
extern "C" fn hot_trace_point() {
    crate::trace::irq_enter(0x20);
}

#[unsafe(no_mangle)]
fn hot_seqlock_try_read(state: &IrqSeqLock<[u64; 3]>) -> u64 {
    state.try_read().map_or(0, |[a, b, c]| a ^ b ^ c)
}

#[unsafe(no_mangle)]
fn hot_latch_read(latch: &Latch<[u64; 3]>) -> u64 {
    let [a, b, c] = latch.read();
    a ^ b ^ c
}
