//! The single stores that ring operations are made of, in the order that readers rely on, and the checks before them.
//!
//! R1 to R5 are the invariants of the [ring](super::raw).

use core::ptr::{self, NonNull};

use super::corruption::{CHECKED, CLAIMED, Corruption, POISON_NEXT, POISON_PREV, marker};
use super::links::Links;
use crate::primitives::Ordering;

/// Whether this `prev` says that the node is in no ring (R4).
#[inline(always)]
pub(super) fn is_free(prev: *mut Links) -> bool {
    prev.is_null() || (CHECKED && prev.addr() == POISON_PREV)
}

/// Writes `node.next` where no reader can be led astray by it, because none can reach `node`, or none is let in.
///
/// # Safety
/// `node` is valid, and the caller is its ring's writer.
#[inline(always)]
pub(super) unsafe fn set_next(node: NonNull<Links>, next: NonNull<Links>) {
    // SAFETY: valid by the contract.
    unsafe { node.as_ref() }.next.store(next.as_ptr(), Ordering::Relaxed);
}

/// Writes `node.next` where a lockless reader may find it (R5).
///
/// # Safety
/// `node` is valid, and the caller is its ring's writer.
#[inline(always)]
pub(super) unsafe fn publish_next(node: NonNull<Links>, next: NonNull<Links>) {
    // Release pairs with the acquire in `Links::next`: the reader sees `next` and its object as they were made.
    // SAFETY: valid by the contract.
    unsafe { node.as_ref() }.next.store(next.as_ptr(), Ordering::Release);
}

/// Writes `node.prev`. Relaxed: who reads it excludes the writer.
///
/// # Safety
/// `node` is valid, and the caller is its ring's writer.
#[inline(always)]
pub(super) unsafe fn set_prev(node: NonNull<Links>, prev: NonNull<Links>) {
    // SAFETY: valid by the contract.
    unsafe { node.as_ref() }.prev.store(prev.as_ptr(), Ordering::Relaxed);
}

/// Puts `new` between two neighbours.
///
/// # Safety
/// As for [`Links::add`].
#[inline]
pub(super) unsafe fn insert(
    new: NonNull<Links>,
    prev: NonNull<Links>,
    next: NonNull<Links>,
) -> Result<(), Corruption> {
    // SAFETY: all three are valid, and two in the ring.
    unsafe {
        check_addable(new)?;
        check_pair(prev, next)?;
    }
    // The reader's way in is last: until then it goes from `prev` to `next`, past the new node.
    // SAFETY: all three are valid.
    unsafe {
        set_prev(next, new);
        set_next(new, next);
        set_prev(new, prev);
        publish_next(prev, new);
    }
    Ok(())
}

/// Joins the neighbours of `node`, and leaves the node itself as it is.
///
/// # Safety
/// `node` is a member of a ring for which R1 to R3 hold.
#[inline(always)]
pub(super) unsafe fn unlink(node: NonNull<Links>) {
    // SAFETY: as the contract says.
    unsafe {
        let (prev, next) = (Links::prev(node), Links::next(node));
        set_prev(next, prev);
        // Published, and not just stored: a reader that comes from `prev` has only this store to see `next` complete by.
        publish_next(prev, next);
    }
}

/// Notes that the node is in no ring any more.
///
/// # Safety
/// `node` is valid and has been unlinked by the caller.
#[inline(always)]
pub(super) unsafe fn mark_removed(node: NonNull<Links>) {
    let mark = if CHECKED { marker(POISON_PREV) } else { ptr::null_mut() };
    // Release pairs with the acquire in `Links::claim`.
    // SAFETY: valid by the contract.
    unsafe { node.as_ref() }.prev.store(mark, Ordering::Release);
}

/// Makes sure that nobody follows a removed node unnoticed.
///
/// # Safety
/// `node` is valid, was unlinked by the caller, and lockless readers are not let in.
#[inline(always)]
pub(super) unsafe fn poison_next(node: NonNull<Links>) {
    if CHECKED {
        // SAFETY: valid by the contract.
        unsafe { node.as_ref() }.next.store(marker(POISON_NEXT), Ordering::Relaxed);
    }
}

/// Whether `node` is in no ring, or claimed, which its adder has done.
///
/// # Safety
/// `node` is valid.
#[inline(always)]
pub(super) unsafe fn check_addable(node: NonNull<Links>) -> Result<(), Corruption> {
    if CHECKED {
        // SAFETY: valid by the contract.
        let state = unsafe { node.as_ref() }.prev.load(Ordering::Relaxed);
        if !is_free(state) && state.addr() != CLAIMED {
            return Err(Corruption::DoubleAdd { node: node.addr().get() });
        }
    }
    Ok(())
}

/// # Safety
/// `head` is valid.
#[inline(always)]
pub(super) unsafe fn check_initialised(head: NonNull<Links>) -> Result<(), Corruption> {
    // SAFETY: valid by the contract.
    if CHECKED && !unsafe { head.as_ref() }.is_linked() {
        return Err(Corruption::NotInList { node: head.addr().get() });
    }
    Ok(())
}

/// Whether `node` is in a ring and both neighbours agree.
///
/// # Safety
/// `node` is valid, and if it is in a ring then R2 and R3 hold for that.
#[inline(always)]
pub(super) unsafe fn check_member(node: NonNull<Links>) -> Result<(), Corruption> {
    if CHECKED {
        // SAFETY: valid by the contract.
        let links = unsafe { node.as_ref() };
        let (prev, next) = (links.prev.load(Ordering::Relaxed), links.next.load(Ordering::Relaxed));
        let address = node.addr().get();
        let (Some(prev), Some(next)) = (NonNull::new(prev), NonNull::new(next)) else {
            return Err(Corruption::NotInList { node: address });
        };
        if prev.addr().get() == POISON_PREV || next.addr().get() == POISON_NEXT {
            return Err(Corruption::DoubleRemove { node: address });
        }
        if prev.addr().get() == CLAIMED {
            return Err(Corruption::NotInList { node: address });
        }
        // SAFETY: not a marker, so it is in a ring, and its neighbours are valid.
        unsafe {
            check_pair(prev, node)?;
            check_pair(node, next)?;
        }
    }
    Ok(())
}

/// Whether `prev` and `next` are neighbours and agree on it.
///
/// # Safety
/// Both are valid.
#[inline(always)]
pub(super) unsafe fn check_pair(prev: NonNull<Links>, next: NonNull<Links>) -> Result<(), Corruption> {
    if CHECKED {
        // SAFETY: valid by the contract.
        let (forth, back) = unsafe {
            (prev.as_ref().next.load(Ordering::Relaxed), next.as_ref().prev.load(Ordering::Relaxed))
        };
        if forth != next.as_ptr() {
            let (node, prev, found) = (next.addr().get(), prev.addr().get(), forth.addr());
            return Err(Corruption::PrevDisagrees { node, prev, found });
        }
        if back != prev.as_ptr() {
            let (node, next, found) = (prev.addr().get(), next.addr().get(), back.addr());
            return Err(Corruption::NextDisagrees { node, next, found });
        }
    }
    Ok(())
}
