//! Several guests at a time, told about in order.
//!
//! 1. Every job has a weight, its share of the host's cores, and starts as soon as that is free and those before it have
//!    started. The light ones come first, of these the long ones: one that took the whole host between them would wait
//!    for them on an idle core, and a long one at the end would leave the others idle.
//! 2. Each job sends its news into a channel of its own, and the channels are read one after the other, so that the screen
//!    shows the list in its own order: the first unfinished job live, later ones in one go.

use std::sync::mpsc::{self, Sender};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

/// What is free, and whose turn it is to start.
struct Gate {
    free: usize,
    next: usize,
}

/// Runs `work` for every job, at most `capacity` in weight at a time, and gives its events to `show` in the order of `jobs`.
///
/// The threads that do the work live as long as the slowest job, so a child process may be started from them.
pub(crate) fn run<J: Sync, E: Send>(
    jobs: &[J],
    capacity: usize,
    weight: impl Fn(&J) -> usize + Sync,
    is_long: impl Fn(&J) -> bool,
    work: impl Fn(&J, &Sender<E>) + Sync,
    mut show: impl FnMut(&J, E),
) {
    let mut order: Vec<usize> = (0..jobs.len()).collect();
    order.sort_by_key(|&index| (weight(&jobs[index]), !is_long(&jobs[index])));
    let mut turns = vec![0; jobs.len()];
    for (turn, index) in order.into_iter().enumerate() {
        turns[index] = turn;
    }
    let gate = Mutex::new(Gate { free: capacity.max(1), next: 0 });
    let changed = Condvar::new();
    thread::scope(|scope| {
        let mut channels = Vec::new();
        for (job, turn) in jobs.iter().zip(turns) {
            let (sender, receiver) = mpsc::channel();
            channels.push(receiver);
            let (gate, changed, weight, work) = (&gate, &changed, &weight, &work);
            scope.spawn(move || {
                let need = weight(job).clamp(1, capacity.max(1));
                let lock = || gate.lock().unwrap_or_else(PoisonError::into_inner);
                let guard = changed.wait_while(lock(), |gate| gate.next != turn || gate.free < need);
                let mut guard = guard.unwrap_or_else(PoisonError::into_inner);
                guard.free -= need;
                guard.next += 1;
                drop(guard);
                changed.notify_all();
                work(job, &sender);
                lock().free += need;
                changed.notify_all();
            });
        }
        for (job, receiver) in jobs.iter().zip(channels) {
            receiver.into_iter().for_each(|event| show(job, event));
        }
    });
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[test]
    fn events_come_in_order_and_the_host_is_not_overloaded() {
        let jobs: Vec<usize> = (0..12).collect();
        let weight = |job: &usize| 1 + job % 3;
        let (load, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let mut seen = Vec::new();
        run(
            &jobs,
            3,
            weight,
            |_| false,
            |job, events| {
                let now = load.fetch_add(weight(job), Ordering::SeqCst) + weight(job);
                most.fetch_max(now, Ordering::SeqCst);
                thread::sleep(Duration::from_millis(((12 - job) % 4) as u64));
                events.send((*job, 'a')).unwrap();
                events.send((*job, 'b')).unwrap();
                load.fetch_sub(weight(job), Ordering::SeqCst);
            },
            |job, event| {
                assert_eq!(*job, event.0);
                seen.push(event);
            },
        );
        assert_eq!(seen, jobs.iter().flat_map(|&job| [(job, 'a'), (job, 'b')]).collect::<Vec<_>>());
        assert!(most.load(Ordering::SeqCst) <= 3);
    }

    #[test]
    fn light_jobs_start_first_and_long_ones_of_them_before_the_others() {
        let started = Mutex::new(Vec::new());
        let jobs = [(2, 'a'), (1, 'b'), (2, 'c'), (1, 'L'), (1, 'd')];
        run(
            &jobs,
            1,
            |job| job.0,
            |job| job.1 == 'L',
            |job, _: &Sender<()>| started.lock().unwrap().push(job.1),
            |_, ()| (),
        );
        assert_eq!(started.into_inner().unwrap(), ['L', 'b', 'd', 'a', 'c']);
    }

    #[test]
    fn a_job_heavier_than_the_host_still_runs() {
        let mut seen = 0;
        run(&[100_usize], 2, |job| *job, |_| false, |_, events| events.send(()).unwrap(), |_, ()| seen += 1);
        assert_eq!(seen, 1);
    }
}
