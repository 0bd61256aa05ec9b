//! All CPUs stand still in a place that they know, while one of them works.
//!
//! 1. They gather, with interrupts on: who comes first may have to wait long, and its interrupts go on meanwhile.
//! 2. When all are there, each turns its interrupts off and says so. None waits for another one's interrupt from here on.
//! 3. When all have said so, one works, and the others look at the step until it is done.
//!
//! A CPU stands in a loop of a few instructions with interrupts off, so that the work may change what no lock protects: the
//! code itself, the set of CPUs, a clock that all read.
//!
//! Linux: `multi_cpu_stop`.

use core::marker::PhantomData;

use hal::Platform;

use crate::Cpu;
use crate::primitives::{AtomicU32, Ordering, const_fn};

/// The steps, in order.
const GATHERING: u32 = 0;
const TURNING_OFF: u32 = 1;
const WORKING: u32 = 2;
const OVER: u32 = 3;

/// How it works. A parameter only for the models.
pub(super) trait Rules {
    /// Of arriving at the end of a step.
    const ARRIVE: Ordering = Ordering::AcqRel;
    /// Whether the work waits until all interrupts are off.
    const WAIT_FOR_ALL: bool = true;
    /// Of the end of the work.
    const FINISH: Ordering = Ordering::Release;
}

impl Rules for super::queue::Sound {}

/// One meeting of a number of CPUs. Used once.
///
/// ```
/// use hal::{Native, hosted};
/// use sync::call::Rendezvous;
///
/// let meeting = Rendezvous::<Native>::new(3);
/// let answer = std::sync::Mutex::new(0);
/// hosted::run_cpus(3, |me| {
///     let work = || *answer.lock().unwrap() = 42; // with interrupts off everywhere
///     meeting.stand((me == 0).then_some(work), || ());
/// });
/// assert_eq!(answer.into_inner().unwrap(), 42);
/// ```
#[derive(Debug)]
pub struct Rendezvous<P: Platform> {
    meeting: Meeting,
    platform: PhantomData<fn() -> P>,
}

impl<P: Platform> Rendezvous<P> {
    const_fn! {
        /// A meeting of `count` CPUs.
        ///
        /// ```
        /// let meeting = sync::call::Rendezvous::<hal::Native>::new(1);
        /// let mut done = false;
        /// meeting.stand(Some(|| done = true), || ()); // all one of them are here
        /// assert!(done);
        /// ```
        pub fn new(count: u32) -> Rendezvous<P> {
            Rendezvous { meeting: Meeting::new(count), platform: PhantomData }
        }
    }

    /// Takes part: returns when the work is done. Exactly one of the participants brings the `work`, which runs on its CPU
    /// when all others stand. `turn` is called again and again while standing with interrupts off: for what a CPU must do
    /// even then, such as forgetting translations.
    ///
    /// Contexts: a task that nothing can replace, with interrupts on; each participant on a CPU of its own. The meeting may
    /// be freed when all participants have returned.
    ///
    /// ```
    /// # use hal::{Native, hosted};
    /// use sync::context::irqs_disabled;
    /// let meeting = sync::call::Rendezvous::<Native>::new(2);
    /// hosted::run_cpus(2, |me| {
    ///     let work = || assert!(irqs_disabled());
    ///     meeting.stand((me == 0).then_some(work), || assert!(irqs_disabled()));
    ///     assert!(!irqs_disabled());
    /// });
    /// ```
    pub fn stand(&self, work: Option<impl FnOnce()>, turn: impl Fn()) {
        self.meeting.stand::<P>(work, turn);
    }
}

#[derive(Debug)]
pub(super) struct Meeting<R: Rules = super::queue::Sound> {
    step: AtomicU32,
    /// How many have not arrived at the end of the present step.
    missing: AtomicU32,
    count: u32,
    _rules: PhantomData<fn() -> R>,
}

impl<R: Rules> Meeting<R> {
    const_fn! {
        pub(super) fn new(count: u32) -> Meeting<R> {
            Meeting {
                step: AtomicU32::new(GATHERING),
                missing: AtomicU32::new(count),
                count,
                _rules: PhantomData,
            }
        }
    }

    pub(super) fn stand<P: Platform>(&self, work: Option<impl FnOnce()>, turn: impl Fn()) {
        self.arrive(GATHERING);
        while self.step_is(GATHERING) {
            P::chaos_point();
            P::relax();
        }
        let _quiet = Cpu::<P>::disable_interrupts();
        let stand_while = |step| {
            while self.step_is(step) {
                P::chaos_point();
                turn();
                P::relax();
            }
        };
        self.arrive(TURNING_OFF);
        match work {
            Some(work) => {
                if R::WAIT_FOR_ALL {
                    stand_while(TURNING_OFF);
                }
                work();
                // Release pairs with the acquire in `step_is`: the others see what the work did.
                self.step.store(OVER, R::FINISH);
            }
            None => {
                stand_while(TURNING_OFF);
                stand_while(WORKING);
            }
        }
    }

    /// For the models: whether all have said that their interrupts are off.
    #[cfg(all(test, loom))]
    pub(super) fn all_stand(&self) -> bool {
        self.step_is(WORKING)
    }

    /// Whether the meeting is at this step.
    fn step_is(&self, step: u32) -> bool {
        // Acquire pairs with the release of the last one to arrive, and of the end of the work.
        self.step.load(Ordering::Acquire) == step
    }

    fn arrive(&self, step: u32) {
        // Release pairs with the acquire of the last one: the work sees what each of us did before it stood. The others'
        // arrivals continue the release sequence.
        if self.missing.fetch_sub(1, R::ARRIVE) == 1 {
            self.missing.store(self.count, Ordering::Relaxed);
            // Release: the count above comes before the next step's arrivals, and what all did comes before the work.
            self.step.store(step + 1, Ordering::Release);
        }
    }
}
