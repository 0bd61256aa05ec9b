//! Flushing on this machine's CPUs.

use core::ops::Range;

use hal::cpumask::AtomicCpuMask;
use hal::platform::{Report, Severity};
use hal::x86_64::{apic, paging, vectors};
use hal::{CpuId, Native, Platform};

use super::{Machine, Shootdown, ShootdownStats};

static SHOOTDOWN: Shootdown = Shootdown::new();

/// The CPUs that are asked to flush. A CPU that goes off-line touches memory for some time after it has stopped being
/// online, and is asked until it touches none.
static ASKED: AtomicCpuMask = AtomicCpuMask::new();

/// How long a CPU may take to answer before it is reported. Long, because its host thread may be waiting for a core.
const PATIENCE_NS: u64 = 10_000_000_000;

/// The CPUs, seen from one that the caller is pinned to.
struct Cpus {
    here: CpuId,
    waiting_since: core::cell::Cell<u64>,
}

impl Cpus {
    /// The caller stays on this CPU while it uses the value.
    fn pinned() -> Cpus {
        Cpus { here: Native::cpu(), waiting_since: core::cell::Cell::new(0) }
    }
}

impl Machine for Cpus {
    fn here(&self) -> usize {
        self.here.index()
    }

    fn others(&self, visit: &mut dyn FnMut(usize)) {
        (0..Native::cpu_count())
            .filter_map(CpuId::new)
            .filter(|cpu| *cpu != self.here && ASKED.test(*cpu))
            .for_each(|cpu| visit(cpu.index()));
    }

    fn interrupt(&self, cpu: usize) {
        if let Some(cpu) = CpuId::new(cpu as u32) {
            apic::send_ipi_to_cpu(cpu, vectors::TLB);
        }
    }

    fn flush(&self, range: Range<u64>) {
        paging::flush(range);
    }

    fn wait(&self, cpu: usize, turn: u64) -> bool {
        Native::relax();
        if turn == 0 {
            self.waiting_since.set(Native::now_ns());
        } else if turn.is_multiple_of(1024) {
            let id = CpuId::new(cpu as u32).unwrap_or(CpuId::BOOT);
            if !ASKED.test(id) {
                return false;
            }
            if Native::now_ns() - self.waiting_since.get() > PATIENCE_NS {
                Native::report(&Report {
                    severity: Severity::Bug,
                    message: format_args!(
                        "CPU#{cpu} has not answered a TLB flush for {} s",
                        PATIENCE_NS / 1_000_000_000
                    ),
                    location: core::panic::Location::caller(),
                });
                self.waiting_since.set(Native::now_ns());
                self.interrupt(cpu);
            }
        }
        true
    }

    fn relax(&self) {
        Native::chaos_point();
        Native::relax();
    }

    fn uninterrupted(&self, work: &mut dyn FnMut()) {
        let _off = sync::irq::disable();
        work();
    }
}

/// Returns after every online CPU has forgotten its translations of `range`.
///
/// Contexts, cost and conditions: [`Shootdown::flush`].
pub fn flush_everywhere(range: Range<u64>) {
    let _pinned = sync::preempt::disable();
    SHOOTDOWN.flush(&Cpus::pinned(), range);
}

/// Returns after every online CPU has executed a full fence. The dear half of an asymmetric fence.
pub fn fence_all() {
    flush_everywhere(0..0);
}

/// The executing CPU is asked from here on. What it learnt before then was not flushed with the others, and it forgets it.
pub fn arrive_here() {
    let pinned = sync::preempt::disable();
    ASKED.set(pinned.cpu());
    // Pairs with the fence in `Shootdown::lead`: either the leader saw this CPU among those to ask, or this CPU sees the
    // tables as the leader's requesters left them.
    core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
    paging::flush_all();
    // Who asked this CPU right before it left has sent no interrupt, and may have noticed neither that it left nor that it
    // is back: then it waits for an answer. By the fences, either it is answered here, or its interrupt comes.
    SHOOTDOWN.serve(&Cpus::pinned());
}

/// The executing CPU is no longer asked, and forgets what it knows when it arrives anew. Interrupts are off, and it touches
/// nothing but what is never unmapped.
pub fn leave_here() {
    ASKED.clear(Native::cpu());
    // Whoever saw this CPU among those to ask need not wait for long.
    handle_shootdown_ipi();
}

/// The handler of [`vectors::TLB`]. Interrupts are off.
pub fn handle_shootdown_ipi() {
    SHOOTDOWN.serve(&Cpus::pinned());
}

/// A CPU has spun for a while, perhaps for a lock whose holder waits for this CPU's answer: gives it, where the interrupt
/// cannot come. Contexts: any.
pub fn serve_while_spinning() {
    // With interrupts on the interrupt does it, and only with them off does the caller stay on its CPU. An NMI may have hit
    // the handler.
    if Native::irq_depth() > 0 && !Native::context().in_nmi() {
        SHOOTDOWN.serve(&Cpus::pinned());
    }
}

/// What was done since boot.
pub fn stats() -> ShootdownStats {
    SHOOTDOWN.stats()
}
