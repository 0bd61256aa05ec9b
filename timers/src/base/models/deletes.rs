//! Timers that are deleted, and shut down, while they are called or wait for it.

use super::*;

#[test]
fn a_deleted_timer_is_not_called_and_another_one_is_called_once() {
    check_both(2, |make| {
        let (bases, seen) = (make(), Seen::new());
        let timer = timer(Arc::clone(&seen), |timer, _| timer.state().call());
        put(&timer, bases.get(0), 1, How::Add);
        let runner = runner(&bases);
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
    check_both(2, |make| {
        let (bases, seen) = (make(), Seen::new());
        let timer = timer(Arc::clone(&seen), |timer, firing| {
            timer.state().call();
            firing.rearm_at(1);
        });
        put(&timer, bases.get(0), 1, How::Add);
        let runner = runner(&bases);
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
    let model = "base::models::deletes::what_was_deleted_synchronously_is_over";
    is_caught(Fault::DeleteAndGo, model, "Causality violation");
}

#[test]
fn not_noting_the_beginning_of_a_single_call_is_noticed() {
    let model = "base::models::deletes::what_was_deleted_synchronously_is_over";
    is_caught(Fault::BeginUnnoted, model, "its function is being called");
}

#[test]
fn noting_the_end_of_a_call_before_it_is_noticed() {
    let model = "base::models::deletes::a_deleted_timer_is_not_called_and_another_one_is_called_once";
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
        let runner = runner(&bases);
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
        "base::models::deletes::what_waits_for_its_turn_is_called_or_deleted_and_gone",
        "panicked",
    );
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
