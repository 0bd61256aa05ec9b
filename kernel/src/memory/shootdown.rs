//! Making every CPU forget translations that changed.
//!
//! A CPU keeps translations in its TLB and asks nobody before using them. Who takes a mapping away must therefore
//! interrupt all CPUs and wait until each has flushed, and only then may reuse the memory.
//!
//! 1. Who wants a flush adds its range to `wanted` and takes a cookie from the sequence of *rounds*: it names the first
//!    round that is sure to begin after now.
//! 2. Whoever gets the leader's flag runs a round for everybody: takes all of `wanted`, interrupts all other CPUs,
//!    waits for their answers. So many who unmap at once share one round, and wait for at most two.
//! 3. Whoever waits, for the flag or for its round, looks whether it is asked to flush itself. CPUs that wait for each
//!    other with interrupts off so get on.
//!
//! The leader's interrupts are off, because an interrupt handler on the same CPU that wanted a flush would wait for it
//! for ever. A CPU that spins for a lock with interrupts off answers from within its wait, every thousand turns: the
//! lock's holder may be the one who waits for the answer.
//!
//! [`Shootdown`] knows CPUs by number, and the machine through [`Machine`]. Linux: `flush_tlb_kernel_range`,
//! `smp_call_function_many`.

use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

use hal::MAX_CPUS;
use rcu::seq::Sequence;
use sync::IrqSpinLock;

/// The most ranges that are told apart in one round; more flush everything.
const MAX_RANGES: usize = 4;
/// Everything.
const ALL: Range<u64> = 0..u64::MAX;

/// What a flush needs from the CPUs. The calling execution stays on its CPU, `here`, throughout.
pub trait Machine {
    /// The executing CPU.
    fn here(&self) -> usize;
    /// Calls `visit` for each CPU that may hold translations now, except the executing one. A CPU that is not visited
    /// flushes everything before it next uses a translation, and calls [`Shootdown::serve`] after it is visited again.
    fn others(&self, visit: &mut dyn FnMut(usize));
    /// Makes `cpu` call [`Shootdown::serve`] soon. What was stored before is visible there.
    fn interrupt(&self, cpu: usize);
    /// Forgets the executing CPU's translations of these addresses.
    fn flush(&self, range: Range<u64>);
    /// One turn of waiting for `cpu` to answer. False gives up, because the CPU has gone off-line.
    fn wait(&self, cpu: usize, turn: u64) -> bool;
    /// One turn of waiting for a round.
    fn relax(&self);
    /// Runs `work` with interrupts off.
    fn uninterrupted(&self, work: &mut dyn FnMut());
}

/// Addresses to flush: a few ranges, or everything.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    starts: [u64; MAX_RANGES],
    ends: [u64; MAX_RANGES],
    count: usize,
}

impl Wanted {
    const NOTHING: Wanted = Wanted { starts: [0; MAX_RANGES], ends: [0; MAX_RANGES], count: 0 };

    fn add(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        if let Some(i) =
            (0..self.count).find(|i| self.starts[*i] <= range.end && range.start <= self.ends[*i])
        {
            self.starts[i] = self.starts[i].min(range.start);
            self.ends[i] = self.ends[i].max(range.end);
        } else if self.count < MAX_RANGES {
            (self.starts[self.count], self.ends[self.count]) = (range.start, range.end);
            self.count += 1;
        } else {
            (self.starts[0], self.ends[0], self.count) = (ALL.start, ALL.end, 1);
        }
    }
}

/// The state that CPUs share. One for the system.
#[derive(Debug)]
pub struct Shootdown {
    rounds: Sequence,
    /// Somebody runs a round.
    leading: AtomicBool,
    wanted: IrqSpinLock<Wanted>,
    /// The present round's ranges. Written by the leader while no CPU is asked.
    starts: [AtomicU64; MAX_RANGES],
    ends: [AtomicU64; MAX_RANGES],
    /// For each CPU the number of the round that it is asked to flush for, 0 once it has.
    asked: [AtomicU64; MAX_CPUS],
    /// Rounds begun, which numbers them. Written by the leader.
    count: AtomicU64,
    requests: AtomicU64,
}

/// How much was done since boot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShootdownStats {
    /// Flushes that were asked for.
    pub requests: u64,
    /// Rounds of interrupts that served them.
    pub rounds: u64,
}

impl Shootdown {
    /// No round has begun.
    pub const fn new() -> Shootdown {
        Shootdown {
            rounds: Sequence::new(),
            leading: AtomicBool::new(false),
            wanted: IrqSpinLock::new(Wanted::NOTHING),
            starts: [const { AtomicU64::new(0) }; MAX_RANGES],
            ends: [const { AtomicU64::new(0) }; MAX_RANGES],
            asked: [const { AtomicU64::new(0) }; MAX_CPUS],
            count: AtomicU64::new(0),
            requests: AtomicU64::new(0),
        }
    }

