//! Several guests at a time, told about in order.
//!
//! Every job has a weight, its share of the host's cores; jobs start in the order of the list as soon as their weight
//! fits. Each sends its news into a channel of its own, and the channels are read one after the other, so that the
//! screen shows the list in its order: the first unfinished job live, later ones in one go.

use std::sync::mpsc::{self, Sender};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

/// What is free, and whose turn it is to start.
struct Gate {
    free: usize,
    next: usize,
}

/// Runs `work` for every job, at most `capacity` in weight at a time, and gives its events to `show` in the order of jobs.
///
/// The threads that do the work live as long as the slowest job, so a child process may be started from them.
pub(super) fn run<J: Sync, E: Send>(
    jobs: &[J],
    capacity: usize,
    weight: impl Fn(&J) -> usize + Sync,
    work: impl Fn(&J, &Sender<E>) + Sync,
    mut show: impl FnMut(&J, E),
) {
    let gate = Mutex::new(Gate { free: capacity.max(1), next: 0 });
    let changed = Condvar::new();
    thread::scope(|scope| {
        let mut channels = Vec::new();
        for (index, job) in jobs.iter().enumerate() {
            let (sender, receiver) = mpsc::channel();
            channels.push(receiver);
            let (gate, changed, weight, work) = (&gate, &changed, &weight, &work);
            scope.spawn(move || {
                let need = weight(job).clamp(1, capacity.max(1));
                let lock = || gate.lock().unwrap_or_else(PoisonError::into_inner);
                let guard = changed.wait_while(lock(), |gate| gate.next != index || gate.free < need);
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
    fn a_job_heavier_than_the_host_still_runs() {
        let mut seen = 0;
        run(&[100_usize], 2, |job| *job, |_, events| events.send(()).unwrap(), |_, ()| seen += 1);
        assert_eq!(seen, 1);
    }
}
