//! Sending, serving, closing and claiming, under every schedule and every value that a load may return.
//!
//! Run with `cargo xtask models sync --filter call`. Each rule has a twin in which it is broken, and which the model must
//! refuse.

use core::ptr::NonNull;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;

use super::queue::{CallQueue, Entry, Rules, Sound};
use super::rendezvous::{self, Meeting};
use super::state::{self, State};
use crate::test_platform::Modelled;

fn check(preemptions: usize, f: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    test_support::check(&builder, f);
}

/// A descriptor: what its sender wants to tell, and what its function found.
#[repr(C)]
struct Call<R: state::Rules> {
    entry: Entry,
    state: State<R>,
    told: UnsafeCell<u32>,
    ran: AtomicU32,
    hint: AtomicU32,
    found: AtomicU32,
}

/// # Safety
/// As for every `run`.
unsafe fn run<R: state::Rules>(entry: NonNull<Entry>) {
    // SAFETY: by the contract; the models keep their calls to the end.
    let call = unsafe { entry.cast::<Call<R>>().as_ref() };
    call.state.run(|| {
        // SAFETY: the model reports accesses that are not ordered.
        call.told.with_mut(|told| unsafe { *told += 1 });
        call.found.store(call.hint.load(Ordering::Relaxed), Ordering::Relaxed);
        call.ran.fetch_add(1, Ordering::Relaxed);
    });
}

impl<R: state::Rules> Call<R> {
    fn new() -> Call<R> {
        Call {
            entry: Entry::new(run::<R>),
            state: State::new(),
            told: UnsafeCell::new(0),
            ran: AtomicU32::new(0),
            hint: AtomicU32::new(0),
            found: AtomicU32::new(0),
        }
    }
}

struct Shared<Q: Rules, R: state::Rules = Sound> {
    queue: CallQueue<Q>,
    calls: [Call<R>; 2],
}

// SAFETY: the model reports accesses to `told` that are not ordered.
unsafe impl<Q: Rules, R: state::Rules> Sync for Shared<Q, R> {}
// SAFETY: as above.
unsafe impl<Q: Rules, R: state::Rules> Send for Shared<Q, R> {}

impl<Q: Rules + 'static, R: state::Rules + 'static> Shared<Q, R> {
    fn new() -> Arc<Shared<Q, R>> {
        let shared = Shared { queue: CallQueue::new(), calls: [Call::new(), Call::new()] };
        shared.queue.open();
        Arc::new(shared)
    }

    /// Writes into a call and sends it, if nobody else has claimed it. `None` if so, otherwise what the push said.
    fn send(&self, index: usize) -> Option<Result<bool, ()>> {
        let call = &self.calls[index];
        if !call.state.claim() {
            return None;
        }
        // SAFETY: claimed, and in place as long as the model runs.
        Some(
            unsafe { self.queue.push::<Modelled>(NonNull::from(call).cast()) }
                .map_err(|_| call.state.unclaim()),
        )
    }

    fn tell(&self, index: usize) {
        // SAFETY: the model reports accesses that are not ordered.
        self.calls[index].told.with_mut(|told| unsafe { *told += 10 });
    }

    /// Runs what is there, as the consumer. Returns the calls in the order in which they came.
    fn serve(&self) -> Vec<usize> {
        let mut order = Vec::new();
        // SAFETY: one thread at a time serves; the entries are run.
        while let Some(entry) = unsafe { self.queue.pop::<Modelled>() } {
            let first = core::ptr::from_ref(&self.calls[0]).cast();
            order.push(usize::from(entry.as_ptr().cast_const() != first));
            // SAFETY: it came out just now.
            unsafe { (entry.as_ref().run)(entry) };
        }
        order
    }

    fn ran(&self, index: usize) -> u32 {
        self.calls[index].ran.load(Ordering::Relaxed)
    }
}

/// Two senders and the CPU: nothing is lost or comes twice, what the senders told is seen, and the CPU is interrupted as
/// often as it finds something.
fn two_senders<Q: Rules + 'static>() {
    check(3, || {
        let shared = Shared::<Q>::new();
        let cpu = {
            let shared = shared.clone();
            thread::spawn(move || shared.serve().len())
        };
        let other = {
            let shared = shared.clone();
            thread::spawn(move || {
                shared.tell(0);
                shared.send(0).unwrap().unwrap()
            })
        };
        shared.tell(1);
        let mine = shared.send(1).unwrap().unwrap();
        let interrupts = usize::from(other.join().unwrap()) + usize::from(mine);
        let early = cpu.join().unwrap();
        let late = shared.serve().len();
        assert_eq!(early + late, 2, "a call was lost");
        assert!(interrupts >= 1 && (late == 0 || early == 0 || interrupts == 2), "a call waits for nobody");
        assert_eq!((shared.ran(0), shared.ran(1)), (1, 1));
    });
}

