//! Pushing and taking under every schedule and every value that a load may return.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p sync --lib models`. Each rule of ordering has a twin in which it is
//! broken, and which the model must refuse.

use core::ptr::NonNull;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use super::links::{Head, Node, Rules, Sound};
use crate::primitives::Ordering;
use crate::test_platform::Modelled;

/// A node, and what its pusher wants to tell.
#[repr(C)]
struct Item {
    node: Node,
    told: UnsafeCell<u32>,
}

struct Shared<R: Rules> {
    head: Head<R>,
    items: [Item; 2],
}

// SAFETY: the model reports accesses to `told` that are not ordered.
unsafe impl<R: Rules> Sync for Shared<R> {}
// SAFETY: as above.
unsafe impl<R: Rules> Send for Shared<R> {}

impl<R: Rules + 'static> Shared<R> {
    fn new() -> Arc<Shared<R>> {
        let item = || Item { node: Node::new(), told: UnsafeCell::new(0) };
        Arc::new(Shared { head: Head::new(), items: [item(), item()] })
    }

    /// Writes into an item and pushes it.
    fn push(&self, index: usize) -> bool {
        let item = &self.items[index];
        assert!(item.node.claim());
        // SAFETY: claimed; the model checks.
        item.told.with_mut(|told| unsafe { *told = index as u32 + 1 });
        let node = NonNull::from(item).cast();
        // SAFETY: claimed, and in place as long as the list.
        unsafe { self.head.push::<Modelled>(node, node) }
    }

    /// Takes all, and reads what the pushers wrote; last in, first out.
    fn take(&self) -> Vec<u32> {
        let mut rest = self.head.take_all();
        let mut found = Vec::new();
        while let Some(node) = rest {
            // SAFETY: nodes are the first fields of items, and the chain is this thread's; the model checks.
            unsafe {
                found.push(node.cast::<Item>().as_ref().told.with(|told| *told));
                rest = Node::detach(node);
            }
        }
        found
    }
}

fn model(f: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    test_support::check(&builder, f);
}

/// Two pushers and a taker: nothing is lost, nothing comes twice, everything told is seen, and the answers "it was empty"
/// are as many as takings that found something.
fn push_push_take<R: Rules + 'static>() {
    model(|| {
        let shared = Shared::<R>::new();
        let taker = {
            let shared = shared.clone();
            thread::spawn(move || shared.take())
        };
        let pusher = {
            let shared = shared.clone();
            thread::spawn(move || shared.push(0))
        };
        let wakes = usize::from(shared.push(1)) + usize::from(pusher.join().unwrap());
        let early = taker.join().unwrap();
        let late = shared.take();
        assert_eq!(wakes, usize::from(!early.is_empty()) + usize::from(!late.is_empty()));
        let mut all = [early, late].concat();
        all.sort_unstable();
        assert_eq!(all, [1, 2]);
    });
}

#[test]
fn nothing_is_lost_and_everything_told_is_seen() {
    push_push_take::<Sound>();
}

/// The node that is pushed last may be taken by somebody who synchronises with its push only; the one behind it is covered
/// because pushes continue each other's release sequence.
#[test]
fn one_pushes_two_takes_twice() {
    model(|| {
        let shared = Shared::<Sound>::new();
        let taker = {
            let shared = shared.clone();
            thread::spawn(move || shared.take())
        };
        assert!(shared.push(0));
        shared.push(1);
        let mut all = [taker.join().unwrap(), shared.take()].concat();
        all.sort_unstable();
        assert_eq!(all, [1, 2]);
    });
}

/// A node that comes out and is claimed anew: the claimer's writes come after the taker's reads.
#[test]
fn a_node_goes_round() {
    model(|| {
        let shared = Shared::<Sound>::new();
        shared.push(0);
        let again = {
            let shared = shared.clone();
            thread::spawn(move || {
                let item = &shared.items[0];
                if item.node.claim() {
                    // SAFETY: claimed; the model checks.
                    item.told.with_mut(|told| unsafe { *told = 9 });
                }
            })
        };
        let mut rest = shared.head.take_all();
        while let Some(node) = rest {
            // SAFETY: as in `take`.
            unsafe {
                assert_eq!(node.cast::<Item>().as_ref().told.with(|told| *told), 1);
                rest = Node::detach(node);
            }
        }
        again.join().unwrap();
    });
}

/// Broken: what the pusher wrote is not published.
enum RelaxedPush {}
impl Rules for RelaxedPush {
    const PUSH: Ordering = Ordering::Relaxed;
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_relaxed_push_is_caught() {
    push_push_take::<RelaxedPush>();
}

/// Broken: the taker does not look for what was published.
enum RelaxedTake {}
impl Rules for RelaxedTake {
    const TAKE: Ordering = Ordering::Relaxed;
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_relaxed_take_is_caught() {
    push_push_take::<RelaxedTake>();
}
