//! The CPUs as the kernel knows them: who exists, who is online, and how to have all of them run something.

use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use alloc::vec::Vec;
use hal::cpumask::AtomicCpuMask;
use hal::x86_64::{native, smp};
use hal::{CpuId, Native, Platform, percpu};
use spin::Once;
use sync::IrqSpinLock;

static ONLINE: AtomicCpuMask = AtomicCpuMask::new();

/// APIC ids by CPU number.
static APIC_IDS: Once<Vec<u32>> = Once::new();

/// Nanoseconds from the first clock reading to "all online", 0 before.
static ALL_ONLINE_AT: AtomicU64 = AtomicU64::new(0);

/// Whether `cpu` runs and takes interrupts.
pub fn is_online(cpu: CpuId) -> bool {
    ONLINE.test(cpu)
}

/// The CPUs that run, in order. May change while it is used only during boot.
pub fn online() -> impl Iterator<Item = CpuId> {
    percpu::cpus().filter(|cpu| is_online(*cpu))
}

/// How many CPUs run.
pub fn online_count() -> usize {
    online().count()
}

/// The hardware's name of `cpu`.
pub fn apic_id(cpu: CpuId) -> Option<u32> {
    APIC_IDS.get()?.get(cpu.index()).copied()
}

/// What `cpu` is doing at large, in a word.
pub fn state_name(cpu: CpuId) -> &'static str {
    if is_online(cpu) {
        return "online";
    }
    match smp::state(cpu) {
        smp::State::Absent => "offline",
        smp::State::Starting | smp::State::Alive => "starting",
        smp::State::GivenUp => "did not answer",
    }
}

/// When all CPUs were online, in nanoseconds of the monotonic clock.
pub fn all_online_at_ns() -> u64 {
    ALL_ONLINE_AT.load(Ordering::Relaxed)
}

pub(crate) fn set_apic_ids(ids: Vec<u32>) {
    APIC_IDS.call_once(|| ids);
}

pub(crate) fn set_online(cpu: CpuId) {
    ONLINE.set(cpu);
}

pub(crate) fn note_all_online() {
    ALL_ONLINE_AT.store(Native::now_ns(), Ordering::Relaxed);
}

/// Something that every CPU runs once.
struct Job<'a> {
    work: &'a (dyn Fn(CpuId) + Sync),
    left: AtomicU32,
}

percpu! {
    /// The job that this CPU has not run yet.
    static JOB: AtomicPtr<Job<'static>> = AtomicPtr::new(core::ptr::null_mut());
}

/// Runs `work` on every online CPU at about the same time, in task context with interrupts on, and returns when all are
/// done. The caller's CPU takes its part.
///
/// For the boot CPU's task, one at a time: the other CPUs do nothing else.
pub fn run_on_all(work: &(dyn Fn(CpuId) + Sync)) {
    let me = Native::cpu();
    let others: Vec<CpuId> = online().filter(|cpu| *cpu != me).collect();
    let mut job = Job { work, left: AtomicU32::new(others.len() as u32) };
    let shared: *mut Job<'_> = &mut job;
    for cpu in &others {
        // Release: pairs with the Acquire in `run_pending`; the CPU sees the job's fields. The lifetime is extended
        // only in the pointer's type: this function does not return before everybody has let go of it.
        Native::chaos_point();
        let before = JOB.on(*cpu).swap(shared.cast(), Ordering::AcqRel);
        assert!(before.is_null(), "run_on_all is running already");
        Native::kick(*cpu);
    }
    work(me);
    // SAFETY: `job` lives until the end of this function, and only shared references to it are made.
    let left = unsafe { &(*shared).left };
    // Acquire: pairs with the Release in `run_pending`; what the others did is visible to our caller.
    while left.load(Ordering::Acquire) != 0 {
        Native::chaos_point();
        crate::log::drain();
        Native::relax();
    }
}

/// Runs `work` on `cpu` and returns its result, under the conditions of [`run_on_all`].
///
/// # Panics
/// If `cpu` is not online.
pub fn run_on<R: Send>(cpu: CpuId, work: impl Fn() -> R + Sync) -> R {
    let result: IrqSpinLock<Option<R>> = IrqSpinLock::new(None);
    run_on_all(&|here| {
        if here == cpu {
            let value = work();
            *result.lock() = Some(value);
        }
    });
    match result.into_inner() {
        Some(value) => value,
        None => panic!("CPU {cpu} is not online"),
    }
}

/// Runs this CPU's job if it has one.
fn run_pending() -> bool {
    // SAFETY: an idle loop never leaves its CPU; areas live for ever.
    let slot = unsafe { &*JOB.local_ptr() };
    // Acquire: pairs with the Release in `run_on_all`.
    let job = slot.swap(core::ptr::null_mut(), Ordering::AcqRel);
    if job.is_null() {
        return false;
    }
    // SAFETY: `run_on_all` waits until `left` is 0, which happens below, after the last use.
    let job = unsafe { &*job };
    Native::chaos_point();
    (job.work)(Native::cpu());
    Native::chaos_point();
    // Release: pairs with the Acquire in `run_on_all`. Nothing of the job is touched after.
    job.left.fetch_sub(1, Ordering::Release);
    true
}

/// What a CPU without a task of its own does: jobs, and halting in between.
pub(crate) fn idle() -> ! {
    loop {
        if run_pending() {
            continue;
        }
        crate::log::drain();
        Native::chaos_point();
        Native::irq_disable();
        // With interrupts off: a job that comes from here on comes with an interrupt that ends the halt.
        // SAFETY: as in `run_pending`.
        let empty = unsafe { &*JOB.local_ptr() }.load(Ordering::Relaxed).is_null();
        if empty {
            native::enable_and_wait();
        } else {
            Native::irq_enable();
        }
    }
}
