//! Rings that were moved, and chains between which nodes move, under every schedule and every value that a load may return.
//!
//! Run with `cargo xtask models rcu --filter ring`. What readers of one ring or chain find while it is changed is modelled
//! beside the links, in `sync`.

use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::thread;
use sync::list::raw::{HHead, HLinks};

use super::*;
use crate::modelled::Modelled;

/// Broken: who finds the list settled may not see the ends as they are.
enum RelaxedHome {}
impl Rules for RelaxedHome {
    const SETTLED: Ordering = Ordering::Relaxed;
}

fn check(preemptions: usize, f: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    test_support::check(&builder, f);
}

/// Two who come to a ring that was moved: each finds the one member, and then the end.
fn first_users<R: Rules>() {
    struct Shared {
        ring: Ring,
        member: Links,
    }
    // SAFETY: the models check what this claims.
    unsafe impl Sync for Shared {}
    // SAFETY: as above.
    unsafe impl Send for Shared {}

    check(3, || {
        let before = Box::new(Shared { ring: Ring::new(), member: Links::new() });
        let shared = Arc::new(Shared { ring: Ring::new(), member: Links::new() });
        let member = NonNull::from(&shared.member);
        let former = before.ring.anchor_by::<Modelled, R>();
        // SAFETY: both stay in place as long as they are in the ring.
        unsafe { Links::add(member, former) }.unwrap();
        // What moving the head does to its words.
        // SAFETY: nobody else has either of the two.
        let moved = Arc::new(unsafe { core::ptr::read(&before.ring) });
        core::mem::forget(before);
        let users: [_; 2] = core::array::from_fn(|_| {
            let (ring, shared) = (Arc::clone(&moved), Arc::clone(&shared));
            thread::spawn(move || {
                let head = ring.anchor_by::<Modelled, R>();
                let member = NonNull::from(&shared.member);
                // SAFETY: members of the ring, which lives.
                unsafe {
                    assert_eq!(Links::next(head), member);
                    assert_eq!(Links::next(member), head, "led to the former head");
                }
            })
        });
        users.into_iter().for_each(|user| user.join().unwrap());
    });
}

#[test]
fn the_first_users_of_a_moved_ring_find_its_end() {
    first_users::<Sound>();
}

#[test]
#[should_panic(expected = "led to the former head")]
fn settling_without_release_is_refused() {
    first_users::<RelaxedHome>();
}

/// An object: its number is written before it is added.
#[repr(C)]
struct Item {
    links: HLinks,
    number: UnsafeCell<u32>,
}

struct Chains {
    heads: [HHead; 2],
    items: [Item; 3],
}

// SAFETY: the models check what this claims.
unsafe impl Sync for Chains {}
// SAFETY: as above.
unsafe impl Send for Chains {}

impl Chains {
    fn new() -> Arc<Chains> {
        let item = || Item { links: HLinks::new(), number: UnsafeCell::new(0) };
        let heads = [HHead::with_nulls(0), HHead::with_nulls(1)];
        Arc::new(Chains { heads, items: [item(), item(), item()] })
    }

    /// Adds an item to a chain, with its number.
    fn add(&self, item: usize, chain: usize) {
        // SAFETY: not in a chain yet; the model checks.
        self.items[item].number.with_mut(|number| unsafe { *number = item as u32 });
        // SAFETY: one writer; all stays in place.
        unsafe { self.heads[chain].add(NonNull::from(&self.items[item]).cast()) }.unwrap();
    }

    fn move_to(&self, item: usize, chain: usize) {
        let node = NonNull::from(&self.items[item]).cast();
        // SAFETY: a member; as above.
        unsafe {
            HLinks::del_rcu(node).unwrap();
            self.heads[chain].add(node).unwrap();
        }
    }

    /// Whether a reader finds the item with this number in chain 0, by a walk that `LOOKS` where it has ended.
    fn finds<const LOOKS: bool>(&self, wanted: u32) -> bool {
        loop {
            let mut at = self.heads[0].first_or_end();
            while let Ok(node) = at {
                // SAFETY: the first field of an item.
                let item = unsafe { node.cast::<Item>().as_ref() };
                // SAFETY: the model reports accesses that are not ordered with this.
                if item.number.with(|number| unsafe { *number }) == wanted {
                    return true;
                }
                // SAFETY: a member of one of the chains.
                at = unsafe { HLinks::next_or_end(node) };
            }
            if !LOOKS || at == Err(0) {
                return false;
            }
            thread::yield_now();
        }
    }
}

/// A reader looks for an item that stays in chain 0, while the one in front of it moves to chain 1, in which there is a
/// new one.
fn carried_away<const LOOKS: bool>() {
    check(3, || {
        let chains = Chains::new();
        chains.add(1, 0);
        chains.add(0, 0);
        let reader = {
            let chains = Arc::clone(&chains);
            thread::spawn(move || assert!(chains.finds::<LOOKS>(1), "what stays was missed"))
        };
        let writer = thread::spawn(move || {
            chains.add(2, 1);
            chains.move_to(0, 1);
        });
        reader.join().unwrap();
        writer.join().unwrap();
    });
}

#[test]
fn a_reader_that_is_carried_away_from_its_ring_or_chain_notices() {
    carried_away::<true>();
}

#[test]
#[should_panic(expected = "what stays was missed")]
fn a_walk_that_does_not_look_where_it_ends_is_refused() {
    carried_away::<false>();
}
