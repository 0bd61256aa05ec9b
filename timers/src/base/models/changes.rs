//! Timers that get another time or another base, and bases that are run by several and closed.

use super::*;

/// Each change of its time is followed by a call that sees what was done before.
#[test]
fn what_was_done_before_a_later_time_is_seen_by_the_call() {
    check(|| {
        let (bases, seen) = (Bases::new(), Seen::new());
        let timer = timer(Arc::clone(&seen), |timer, _| timer.state().call());
        put(&timer, bases.get(0), 1, How::Add);
        let runner = runner(&bases);
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
    let model = "base::models::changes::what_was_done_before_a_later_time_is_seen_by_the_call";
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
        "base::models::changes::a_timer_that_changes_its_base_is_found_where_it_is",
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
    let model = "base::models::changes::a_running_timer_is_armed_by_another_cpu_and_called_by_one_at_a_time";
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
    let model = "base::models::changes::a_base_is_run_by_one_and_nothing_is_left";
    is_caught(Fault::RunTwice, model, "somebody else runs this base");
}

/// A CPU goes off-line while another one calls one of its timers, which arms itself again.
#[test]
fn what_is_armed_while_its_base_closes_goes_to_the_heir() {
    check_both(3, |make| {
        let (bases, seen) = (make(), Seen::new());
        let timer = timer(Arc::clone(&seen), |timer, firing| {
            if timer.state().calls() == 0 {
                firing.rearm_at(2);
            }
            timer.state().call();
        });
        put(&timer, bases.get(0), 1, How::Add);
        let runner = runner(&bases);
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
    let model = "base::models::changes::what_is_armed_while_its_base_closes_goes_to_the_heir";
    is_caught(Fault::CloseBusy, model, "panicked");
}
