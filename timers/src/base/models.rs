//! Timers that two CPUs arm, delete and call, in all interleavings.
//!
//! What functions touch, what queues are made of, and what is freed are tracked cells: the model checker reports accesses
//! that nothing orders.

use std::ptr::NonNull;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;
use sync::lockdep::Level;
use sync::{Cpu, TaskCx};

use super::{Armed, Base, Call, Core, Flags, How, Kinds, Ops, Reference, arm};
use crate::faults::{Fault, is_caught};
use crate::modelled::{MiniEntry, MiniQueue, Modelled, become_cpu};
use crate::timer::{Firing, Timer, TimerFlags};

type MiniBase = Base<MiniQueue, Modelled>;
type MiniTimer<T> = Timer<T, MiniQueue, Modelled>;

fn check(f: impl Fn() + Send + Sync + 'static) {
    check_bounded(3, f);
}

fn check_bounded(preemptions: usize, f: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 100_000;
    builder.check(f);
}

/// Bases that live for ever, as far as their timers know: until the model's threads have ended.
struct Bases([NonNull<MiniBase>; 2]);

// SAFETY: bases may be used by all threads.
unsafe impl Send for Bases {}
// SAFETY: as above.
unsafe impl Sync for Bases {}

impl Bases {
    fn new() -> Arc<Bases> {
        Arc::new(Bases(
            [(); 2].map(|()| NonNull::from(Box::leak(Box::new(MiniBase::new(MiniQueue::new(), |_, _| ()))))),
        ))
    }

    fn get(&self, cpu: usize) -> &'static MiniBase {
        // SAFETY: freed when the last thread has ended.
        unsafe { self.0[cpu].as_ref() }
    }
}

impl Drop for Bases {
    fn drop(&mut self) {
        for base in self.0 {
            // SAFETY: leaked by `new`; nobody uses it any more.
            drop(unsafe { Box::from_raw(base.as_ptr()) });
        }
    }
}

/// Something with which the model checker sees whether two calls overlap, and whether they are seen by who waits for them.
struct Seen {
    calls: UnsafeCell<u32>,
    /// What a CPU did before it armed the timer, and what the last call saw of it.
    asked: AtomicU32,
    saw: UnsafeCell<u32>,
}

// SAFETY: the model checker reports accesses that are not ordered.
unsafe impl Send for Seen {}
// SAFETY: as above.
unsafe impl Sync for Seen {}

impl Seen {
    fn new() -> Arc<Seen> {
        Arc::new(Seen { calls: UnsafeCell::new(0), asked: AtomicU32::new(0), saw: UnsafeCell::new(0) })
    }

    fn call(&self) {
        // SAFETY: as above.
        self.calls.with_mut(|calls| unsafe { *calls += 1 });
        let asked = self.asked.load(Ordering::Relaxed);
        // SAFETY: as above.
        self.saw.with_mut(|saw| unsafe { *saw = asked });
    }

    fn calls(&self) -> u32 {
        // SAFETY: as above.
        self.calls.with(|calls| unsafe { *calls })
    }

    fn saw(&self) -> u32 {
        // SAFETY: as above.
        self.saw.with(|saw| unsafe { *saw })
    }
}

fn timer<T: Send + Sync + 'static>(
    state: T,
    function: fn(&MiniTimer<T>, &Firing<'_, MiniQueue, Modelled>),
) -> std::sync::Arc<MiniTimer<T>> {
    std::sync::Arc::new(Timer::from_parts(
        MiniEntry::new(),
        Level::Softirq,
        TimerFlags::NONE,
        state,
        function,
    ))
}

/// What whoever has a machine's timers does for its users.
fn put<T: Send + Sync + 'static>(
    timer: impl crate::timer::sealed::Handle<T, MiniQueue, Modelled>,
    base: &'static MiniBase,
    expires: u64,
    how: How,
) -> Armed {
    if how == How::Modify && timer.core().modify_in_place(expires) {
        return Armed::Before;
    }
    let quiet = Cpu::<Modelled>::disable_interrupts();
    let reference = timer.into_reference();
    let armed = arm(&quiet, &reference, base, expires, how, std::panic::Location::caller());
    drop(quiet);
    if armed != Armed::Now {
        reference.let_go();
    }
    armed
}

fn cx() -> TaskCx<Modelled> {
    // SAFETY: the models' threads are tasks.
    unsafe { TaskCx::new_in() }
}

