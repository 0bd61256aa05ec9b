//! Who keeps a timer alive, and who frees it.

use super::*;

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
    check_both(3, |make| {
        let (bases, seen) = (make(), Seen::new());
        let timer = timer(State(Arc::clone(&seen)), |timer, _| {
            assert_ne!(timer.state().0.calls(), 9, "the state is gone");
            timer.state().count();
        });
        put(&timer, bases.get(0), 1, How::Add);
        let runner = runner(&bases);
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
    check_both(3, |make| {
        let (bases, seen) = (make(), Seen::new());
        let own = bare(&seen, |core, firing| frees_its_timer(core, firing));
        let reference = Reference { core: own.cast(), ops: &SELF_FREEING };
        let quiet = Cpu::<Modelled>::disable_interrupts();
        arm(quiet, reference, bases.get(0), 1, How::Add, std::panic::Location::caller());
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
    let model = "base::models::references::after_the_detach_nothing_of_the_timer_is_read";
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
    check_both(3, |make| {
        let (bases, seen) = (make(), Seen::new());
        let own = bare(&seen, |core, firing| arms_itself_once(core, firing));
        let reference = Reference { core: own.cast(), ops: &COUNTED };
        let quiet = Cpu::<Modelled>::disable_interrupts();
        arm(quiet, reference, bases.get(0), 1, How::Add, std::panic::Location::caller());
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
    let model = "base::models::references::delete_from_another_cpu_while_a_slow_callback_frees_its_timer";
    is_caught(Fault::ReleaseRunning, model, "panicked");
}