#[test]
fn nothing_that_was_sent_is_lost() {
    two_senders::<Sound>();
}

#[test]
fn one_senders_calls_come_in_order() {
    check(3, || {
        let shared = Shared::<Sound>::new();
        let cpu = {
            let shared = shared.clone();
            thread::spawn(move || shared.serve())
        };
        shared.send(0).unwrap().unwrap();
        shared.send(1).unwrap().unwrap();
        let order = [cpu.join().unwrap(), shared.serve()].concat();
        assert_eq!(order, [0, 1]);
    });
}

/// The CPU goes while somebody sends: the call was refused, or it runs before the CPU is gone.
fn close_and_send<Q: Rules + 'static>() {
    check(3, || {
        let shared = Shared::<Q>::new();
        shared.send(1).unwrap().unwrap();
        let cpu = {
            let shared = shared.clone();
            thread::spawn(move || {
                // SAFETY: this thread is the consumer.
                unsafe { shared.queue.close() };
                shared.serve();
                (shared.ran(0), shared.ran(1))
            })
        };
        shared.tell(0);
        let accepted = shared.send(0).unwrap().is_ok();
        let (ran, before) = cpu.join().unwrap();
        assert_eq!(before, 1, "sent before the CPU went, and not run");
        assert_eq!(ran, u32::from(accepted), "accepted by a CPU that had gone");
        assert!(shared.send(0).unwrap().is_err());
    });
}

#[test]
fn a_call_to_a_cpu_that_goes_is_refused_or_run() {
    close_and_send::<Sound>();
}

/// A second sender is refused because the descriptor is pending. The run that it relies on sees what it did before.
fn refused_sender<R: state::Rules + 'static>() {
    check(3, || {
        let shared = Shared::<Sound, R>::new();
        shared.send(0).unwrap().unwrap();
        let cpu = {
            let shared = shared.clone();
            thread::spawn(move || shared.serve().len())
        };
        let sender = {
            let shared = shared.clone();
            thread::spawn(move || {
                shared.calls[0].hint.store(7, Ordering::Relaxed);
                shared.send(0)
            })
        };
        let sent = sender.join().unwrap();
        let early = cpu.join().unwrap();
        let found = shared.calls[0].found.load(Ordering::Relaxed);
        let late = shared.serve().len();
        assert_eq!(early + late, if sent.is_none() { 1 } else { 2 });
        if sent.is_none() {
            assert_eq!(found, 7, "the run began before the refused sender asked for it");
        }
    });
}

#[test]
fn who_is_refused_is_seen_by_the_run_to_come() {
    refused_sender::<Sound>();
}

/// Whoever finds the descriptor idle has it, and everything that the function used, for itself.
fn idle_is_free<R: state::Rules + 'static>() {
    check(3, || {
        let shared = Shared::<Sound, R>::new();
        shared.send(0).unwrap().unwrap();
        let cpu = {
            let shared = shared.clone();
            thread::spawn(move || shared.serve())
        };
        let owner = {
            let shared = shared.clone();
            thread::spawn(move || {
                if shared.calls[0].state.is_idle() {
                    shared.tell(0);
                }
            })
        };
        cpu.join().unwrap();
        owner.join().unwrap();
    });
}

#[test]
fn an_idle_descriptor_is_its_owners_alone() {
    idle_is_free::<Sound>();
}

/// Broken: what the sender did is not published.
enum RelaxedPush {}
impl Rules for RelaxedPush {
    const PUSH: Ordering = Ordering::Relaxed;
}

#[test]
#[should_panic(expected = "a call was lost")]
fn a_relaxed_push_is_caught() {
    two_senders::<RelaxedPush>();
}

/// Broken: the CPU does not look for what was published.
enum RelaxedTake {}
impl Rules for RelaxedTake {
    const TAKE: Ordering = Ordering::Relaxed;
}

#[test]
#[should_panic(expected = "a call was lost")]
fn a_relaxed_take_is_caught() {
    two_senders::<RelaxedTake>();
}

/// Broken: the sender asks whether the CPU is there, and then sends.
enum TwoSteps {}
impl Rules for TwoSteps {
    const ONE_STEP: bool = false;
}

