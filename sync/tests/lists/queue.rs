//! The list that is filled without a lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sync::llist::{LList, Link};

struct Item {
    value: usize,
    link: Link,
}
sync::link_field! { struct InQueue = Item => link: Link; }
type Queue = LList<Box<Item>, InQueue>;

fn item(value: usize) -> Box<Item> {
    Box::new(Item { value, link: Link::new() })
}

#[test]
fn only_the_push_into_an_empty_list_says_so() {
    let queue = Queue::new();
    assert!(queue.is_empty());
    assert!(queue.push(item(1)));
    assert!(!queue.push(item(2)));
    drop(queue.take_all());
    assert!(queue.push(item(3)));
}

#[test]
fn taken_as_a_stack_or_as_a_queue() {
    let queue = Queue::new();
    for value in 0..4 {
        queue.push(item(value));
    }
    assert_eq!(queue.take_all().map(|item| item.value).collect::<Vec<_>>(), [3, 2, 1, 0]);
    for value in 0..4 {
        queue.push(item(value));
    }
    assert_eq!(queue.take_fifo().map(|item| item.value).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert!(queue.take_fifo().is_empty());
}

#[test]
fn putting_back_keeps_everything() {
    let queue = Queue::new();
    for value in 0..3 {
        queue.push(item(value));
    }
    let mut taken = queue.take_all();
    assert_eq!(taken.next().unwrap().value, 2);
    queue.push(item(9));
    assert!(!queue.push_all(taken));
    assert!(!queue.push_all(Queue::new().take_all()));
    assert_eq!(queue.take_all().map(|item| item.value).collect::<Vec<_>>(), [1, 0, 9]);
}

#[test]
fn what_is_not_consumed_is_dropped() {
    let shared: Vec<Arc<Item>> = (0..4).map(|value| Arc::from(item(value))).collect();
    let queue = LList::<Arc<Item>, InQueue>::new();
    for item in &shared[..3] {
        queue.push(item.clone());
    }
    let mut taken = queue.take_all();
    drop(taken.next());
    queue.push(shared[3].clone());
    drop((taken, queue));
    assert!(shared.iter().all(|item| Arc::strong_count(item) == 1 && !item.link.is_linked()));
}

/// Nothing is lost and nothing comes twice; each producer's items come in its order; and there were as many "it was empty"
/// as takings that found something.
#[test]
fn producers_and_a_consumer() {
    const PRODUCERS: usize = 3;
    const EACH: usize = 20_000;
    let queue = Queue::new();
    let (wakes, mut takes) = (AtomicUsize::new(0), 0);
    std::thread::scope(|scope| {
        for producer in 0..PRODUCERS {
            let (queue, wakes) = (&queue, &wakes);
            scope.spawn(move || {
                for n in 0..EACH {
                    if queue.push(item(producer * EACH + n)) {
                        wakes.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        let mut next = [0; PRODUCERS];
        while next != [EACH; PRODUCERS] {
            let taken = queue.take_fifo();
            takes += usize::from(!taken.is_empty());
            for item in taken {
                let (producer, n) = (item.value / EACH, item.value % EACH);
                assert_eq!(n, next[producer]);
                next[producer] += 1;
            }
            std::thread::yield_now();
        }
    });
    assert!(queue.is_empty());
    assert_eq!(wakes.into_inner(), takes);
}

/// An object that stands for "something is to be done" is in the list at most once, whoever asks.
#[test]
fn many_askers_one_entry() {
    let work: Arc<Item> = Arc::from(item(0));
    let queue = LList::<Arc<Item>, InQueue>::new();
    let (queued, mut done) = (AtomicUsize::new(0), 0);
    std::thread::scope(|scope| {
        let askers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        if queue.try_push(work.clone()).is_ok() {
                            queued.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                })
            })
            .collect();
        while !askers.iter().all(|asker| asker.is_finished()) {
            let n = queue.take_all().count();
            assert!(n <= 1);
            done += n;
        }
    });
    done += queue.take_all().count();
    assert_eq!(queued.into_inner(), done);
    assert_eq!(Arc::strong_count(&work), 1);
}