    /// Returns after every CPU has forgotten its translations of `range`, as they were before the call; with an empty
    /// range, after every CPU has executed a full fence.
    ///
    /// Contexts: any but NMI, with interrupts on or off; spins. Cost: one interrupt for each CPU and the time until the
    /// slowest has answered, twice if a round is under way.
    pub fn flush(&self, machine: &impl Machine, range: Range<u64>) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        machine.flush(range.clone());
        // The lock orders the caller's change of tables before the leader's taking of the range.
        self.wanted.lock().add(range);
        let cookie = self.rounds.snapshot();
        while !self.rounds.done(cookie) {
            let mut led = false;
            machine.uninterrupted(&mut || led = self.try_lead(machine, || !self.rounds.done(cookie)));
            if !led {
                self.serve(machine);
                machine.relax();
            }
        }
        // Pairs with the fence in `serve`: what other CPUs did before they answered comes before what the caller does.
        fence(Ordering::SeqCst);
    }

    /// Does what this CPU is asked to, if it is. For the interrupt handler, and for long waits with interrupts off.
    ///
    /// Contexts: any but NMI. May be interrupted by itself.
    pub fn serve(&self, machine: &impl Machine) {
        let asked = &self.asked[machine.here()];
        // Acquire: pairs with the Release in `lead`; who is asked sees the round's ranges and the changed tables.
        let round = asked.load(Ordering::Acquire);
        if round == 0 {
            return;
        }
        for (start, end) in self.starts.iter().zip(&self.ends) {
            machine.flush(start.load(Ordering::Relaxed)..end.load(Ordering::Relaxed));
        }
        fence(Ordering::SeqCst);
        // An interrupt may have served this round in the middle of the above, and the next may have begun, with other
        // ranges: then the number has changed, and that round is answered by its own interrupt. If it has not, the
        // ranges were this round's, because the leader waits for us before it changes them.
        // Release: pairs with the Acquire in `lead`; the leader goes on after our flush.
        let _ = asked.compare_exchange(round, 0, Ordering::Release, Ordering::Relaxed);
    }

    /// What was done since boot.
    pub fn stats(&self) -> ShootdownStats {
        ShootdownStats {
            requests: self.requests.load(Ordering::Relaxed),
            rounds: self.count.load(Ordering::Relaxed),
        }
    }

    /// Runs a round if nobody else does and `needed` still says so. Returns whether this CPU got the flag.
    fn try_lead(&self, machine: &impl Machine, needed: impl Fn() -> bool) -> bool {
        // Acquire: pairs with the Release below; rounds come one after the other.
        if self.leading.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
            return false;
        }
        if needed() {
            self.lead(machine);
        }
        self.leading.store(false, Ordering::Release);
        true
    }

    /// One round, by the owner of the leader's flag.
    fn lead(&self, machine: &impl Machine) {
        let round = self.count.load(Ordering::Relaxed) + 1;
        self.count.store(round, Ordering::Relaxed);
        self.rounds.start();
        // Taken after the start: whoever added a range before it has a cookie that this round satisfies, and who came
        // later is served early.
        let wanted = core::mem::replace(&mut *self.wanted.lock(), Wanted::NOTHING);
        for i in 0..MAX_RANGES {
            self.starts[i].store(wanted.starts[i], Ordering::Relaxed);
            self.ends[i].store(wanted.ends[i], Ordering::Relaxed);
        }
        machine.others(&mut |cpu| {
            // Release: pairs with the Acquire in `serve`.
            self.asked[cpu].store(round, Ordering::Release);
        });
        // Before the interrupts: a CPU that is not among the others yet sees the changed tables when it comes.
        fence(Ordering::SeqCst);
        machine.others(&mut |cpu| {
            if self.asked[cpu].load(Ordering::Relaxed) == round {
                machine.interrupt(cpu);
            }
        });
        for i in 0..wanted.count {
            machine.flush(wanted.starts[i]..wanted.ends[i]);
        }
        for (cpu, asked) in self.asked.iter().enumerate() {
            let mut turn = 0;
            // Acquire: pairs with the Release in `serve`.
            while asked.load(Ordering::Acquire) == round {
                if !machine.wait(cpu, turn) {
                    asked.store(0, Ordering::Relaxed);
                    break;
                }
                turn += 1;
            }
        }
        self.rounds.end();
    }
}

impl Default for Shootdown {
    fn default() -> Shootdown {
        Shootdown::new()
    }
}

#[cfg(target_os = "none")]
mod live;
#[cfg(target_os = "none")]
pub use live::{
    arrive_here, fence_all, flush_everywhere, handle_shootdown_ipi, leave_here, serve_while_spinning, stats,
};

#[cfg(test)]
mod tests;