fn join<const N: usize>(threads: [thread::JoinHandle<()>; N]) {
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn a_deleted_timer_is_not_called_and_another_one_is_called_once() {
    check_bounded(2, || {
        let (bases, seen) = (Bases::new(), Seen::new());
        let timer = timer(Arc::clone(&seen), |timer, _| timer.state().call());
        put(&timer, bases.get(0), 1, How::Add);
        let runner = {
            let bases = Arc::clone(&bases);
            thread::spawn(move || {
                bases.get(0).run(|| 1);
            })
        };
        let deleter = {
            let (timer, seen) = (timer.clone(), Arc::clone(&seen));
            thread::spawn(move || {
                become_cpu(1);
                let deleted = timer.delete_sync(&mut cx());
                assert_eq!(seen.calls(), u32::from(!deleted), "deleted is not called, and not deleted is");
            })
        };
        join([runner, deleter]);
        assert_eq!(std::sync::Arc::strong_count(&timer), 1, "references are let go of");
    });
}

/// The function arms its timer again each time. Who deletes it synchronously may then free what it uses.
#[test]
fn what_was_deleted_synchronously_is_over() {
    check_bounded(2, || {
        let (bases, seen) = (Bases::new(), Seen::new());
        let timer = timer(Arc::clone(&seen), |timer, firing| {
            timer.state().call();
            firing.rearm_at(1);
        });
        put(&timer, bases.get(0), 1, How::Add);
        let runner = {
            let bases = Arc::clone(&bases);
            thread::spawn(move || {
                bases.get(0).run(|| 1);
            })
        };
        let deleter = {
            let (timer, seen) = (timer.clone(), Arc::clone(&seen));
            thread::spawn(move || {
                become_cpu(1);
                timer.delete_sync(&mut cx());
                assert!(!timer.is_pending());
                // SAFETY: no call is under way; the model checks.
                seen.calls.with_mut(|calls| unsafe { *calls = 9 });
            })
        };
        join([deleter, runner]);
        assert_eq!((seen.calls(), std::sync::Arc::strong_count(&timer)), (9, 1));
    });
}

#[test]
fn not_waiting_is_noticed() {
    let model = "base::models::what_was_deleted_synchronously_is_over";
    is_caught(Fault::DeleteAndGo, model, "Causality violation");
}

#[test]
fn noting_the_end_of_a_call_before_it_is_noticed() {
    let model = "base::models::a_deleted_timer_is_not_called_and_another_one_is_called_once";
    is_caught(Fault::EndEarly, model, "Causality violation");
}

/// Two timers of the plainest kind are due at once. One waits in its slot while the other is called, and is deleted by another
/// CPU, which then gives its memory back.
#[test]
fn what_waits_for_its_turn_is_called_or_deleted_and_gone() {
    check_bounded(2, || {
        let (bases, seen) = (Bases::new(), [(); 2].map(|()| Seen::new()));
        let timers = seen.each_ref().map(|seen| {
            let timer = timer(Arc::clone(seen), |timer, _| timer.state().call());
            // SAFETY: it is put together again below.
            unsafe { &*std::sync::Arc::into_raw(timer) }
        });
        for timer in timers {
            put(timer, bases.get(0), 1, How::Add);
        }
        let runner = {
            let bases = Arc::clone(&bases);
            thread::spawn(move || {
                bases.get(0).run(|| 1);
            })
        };
        let deleter = {
            let (timer, seen) = (timers[1], Arc::clone(&seen[1]));
            thread::spawn(move || {
                become_cpu(1);
                let deleted = timer.delete_sync(&mut cx());
                assert_eq!(seen.calls(), u32::from(!deleted), "deleted is not called, and not deleted is");
                timer.core.entry().free();
            })
        };
        join([runner, deleter]);
        assert_eq!(seen[0].calls(), 1);
        for timer in timers {
            // SAFETY: from `into_raw`; what is left of it.
            drop(unsafe { std::sync::Arc::from_raw(timer) });
        }
    });
}

#[test]
fn claiming_without_an_atomic_step_is_noticed() {
    is_caught(
        Fault::ClaimPlainly,
        "base::models::what_waits_for_its_turn_is_called_or_deleted_and_gone",
        "panicked",
    );
}

/// Each change of its time is followed by a call that sees what was done before.
#[test]
fn what_was_done_before_a_later_time_is_seen_by_the_call() {
    check(|| {
        let (bases, seen) = (Bases::new(), Seen::new());
        let timer = timer(Arc::clone(&seen), |timer, _| timer.state().call());
        put(&timer, bases.get(0), 1, How::Add);
        let runner = {
            let bases = Arc::clone(&bases);
            thread::spawn(move || {
                bases.get(0).run(|| 1);
            })
        };
        let modifier = {
            let (bases, seen, timer) = (Arc::clone(&bases), Arc::clone(&seen), timer.clone());
            thread::spawn(move || {
                become_cpu(1);
                seen.asked.store(1, Ordering::Relaxed);
                put(&timer, bases.get(0), 2, How::Modify);
            })
        };
        join([runner, modifier]);
        bases.get(0).run(|| 2);
        assert_eq!(seen.saw(), 1, "a change was not followed by a call");
        assert!(!timer.is_pending() && std::sync::Arc::strong_count(&timer) == 1);
    });
}

#[test]
fn reading_the_time_plainly_is_noticed() {
    let model = "base::models::what_was_done_before_a_later_time_is_seen_by_the_call";
    is_caught(Fault::ReadPlainly, model, "was not followed by a call");
}

/// One CPU takes a timer to its own base while another one deletes it.
#[test]
fn a_timer_that_changes_its_base_is_found_where_it_is() {
    check_bounded(2, || {
        let (bases, seen) = (Bases::new(), Seen::new());
        let timer = timer(Arc::clone(&seen), |timer, _| timer.state().call());
        put(&timer, bases.get(0), 5, How::Add);
        let mover = {
            let (bases, timer) = (Arc::clone(&bases), timer.clone());
            thread::spawn(move || {
                become_cpu(1);
                put(&timer, bases.get(1), 1, How::Modify);
                bases.get(1).run(|| 1);
            })
        };
        let deleter = {
            let timer = timer.clone();
            thread::spawn(move || {
                become_cpu(2);
                timer.delete();
            })
        };
        join([mover, deleter]);
        let is_pending = timer.is_pending();
        assert_eq!(std::sync::Arc::strong_count(&timer), 1 + usize::from(is_pending));
        assert!(!is_pending, "its CPU has called what was due");
    });
}

#[test]
fn looking_once_for_the_base_is_noticed() {
    is_caught(
        Fault::LookOnce,
        "base::models::a_timer_that_changes_its_base_is_found_where_it_is",
        "panicked",
    );
}

/// While one CPU calls a timer, another one arms it, for its own base, and calls what is due there.
#[test]
fn a_running_timer_is_armed_by_another_cpu_and_called_by_one_at_a_time() {
    check(|| {
        let (bases, seen) = (Bases::new(), Seen::new());
        let timer = timer(Arc::clone(&seen), |timer, _| timer.state().call());
        put(&timer, bases.get(0), 1, How::Add);
        let cpus = [0, 1].map(|cpu| {
            let (bases, seen, timer) = (Arc::clone(&bases), Arc::clone(&seen), timer.clone());
            thread::spawn(move || {
                become_cpu(cpu as u32);
                if cpu == 1 {
                    seen.asked.store(1, Ordering::Relaxed);
                    put(&timer, bases.get(1), 2, How::Modify);
                }
                bases.get(cpu).run(|| 2);
            })
        });
        join(cpus);
        for cpu in [0, 1] {
            bases.get(cpu).run(|| 3);
        }
        assert_eq!((seen.saw(), timer.is_pending()), (1, false));
        assert_eq!(std::sync::Arc::strong_count(&timer), 1);
    });
}

#[test]
fn moving_what_runs_is_noticed() {
    let model = "base::models::a_running_timer_is_armed_by_another_cpu_and_called_by_one_at_a_time";
    is_caught(Fault::MoveRunning, model, "Causality violation");
}

/// Two CPUs find something due in one base: more than one batch.
#[test]
fn a_base_is_run_by_one_and_nothing_is_left() {
    check(|| {
        let (bases, seen) = (Bases::new(), Seen::new());
        let timers = [(); 3].map(|()| timer(Arc::clone(&seen), |timer, _| timer.state().call()));
        for timer in &timers {
            put(timer, bases.get(0), 1, How::Add);
        }
        let cpus = [0, 1].map(|cpu| {
            let bases = Arc::clone(&bases);
            thread::spawn(move || {
                become_cpu(cpu);
                bases.get(0).run(|| 1);
            })
        });
        join(cpus);
        assert_eq!(seen.calls(), 3);
        assert!(timers.iter().all(|timer| !timer.is_pending()));
    });
}

#[test]
fn running_a_base_twice_is_noticed() {
    let model = "base::models::a_base_is_run_by_one_and_nothing_is_left";
    // What it complains about is open: two runners overwrite each other's slots.
    is_caught(Fault::RunTwice, model, "");
}

/// Nothing is called after a shutdown that has waited, whoever arms.
#[test]
fn what_is_shut_down_is_not_called() {
    check_bounded(1, || {
        let (bases, seen) = (Bases::new(), Seen::new());
        let timer = timer(Arc::clone(&seen), |timer, firing| {
            timer.state().call();
            firing.rearm_at(2);
        });
        let runner = {
            let (bases, timer) = (Arc::clone(&bases), timer.clone());
            thread::spawn(move || {
                put(&timer, bases.get(0), 1, How::Modify);
                bases.get(0).run(|| 1);
                bases.get(0).run(|| 2);
            })
        };
        let closer = {
            let (seen, timer) = (Arc::clone(&seen), timer.clone());
            thread::spawn(move || {
                become_cpu(1);
                timer.shutdown_sync(&mut cx());
                // SAFETY: no call is under way, or will be; the model checks.
                seen.calls.with_mut(|calls| unsafe { *calls = 9 });
            })
        };
        join([closer, runner]);
        assert_eq!((seen.calls(), timer.is_pending()), (9, false));
        assert_eq!(std::sync::Arc::strong_count(&timer), 1);
    });
}

/// An owner that goes while the call is under way waits for nobody; the state goes with the last reference.
#[test]
fn the_state_outlives_the_call_whoever_lets_go() {
    /// Its drop is seen as a write to what the function reads.
    struct State(Arc<Seen>);
    impl State {
        /// Stands for the counts of an `Arc`, which order its drop after all uses and are not the model's.
        fn count(&self) {
            self.0.asked.fetch_add(1, Ordering::AcqRel);
        }
    }
    impl Drop for State {
        fn drop(&mut self) {
            self.count();
            // SAFETY: the model checker reports accesses that are not ordered.
            self.0.calls.with_mut(|calls| unsafe { *calls = 9 });
        }
    }
    check(|| {
        let (bases, seen) = (Bases::new(), Seen::new());
        let timer = timer(State(Arc::clone(&seen)), |timer, _| {
            assert_ne!(timer.state().0.calls(), 9, "the state is gone");
            timer.state().count();
        });
        put(&timer, bases.get(0), 1, How::Add);
        let runner = {
            let bases = Arc::clone(&bases);
            thread::spawn(move || {
                bases.get(0).run(|| 1);
            })
        };
        let owner = thread::spawn(move || {
            become_cpu(1);
            timer.shutdown();
            drop(timer);
        });
        join([runner, owner]);
        assert_eq!(seen.calls(), 9);
    });
}

/// A timer of which the model knows when its memory is given back, and how often its references are.
#[repr(C)]
struct Bare {
    core: Core<MiniQueue, Modelled>,
    released: AtomicU32,
    shared: Arc<Seen>,
}

/// A function that frees its timer, slowly.
fn frees_its_timer(core: NonNull<Core<MiniQueue, Modelled>>, _: &Firing<'_, MiniQueue, Modelled>) {
    // SAFETY: the models pass no other.
    let bare = unsafe { core.cast::<Bare>().as_ref() };
    thread::yield_now();
    bare.core.entry().free();
    bare.shared.call();
}

/// Frees its timer when it is called, and has no other reference to let go of.
static SELF_FREEING: Ops<MiniQueue, Modelled> =
    Ops { release: None, type_name: || "self-freeing", embedded: false, kinds: Kinds::NAMELESS };

fn bare(shared: &Arc<Seen>, function: Call<MiniQueue, Modelled>) -> NonNull<Bare> {
    let core = Core::new(MiniEntry::new(), Flags::NONE, Level::Softirq, function as *mut ());
    NonNull::from(Box::leak(Box::new(Bare { core, released: AtomicU32::new(0), shared: Arc::clone(shared) })))
}

struct Sendable(NonNull<Bare>);
// SAFETY: the model checker reports accesses that are not ordered.
unsafe impl Send for Sendable {}

/// After the detach nothing of a timer is read but by its function: here that frees it.
#[test]
fn after_the_detach_nothing_of_the_timer_is_read() {
    check(|| {
        let (bases, seen) = (Bases::new(), Seen::new());
        let own = bare(&seen, |core, firing| frees_its_timer(core, firing));
        let reference = Reference { core: own.cast(), ops: &SELF_FREEING };
        let quiet = Cpu::<Modelled>::disable_interrupts();
        arm(&quiet, &reference, bases.get(0), 1, How::Add, std::panic::Location::caller());
        let cpus = [0, 1].map(|cpu| {
            let bases = Arc::clone(&bases);
            thread::spawn(move || {
                become_cpu(cpu);
                bases.get(0).run(|| 1);
            })
        });
        join(cpus);
        assert_eq!(seen.calls(), 1);
        // SAFETY: what stands for it was freed; this is the rest of it.
        drop(unsafe { Box::from_raw(own.as_ptr()) });
    });
}

#[test]
fn touching_a_timer_after_its_call_is_noticed() {
    let model = "base::models::after_the_detach_nothing_of_the_timer_is_read";
    is_caught(Fault::TouchAfterCall, model, "freed memory was read");
}

/// A timer whose references are counted, and whose memory is given back with the last one.
static COUNTED: Ops<MiniQueue, Modelled> = Ops {
    release: Some(|core| {
        // SAFETY: as above.
        let bare = unsafe { core.cast::<Bare>().as_ref() };
        // AcqRel: as the counts of an `Arc`.
        if bare.released.fetch_add(1, Ordering::AcqRel) == 1 {
            bare.core.entry().free();
        }
    }),
    type_name: || "counted",
    embedded: false,
    kinds: Kinds::RELEASED,
};

/// Its function.
fn arms_itself_once(core: NonNull<Core<MiniQueue, Modelled>>, firing: &Firing<'_, MiniQueue, Modelled>) {
    // SAFETY: the models pass no other.
    let bare = unsafe { core.cast::<Bare>().as_ref() };
    // Slow: others do what they want meanwhile.
    thread::yield_now();
    bare.core.expires();
    bare.shared.call();
    if firing.now() == 1 {
        firing.rearm_at(2);
        thread::yield_now();
        bare.core.expires();
    }
}

/// One CPU calls a timer, slowly, that arms itself again in the call; another one deletes it and gives up its own reference,
/// so that the call's end frees it: what the delete points to is its own reference, and not what the call frees.
#[test]
fn delete_from_another_cpu_while_a_slow_callback_frees_its_timer() {
    check(|| {
        let (bases, seen) = (Bases::new(), Seen::new());
        let own = bare(&seen, |core, firing| arms_itself_once(core, firing));
        let reference = Reference { core: own.cast(), ops: &COUNTED };
        let quiet = Cpu::<Modelled>::disable_interrupts();
        arm(&quiet, &reference, bases.get(0), 1, How::Add, std::panic::Location::caller());
        let runner = {
            let bases = Arc::clone(&bases);
            thread::spawn(move || {
                bases.get(0).run(|| 1);
                bases.get(0).run(|| 2);
            })
        };
        let deleter = {
            let own = Sendable(own);
            thread::spawn(move || {
                let own = own;
                become_cpu(1);
                // SAFETY: the deleter's own reference keeps it alive.
                let bare = unsafe { own.0.as_ref() };
                bare.core.delete();
                (Reference { core: own.0.cast(), ops: &COUNTED }).let_go();
            })
        };
        join([runner, deleter]);
        // SAFETY: what stands for its memory was freed or not; this is the rest of it.
        let bare = unsafe { Box::from_raw(own.as_ptr()) };
        assert_eq!(bare.released.load(Ordering::Relaxed), 2, "two references, each let go of once");
    });
}

#[test]
fn giving_up_the_calls_reference_is_noticed() {
    let model = "base::models::delete_from_another_cpu_while_a_slow_callback_frees_its_timer";
    is_caught(Fault::ReleaseRunning, model, "panicked");
}

/// A CPU goes off-line while another one calls one of its timers, which arms itself again.
#[test]
fn what_is_armed_while_its_base_closes_goes_to_the_heir() {
    check(|| {
        let (bases, seen) = (Bases::new(), Seen::new());
        let timer = timer(Arc::clone(&seen), |timer, firing| {
            if timer.state().calls() == 0 {
                firing.rearm_at(2);
            }
            timer.state().call();
        });
        put(&timer, bases.get(0), 1, How::Add);
        let runner = {
            let bases = Arc::clone(&bases);
            thread::spawn(move || {
                bases.get(0).run(|| 1);
            })
        };
        let closer = {
            let bases = Arc::clone(&bases);
            thread::spawn(move || {
                become_cpu(1);
                bases.get(0).close(bases.get(1));
                bases.get(1).run(|| 2);
            })
        };
        join([runner, closer]);
        bases.get(1).run(|| 3);
        assert_eq!((seen.calls(), timer.is_pending()), (2, false), "not lost, and not twice");
        assert_eq!(std::sync::Arc::strong_count(&timer), 1);
    });
}

#[test]
fn giving_away_what_runs_is_noticed() {
    let model = "base::models::what_is_armed_while_its_base_closes_goes_to_the_heir";
    is_caught(Fault::CloseBusy, model, "panicked");
}
