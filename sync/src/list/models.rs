//! One writer and a reader without a lock, and claims that meet, under every schedule and every value that a load may
//! return.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p sync --lib models`. Each rule has a twin in which it is broken, and which
//! the model must refuse.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use super::*;
use crate::list::stores::set_next;

/// An object: its number is written before it is added, and read by whoever reaches it.
#[repr(C)]
struct Item {
    links: Links,
    number: UnsafeCell<u32>,
}

struct Shared {
    head: Links,
    items: [Item; 3],
}

// SAFETY: the model reports accesses to `number` that are not ordered.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

impl Shared {
    /// A list of the first `n` items.
    fn new(n: usize) -> Arc<Shared> {
        let item = || Item { links: Links::new(), number: UnsafeCell::new(0) };
        let shared = Arc::new(Shared { head: Links::new(), items: [item(), item(), item()] });
        // SAFETY: inside of an `Arc`, so in place.
        unsafe { Links::init(shared.head()) };
        for index in 0..n {
            // SAFETY: fresh items.
            unsafe { Links::add_tail(shared.prepared(index), shared.head()) }.unwrap();
        }
        shared
    }

    fn head(&self) -> NonNull<Links> {
        NonNull::from(&self.head)
    }

    fn item(&self, index: usize) -> NonNull<Links> {
        NonNull::from(&self.items[index]).cast()
    }

    /// An item with its number written.
    fn prepared(&self, index: usize) -> NonNull<Links> {
        // SAFETY: not yet in the list; the model checks.
        self.items[index].number.with_mut(|number| unsafe { *number = index as u32 + 1 });
        self.item(index)
    }

    /// What a reader without a lock finds.
    fn walk(&self) -> Vec<u32> {
        let mut found = Vec::new();
        let mut at = self.head();
        loop {
            // SAFETY: readable, also when removed: the items live as long as the model.
            at = unsafe { Links::next(at) };
            if at == self.head() {
                return found;
            }
            // SAFETY: links are the first fields of items; the model checks the access.
            found.push(unsafe { at.cast::<Item>().as_ref() }.number.with(|number| unsafe { *number }));
        }
    }
}

/// The reader finds the list as it was or as it is, and complete items.
fn reader_while_adding(
    add: unsafe fn(NonNull<Links>, NonNull<Links>) -> Result<(), Corruption>,
    after: [u32; 2],
) {
    test_support::model(move || {
        let shared = Shared::new(1);
        let reader = {
            let shared = shared.clone();
            thread::spawn(move || shared.walk())
        };
        // SAFETY: a fresh item, one writer.
        unsafe { add(shared.prepared(1), shared.head()) }.unwrap();
        let found = reader.join().unwrap();
        assert!(found == [1] || found == after, "{found:?}");
        assert_eq!(shared.walk(), after);
    });
}

#[test]
fn a_reader_while_one_is_added_at_the_head() {
    reader_while_adding(Links::add, [2, 1]);
}

#[test]
fn a_reader_while_one_is_added_at_the_tail() {
    reader_while_adding(Links::add_tail, [1, 2]);
}

/// Broken: published before the new node knows what follows.
///
/// # Safety
/// As for [`Links::add`].
unsafe fn add_too_early(new: NonNull<Links>, head: NonNull<Links>) -> Result<(), Corruption> {
    // SAFETY: valid.
    unsafe {
        let next = Links::next(head);
        publish_next(head, new);
        set_next(new, next);
        set_prev(new, head);
        set_prev(next, new);
    }
    Ok(())
}

#[test]
#[should_panic(expected = "in no list")]
fn publishing_too_early_is_caught() {
    reader_while_adding(add_too_early, [2, 1]);
}

/// Broken: the store that makes the node reachable is relaxed.
///
/// # Safety
/// As for [`Links::add`].
unsafe fn add_relaxed(new: NonNull<Links>, head: NonNull<Links>) -> Result<(), Corruption> {
    // SAFETY: valid.
    unsafe {
        let next = Links::next(head);
        set_prev(next, new);
        set_next(new, next);
        set_prev(new, head);
        set_next(head, new);
    }
    Ok(())
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_relaxed_publication_is_caught() {
    reader_while_adding(add_relaxed, [2, 1]);
}

#[test]
fn a_reader_while_one_is_removed() {
    test_support::model(|| {
        let shared = Shared::new(3);
        let reader = {
            let shared = shared.clone();
            thread::spawn(move || shared.walk())
        };
        // SAFETY: a member, one writer; nobody reuses it while the reader may be on it.
        unsafe { Links::del_rcu(shared.item(1)) }.unwrap();
        let found = reader.join().unwrap();
        assert!(found == [1, 2, 3] || found == [1, 3], "{found:?}");
    });
}

#[test]
fn a_reader_while_another_list_is_spliced_in() {
    test_support::model(|| {
        let (shared, other) = (Shared::new(1), Shared::new(1));
        let reader = {
            let shared = shared.clone();
            thread::spawn(move || shared.walk())
        };
        // SAFETY: two heads, one writer.
        unsafe { Links::splice_tail(other.head(), shared.head()) }.unwrap();
        let found = reader.join().unwrap();
        assert!(found == [1] || found == [1, 1], "{found:?}");
    });
}

/// Of two that want to add one node, one succeeds, and what it writes comes after what the former owner read.
#[test]
fn claims_meet() {
    test_support::model(|| {
        let shared = Shared::new(1);
        let claimers = [1, 2].map(|by| {
            let shared = shared.clone();
            thread::spawn(move || {
                let mine = shared.items[0].links.claim();
                if mine {
                    // SAFETY: claimed; the model checks.
                    shared.items[0].number.with_mut(|number| unsafe { *number = by });
                }
                mine
            })
        });
        // SAFETY: still a member of the list; the model checks.
        assert_eq!(shared.items[0].number.with(|number| unsafe { *number }), 1);
        // SAFETY: a member, one writer.
        unsafe { Links::del(shared.item(0)) }.unwrap();
        let successes = claimers.map(|claimer| claimer.join().unwrap()).iter().filter(|mine| **mine).count();
        assert!(successes <= 1);
    });
}

/// Broken: the mark of removal is relaxed.
#[test]
#[should_panic(expected = "Causality violation")]
fn a_relaxed_mark_is_caught() {
    test_support::model(|| {
        let shared = Shared::new(1);
        let claimer = {
            let shared = shared.clone();
            thread::spawn(move || {
                if shared.items[0].links.claim() {
                    // SAFETY: the model finds that it is not safe.
                    shared.items[0].number.with_mut(|number| unsafe { *number = 2 });
                }
            })
        };
        // SAFETY: still a member of the list.
        assert_eq!(shared.items[0].number.with(|number| unsafe { *number }), 1);
        // SAFETY: a member, one writer.
        unsafe { unlink(shared.item(0)) };
        shared.items[0].links.prev.store(ptr::null_mut(), Ordering::Relaxed);
        claimer.join().unwrap();
    });
}
