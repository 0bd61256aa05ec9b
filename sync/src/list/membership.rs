//! How objects become members and cease to be: what all of the typed list's operations go through.

use core::ptr::NonNull;

use super::corruption::Corruption;
use super::field::{Field, link_of, object_of};
use super::link::{RingLink, report_refused};
use super::links::Links;
use super::owner::Owner;
use super::typed::List;

impl<O: Owner, F: Field<Object = O::Object, Link: RingLink>> List<O, F> {
    /// The head, after making sure that the ring's ends know where it is (L1). Cost: one comparison, unless moved.
    #[inline(always)]
    pub(super) fn anchor(&mut self) -> NonNull<Links> {
        let head = NonNull::from(&mut self.head);
        if self.home != head.addr().get() {
            self.settle(head);
        }
        head
    }

    /// Takes up residence at a new address.
    #[cold]
    fn settle(&mut self, head: NonNull<Links>) {
        let empty = self.is_empty();
        self.home = head.addr().get();
        // SAFETY: the head's pointers to the ends moved with it, and the ends are valid (R2). Nobody reads meanwhile: the
        // list is borrowed mutably.
        unsafe {
            if empty {
                Links::init(head);
            } else {
                Links::rehome(head, Links::next(head), Links::prev(head));
            }
        }
    }

    /// Claims the node of `owner` and gives it to `add`, or gives the owner back.
    ///
    /// # Safety
    /// `at` is in the ring of an anchored list of this type that the caller has borrowed mutably.
    #[inline(always)]
    #[track_caller]
    pub(super) unsafe fn try_insert(
        operation: &'static str,
        owner: O,
        at: NonNull<Links>,
        add: unsafe fn(NonNull<Links>, NonNull<Links>) -> Result<(), Corruption>,
    ) -> Result<(), O> {
        // SAFETY: `owner` points to an object, whose field is a link.
        let (object, node) = unsafe {
            let object = owner.into_raw();
            (object, node_of::<F>(object))
        };
        // SAFETY: valid.
        let links = unsafe { node.as_ref() };
        let mine = if O::SHARED { links.claim() } else { !links.is_linked() };
        if mine {
            // SAFETY: claimed, or the only pointer to the object; it stays in place until it is removed (`Owner`).
            match unsafe { add(node, at) } {
                Ok(()) => return Ok(()),
                Err(why) => {
                    report_refused::<<F::Link as RingLink>::Platform>(operation, why);
                    links.unclaim();
                }
            }
        }
        // SAFETY: taken apart above, and not in a list.
        Err(unsafe { O::from_raw(object) })
    }

    /// As `try_insert`, for callers to whom a linked node is a mistake.
    ///
    /// # Safety
    /// As for `try_insert`.
    #[inline(always)]
    #[track_caller]
    pub(super) unsafe fn insert(
        operation: &'static str,
        owner: O,
        at: NonNull<Links>,
        add: unsafe fn(NonNull<Links>, NonNull<Links>) -> Result<(), Corruption>,
    ) {
        // SAFETY: as the contract says.
        if let Err(owner) = unsafe { Self::try_insert(operation, owner, at, add) } {
            let object = owner.into_raw();
            // SAFETY: the field of the object.
            let node = unsafe { node_of::<F>(object) };
            // SAFETY: valid. If it is in no list then the ring was broken, and that has been reported.
            if unsafe { node.as_ref() }.is_linked() {
                let why = Corruption::DoubleAdd { node: node.addr().get() };
                report_refused::<<F::Link as RingLink>::Platform>(operation, why);
            }
            // SAFETY: taken apart above.
            drop(unsafe { O::from_raw(object) });
        }
    }

    /// Removes a member and puts its owner together again. `None` if the ring is broken, which is reported.
    ///
    /// # Safety
    /// `node` is a member of a list of this type that the caller has borrowed mutably, and is as `into_raw` gave it.
    #[inline(always)]
    #[track_caller]
    pub(super) unsafe fn take_out(operation: &'static str, node: NonNull<Links>) -> Option<O> {
        // SAFETY: a member.
        match unsafe { Links::del(node) } {
            // SAFETY: its owner was taken apart when it was added (L2).
            Ok(()) => Some(unsafe { O::from_raw(object_at::<F>(node)) }),
            Err(why) => {
                report_refused::<<F::Link as RingLink>::Platform>(operation, why);
                None
            }
        }
    }

    /// Reports what `done` says was refused.
    #[inline(always)]
    #[track_caller]
    pub(super) fn check(operation: &'static str, done: Result<(), Corruption>) {
        if let Err(why) = done {
            report_refused::<<F::Link as RingLink>::Platform>(operation, why);
        }
    }
}

/// The ring's part of an object's link.
///
/// # Safety
/// `object` is valid.
#[inline(always)]
pub(super) unsafe fn node_of<F: Field<Link: RingLink>>(object: NonNull<F::Object>) -> NonNull<Links> {
    // SAFETY: as the contract says.
    RingLink::links(unsafe { link_of::<F>(object) })
}

/// The object that a member belongs to.
///
/// # Safety
/// `node` came from [`node_of`] with the same `F`.
#[inline(always)]
pub(super) unsafe fn object_at<F: Field<Link: RingLink>>(node: NonNull<Links>) -> NonNull<F::Object> {
    // SAFETY: as the contract says.
    unsafe { object_of::<F>(RingLink::from_links(node)) }
}