#[test]
#[should_panic(expected = "accepted by a CPU that had gone")]
fn asking_first_and_sending_then_is_caught() {
    close_and_send::<TwoSteps>();
}

/// Broken: a sender that is refused publishes nothing.
enum QuietClaim {}
impl state::Rules for QuietClaim {
    const CLAIM: Ordering = Ordering::Acquire;
}

#[test]
#[should_panic(expected = "the run began before the refused sender asked for it")]
fn a_claim_that_publishes_nothing_is_caught() {
    refused_sender::<QuietClaim>();
}

/// Broken: the descriptor can be claimed again only when its function has ended.
enum FunctionFirst {}
impl state::Rules for FunctionFirst {
    const BEGIN_FIRST: bool = false;
}

#[test]
#[should_panic(expected = "the run began before the refused sender asked for it")]
fn a_descriptor_that_is_pending_while_it_runs_is_caught() {
    refused_sender::<FunctionFirst>();
}

/// Broken: the end of a run publishes nothing.
enum QuietEnd {}
impl state::Rules for QuietEnd {
    const END: Ordering = Ordering::Relaxed;
    const BEGIN: Ordering = Ordering::Acquire;
}

#[test]
#[should_panic(expected = "Causality violation")]
fn an_end_that_publishes_nothing_is_caught() {
    idle_is_free::<QuietEnd>();
}

/// What the CPUs of a meeting touch: each before it stands, the work, each after.
struct Standing<R: rendezvous::Rules> {
    meeting: Meeting<R>,
    data: UnsafeCell<[u32; 2]>,
}

// SAFETY: the model reports accesses to `data` that are not ordered.
unsafe impl<R: rendezvous::Rules> Sync for Standing<R> {}
// SAFETY: as above.
unsafe impl<R: rendezvous::Rules> Send for Standing<R> {}

impl<R: rendezvous::Rules> Standing<R> {
    fn take_part(&self, works: bool) {
        let work = || {
            // SAFETY: the model checks.
            self.data.with_mut(|data| unsafe { (*data)[1] = 7 });
        };
        if !works {
            // SAFETY: the model checks.
            self.data.with_mut(|data| unsafe { (*data)[0] = 5 });
        }
        self.meeting.stand::<Modelled>(works.then_some(work), || ());
        // SAFETY: the model checks.
        assert_eq!(self.data.with(|data| unsafe { *data }), [5, 7]);
    }
}

fn two_meet<R: rendezvous::Rules + 'static>() {
    check(3, || {
        let shared = Arc::new(Standing::<R> { meeting: Meeting::new(2), data: UnsafeCell::new([0; 2]) });
        let parts = [true, false].map(|works| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.take_part(works))
        });
        parts.into_iter().for_each(|part| part.join().unwrap());
    });
}

#[test]
fn work_happens_while_the_others_stand() {
    two_meet::<Sound>();
}

/// Broken: nobody publishes what it did before it stood.
enum QuietArrival {}
impl rendezvous::Rules for QuietArrival {
    const ARRIVE: Ordering = Ordering::Relaxed;
}

#[test]
#[should_panic(expected = "Causality violation")]
fn arriving_without_a_word_is_caught() {
    two_meet::<QuietArrival>();
}

/// Broken: the end of the work publishes nothing.
enum QuietFinish {}
impl rendezvous::Rules for QuietFinish {
    const FINISH: Ordering = Ordering::Relaxed;
}

#[test]
#[should_panic(expected = "Causality violation")]
fn finishing_without_a_word_is_caught() {
    two_meet::<QuietFinish>();
}

/// Broken: the work begins when the others have gathered, and does not wait until they stand.
enum EarlyWork {}
impl rendezvous::Rules for EarlyWork {
    const WAIT_FOR_ALL: bool = false;
}

#[test]
#[should_panic(expected = "somebody has not stopped yet")]
fn work_that_does_not_wait_is_caught() {
    work_alone::<EarlyWork>();
}

#[test]
fn nobody_moves_while_the_work_runs() {
    work_alone::<Sound>();
}

/// The work looks whether all others stand.
fn work_alone<R: rendezvous::Rules + 'static>() {
    check(3, || {
        let shared = Arc::new(Meeting::<R>::new(2));
        let other = Arc::clone(&shared);
        let stands = thread::spawn(move || other.stand::<Modelled>(None::<fn()>, || ()));
        let works = thread::spawn(move || {
            let look = || assert!(shared.all_stand(), "somebody has not stopped yet");
            shared.stand::<Modelled>(Some(look), || ());
        });
        stands.join().unwrap();
        works.join().unwrap();
    });
}
