//! Operations that move what is in a ring already: to another place, to another ring, many at once.
//!
//! None of them marks a node as removed on the way, so nobody else can claim one that only changes its place. Lockless
//! readers get complete nodes at every moment, but one that stands on a node that is moved goes on from the new place,
//! perhaps in another list: such readers must be able to tell where they ended, as those of
//! [nulls lists](crate::list::HList::with_nulls) are.

use core::ptr::NonNull;

use super::corruption::{CHECKED, Corruption};
use super::links::Links;
use super::stores::{
    check_addable, check_initialised, check_member, check_pair, mark_removed, poison_next, publish_next,
    set_prev, unlink,
};

impl Links {
    /// Puts `new` in the place of `old`, which is then removed. Linux: `list_replace`.
    ///
    /// # Errors
    /// Debug builds: `old` is in no ring, `new` is in one, or the neighbours disagree.
    ///
    /// # Safety
    /// As for [`del`](Links::del) of `old` and [`add`](Links::add) of `new`.
    ///
    /// ```
    /// # use core::ptr::NonNull;
    /// # use sync::list::raw::Links;
    /// # let links = [const { Links::new() }; 5];
    /// # let [head, other, a, b, c] = links.each_ref().map(NonNull::from);
    /// # let members = |head: NonNull<Links>| {
    /// #     // SAFETY: the head of a ring that nobody changes meanwhile.
    /// #     let ring = core::iter::successors(Some(head), |&at| Some(unsafe { Links::next(at) }));
    /// #     ring.skip(1).take_while(|&at| at != head).collect::<Vec<_>>()
    /// # };
    /// // SAFETY: all stay in place to the end, and nobody else knows of them.
    /// unsafe {
    ///     Links::init(head);
    ///     Links::add_tail(a, head)?;
    ///     Links::add_tail(b, head)?;
    ///     Links::replace(a, c)?;
    ///     assert_eq!(members(head), [c, b]);
    ///     assert!(!a.as_ref().is_linked());
    /// }
    /// # Ok::<(), sync::list::Corruption>(())
    /// ```
    pub unsafe fn replace(old: NonNull<Links>, new: NonNull<Links>) -> Result<(), Corruption> {
        // SAFETY: as the contract says. `new` is published complete, and a reader meets either it or `old`.
        unsafe {
            check_member(old)?;
            check_addable(new)?;
            let (prev, next) = (Links::prev(old), Links::next(old));
            relink(new, prev, next);
            poison_next(old);
            mark_removed(old);
        }
        Ok(())
    }

    /// Exchanges the places of two members, of one ring or of two. Linux: `list_swap`.
    ///
    /// # Errors
    /// Debug builds: one is in no ring, or its neighbours disagree.
    ///
    /// # Safety
    /// R1 to R3 hold for both rings and both are members.
    ///
    /// ```
    /// # use core::ptr::NonNull;
    /// # use sync::list::raw::Links;
    /// # let links = [const { Links::new() }; 5];
    /// # let [head, other, a, b, c] = links.each_ref().map(NonNull::from);
    /// # let members = |head: NonNull<Links>| {
    /// #     // SAFETY: the head of a ring that nobody changes meanwhile.
    /// #     let ring = core::iter::successors(Some(head), |&at| Some(unsafe { Links::next(at) }));
    /// #     ring.skip(1).take_while(|&at| at != head).collect::<Vec<_>>()
    /// # };
    /// // SAFETY: all stay in place to the end, and nobody else knows of them.
    /// unsafe {
    ///     Links::init(head);
    ///     for node in [a, b, c] {
    ///         Links::add_tail(node, head)?;
    ///     }
    ///     Links::swap(a, c)?;
    ///     assert_eq!(members(head), [c, b, a]);
    ///     Links::swap(c, b)?; // neighbours
    ///     assert_eq!(members(head), [b, c, a]);
    /// }
    /// # Ok::<(), sync::list::Corruption>(())
    /// ```
    pub unsafe fn swap(a: NonNull<Links>, b: NonNull<Links>) -> Result<(), Corruption> {
        if a == b {
            return Ok(());
        }
        // SAFETY: members, so that their neighbours are in rings. If `b` is directly in front of `a` then `b` is moved
        // behind `a`; else `a` takes its place behind `before_a`, which is neither of the two.
        unsafe {
            check_member(a)?;
            check_member(b)?;
            let before_b = Links::prev(b);
            if before_b == a {
                return Links::move_to(a, b);
            }
            let before_a = Links::prev(a);
            if before_a == b {
                return Links::move_to(b, a);
            }
            Links::move_to(a, before_b)?;
            Links::move_to(b, before_a)
        }
    }

    /// Moves a member to the place directly behind `head`, of this ring or another. Linux: `list_move`.
    ///
    /// # Errors
    /// Debug builds: `node` is in no ring, or the neighbours disagree.
    ///
    /// # Safety
    /// R1 to R3 hold for both rings; `node` is a member; `head` is a head or a member other than `node`.
    ///
    /// ```
    /// # use core::ptr::NonNull;
    /// # use sync::list::raw::Links;
    /// # let links = [const { Links::new() }; 5];
    /// # let [head, other, a, b, c] = links.each_ref().map(NonNull::from);
    /// # let members = |head: NonNull<Links>| {
    /// #     // SAFETY: the head of a ring that nobody changes meanwhile.
    /// #     let ring = core::iter::successors(Some(head), |&at| Some(unsafe { Links::next(at) }));
    /// #     ring.skip(1).take_while(|&at| at != head).collect::<Vec<_>>()
    /// # };
    /// // SAFETY: all stay in place to the end, and nobody else knows of them.
    /// unsafe {
    ///     Links::init(head);
    ///     Links::init(other);
    ///     for node in [a, b] {
    ///         Links::add_tail(node, head)?;
    ///     }
    ///     Links::add_tail(c, other)?;
    ///     Links::move_to(b, other)?;
    /// }
    /// assert_eq!((members(head), members(other)), (vec![a], vec![b, c]));
    /// # Ok::<(), sync::list::Corruption>(())
    /// ```
    #[inline]
    pub unsafe fn move_to(node: NonNull<Links>, head: NonNull<Links>) -> Result<(), Corruption> {
        // SAFETY: as the contract says.
        unsafe {
            check_member(node)?;
            check_initialised(head)?;
            unlink(node);
            relink(node, head, Links::next(head));
        }
        Ok(())
    }

    /// Moves a member to the place directly in front of `head`. Linux: `list_move_tail`.
    ///
    /// # Errors
    /// As for [`move_to`](Links::move_to).
    ///
    /// # Safety
    /// As for [`move_to`](Links::move_to).
    ///
    /// ```
    /// # use core::ptr::NonNull;
    /// # use sync::list::raw::Links;
    /// # let links = [const { Links::new() }; 5];
    /// # let [head, other, a, b, c] = links.each_ref().map(NonNull::from);
    /// # let members = |head: NonNull<Links>| {
    /// #     // SAFETY: the head of a ring that nobody changes meanwhile.
    /// #     let ring = core::iter::successors(Some(head), |&at| Some(unsafe { Links::next(at) }));
    /// #     ring.skip(1).take_while(|&at| at != head).collect::<Vec<_>>()
    /// # };
    /// // SAFETY: all stay in place to the end, and nobody else knows of them.
    /// unsafe {
    ///     Links::init(head);
    ///     Links::init(other);
    ///     for node in [a, b] {
    ///         Links::add_tail(node, head)?;
    ///     }
    ///     Links::add_tail(c, other)?;
    ///     Links::move_tail(b, other)?;
    /// }
    /// assert_eq!((members(head), members(other)), (vec![a], vec![c, b]));
    /// # Ok::<(), sync::list::Corruption>(())
    /// ```
    #[inline]
    pub unsafe fn move_tail(node: NonNull<Links>, head: NonNull<Links>) -> Result<(), Corruption> {
        // SAFETY: as the contract says.
        unsafe {
            check_member(node)?;
            check_initialised(head)?;
            unlink(node);
            relink(node, Links::prev(head), head);
        }
        Ok(())
    }

    /// Moves the members from `first` to `last` to the place directly in front of `head`, in their order.
    /// Linux: `list_bulk_move_tail`.
    ///
    /// # Errors
    /// Debug builds: one of the ends is in no ring, or its neighbours disagree.
    ///
    /// # Safety
    /// R1 to R3 hold for both rings; going forward from `first`, `last` comes before the head; `head` is not one of them.
    ///
    /// ```
    /// # use core::ptr::NonNull;
    /// # use sync::list::raw::Links;
    /// # let links = [const { Links::new() }; 5];
    /// # let [head, other, a, b, c] = links.each_ref().map(NonNull::from);
    /// # let members = |head: NonNull<Links>| {
    /// #     // SAFETY: the head of a ring that nobody changes meanwhile.
    /// #     let ring = core::iter::successors(Some(head), |&at| Some(unsafe { Links::next(at) }));
    /// #     ring.skip(1).take_while(|&at| at != head).collect::<Vec<_>>()
    /// # };
    /// // SAFETY: all stay in place to the end, and nobody else knows of them.
    /// unsafe {
    ///     Links::init(head);
    ///     for node in [a, b, c] {
    ///         Links::add_tail(node, head)?;
    ///     }
    ///     Links::bulk_move_tail(a, b, head)?;
    /// }
    /// assert_eq!(members(head), [c, a, b]);
    /// # Ok::<(), sync::list::Corruption>(())
    /// ```
    pub unsafe fn bulk_move_tail(
        first: NonNull<Links>,
        last: NonNull<Links>,
        head: NonNull<Links>,
    ) -> Result<(), Corruption> {
        // SAFETY: as the contract says.
        unsafe {
            check_member(first)?;
            check_member(last)?;
            check_initialised(head)?;
            let (before, behind) = (Links::prev(first), Links::next(last));
            set_prev(behind, before);
            publish_next(before, behind);
            let end = Links::prev(head);
            join(end, first, last, head);
        }
        Ok(())
    }

    /// Moves all members of `from` to the place directly behind `head`, in their order, and leaves `from` empty. `head`
    /// may be the head or any member of another list. Linux: `list_splice_init`.
    ///
    /// # Errors
    /// Debug builds: the ends disagree.
    ///
    /// # Safety
    /// R1 to R3 hold for both rings, which are different ones; `from` is a head.
    ///
    /// ```
    /// # use core::ptr::NonNull;
    /// # use sync::list::raw::Links;
    /// # let links = [const { Links::new() }; 5];
    /// # let [head, other, a, b, c] = links.each_ref().map(NonNull::from);
    /// # let members = |head: NonNull<Links>| {
    /// #     // SAFETY: the head of a ring that nobody changes meanwhile.
    /// #     let ring = core::iter::successors(Some(head), |&at| Some(unsafe { Links::next(at) }));
    /// #     ring.skip(1).take_while(|&at| at != head).collect::<Vec<_>>()
    /// # };
    /// // SAFETY: all stay in place to the end, and nobody else knows of them.
    /// unsafe {
    ///     Links::init(head);
    ///     Links::init(other);
    ///     Links::add_tail(a, head)?;
    ///     for node in [b, c] {
    ///         Links::add_tail(node, other)?;
    ///     }
    ///     Links::splice(other, head)?;
    /// }
    /// assert_eq!((members(head), members(other)), (vec![b, c, a], vec![]));
    /// # Ok::<(), sync::list::Corruption>(())
    /// ```
    pub unsafe fn splice(from: NonNull<Links>, head: NonNull<Links>) -> Result<(), Corruption> {
        // SAFETY: as the contract says.
        unsafe {
            check_initialised(head)?;
            splice_between(from, head, Links::next(head))
        }
    }

    /// Moves all members of `from` to the place directly in front of `head`, in their order, and leaves `from` empty.
    /// Linux: `list_splice_tail_init`.
    ///
    /// # Errors
    /// As for [`splice`](Links::splice).
    ///
    /// # Safety
    /// As for [`splice`](Links::splice).
    ///
    /// ```
    /// # use core::ptr::NonNull;
    /// # use sync::list::raw::Links;
    /// # let links = [const { Links::new() }; 5];
    /// # let [head, other, a, b, c] = links.each_ref().map(NonNull::from);
    /// # let members = |head: NonNull<Links>| {
    /// #     // SAFETY: the head of a ring that nobody changes meanwhile.
    /// #     let ring = core::iter::successors(Some(head), |&at| Some(unsafe { Links::next(at) }));
    /// #     ring.skip(1).take_while(|&at| at != head).collect::<Vec<_>>()
    /// # };
    /// // SAFETY: all stay in place to the end, and nobody else knows of them.
    /// unsafe {
    ///     Links::init(head);
    ///     Links::init(other);
    ///     Links::add_tail(a, head)?;
    ///     for node in [b, c] {
    ///         Links::add_tail(node, other)?;
    ///     }
    ///     Links::splice_tail(other, head)?;
    /// }
    /// assert_eq!((members(head), members(other)), (vec![a, b, c], vec![]));
    /// # Ok::<(), sync::list::Corruption>(())
    /// ```
    pub unsafe fn splice_tail(from: NonNull<Links>, head: NonNull<Links>) -> Result<(), Corruption> {
        // SAFETY: as the contract says.
        unsafe {
            check_initialised(head)?;
            splice_between(from, Links::prev(head), head)
        }
    }

    /// Moves the members from the first up to and including `node` into the empty list `into`. If `node` is the head
    /// itself, nothing is moved. Linux: `list_cut_position`.
    ///
    /// # Errors
    /// Debug builds: `node`'s neighbours disagree.
    ///
    /// # Safety
    /// R1 to R3 hold for both rings; `node` is a member of `head`'s or `head`; `into` is the head of an empty one.
    ///
    /// ```
    /// # use core::ptr::NonNull;
    /// # use sync::list::raw::Links;
    /// # let links = [const { Links::new() }; 5];
    /// # let [head, other, a, b, c] = links.each_ref().map(NonNull::from);
    /// # let members = |head: NonNull<Links>| {
    /// #     // SAFETY: the head of a ring that nobody changes meanwhile.
    /// #     let ring = core::iter::successors(Some(head), |&at| Some(unsafe { Links::next(at) }));
    /// #     ring.skip(1).take_while(|&at| at != head).collect::<Vec<_>>()
    /// # };
    /// // SAFETY: all stay in place to the end, and nobody else knows of them.
    /// unsafe {
    ///     Links::init(head);
    ///     Links::init(other);
    ///     for node in [a, b, c] {
    ///         Links::add_tail(node, head)?;
    ///     }
    ///     Links::cut_position(other, head, b)?;
    /// }
    /// assert_eq!((members(other), members(head)), (vec![a, b], vec![c]));
    /// # Ok::<(), sync::list::Corruption>(())
    /// ```
    pub unsafe fn cut_position(
        into: NonNull<Links>,
        head: NonNull<Links>,
        node: NonNull<Links>,
    ) -> Result<(), Corruption> {
        // SAFETY: as the contract says; what follows a member is a member or the head.
        unsafe {
            check_member(node)?;
            if node == head {
                return Ok(());
            }
            let (first, behind) = (Links::next(head), Links::next(node));
            set_prev(behind, head);
            publish_next(head, behind);
            join(into, first, node, into);
        }
        Ok(())
    }

    /// Moves the members in front of `node` into the empty list `into`. If `node` is the head itself, all are moved.
    /// Linux: `list_cut_before`.
    ///
    /// # Errors
    /// As for [`cut_position`](Links::cut_position).
    ///
    /// # Safety
    /// As for [`cut_position`](Links::cut_position).
    ///
    /// ```
    /// # use core::ptr::NonNull;
    /// # use sync::list::raw::Links;
    /// # let links = [const { Links::new() }; 5];
    /// # let [head, other, a, b, c] = links.each_ref().map(NonNull::from);
    /// # let members = |head: NonNull<Links>| {
    /// #     // SAFETY: the head of a ring that nobody changes meanwhile.
    /// #     let ring = core::iter::successors(Some(head), |&at| Some(unsafe { Links::next(at) }));
    /// #     ring.skip(1).take_while(|&at| at != head).collect::<Vec<_>>()
    /// # };
    /// // SAFETY: all stay in place to the end, and nobody else knows of them.
    /// unsafe {
    ///     Links::init(head);
    ///     Links::init(other);
    ///     for node in [a, b, c] {
    ///         Links::add_tail(node, head)?;
    ///     }
    ///     Links::cut_before(other, head, b)?;
    /// }
    /// assert_eq!((members(other), members(head)), (vec![a], vec![b, c]));
    /// # Ok::<(), sync::list::Corruption>(())
    /// ```
    pub unsafe fn cut_before(
        into: NonNull<Links>,
        head: NonNull<Links>,
        node: NonNull<Links>,
    ) -> Result<(), Corruption> {
        // SAFETY: as the contract says; what is in front of a member is a member or the head, and with that one
        // `cut_position` moves nothing. In front of the head is the last, with which it moves all.
        unsafe {
            check_member(node)?;
            Links::cut_position(into, head, Links::prev(node))
        }
    }

    /// Makes the first member the last. Does nothing to an empty list. Linux: `list_rotate_left`.
    ///
    /// # Errors
    /// Debug builds: the neighbours disagree.
    ///
    /// # Safety
    /// R1 to R3 hold; `head` is a head.
    ///
    /// ```
    /// # use core::ptr::NonNull;
    /// # use sync::list::raw::Links;
    /// # let links = [const { Links::new() }; 5];
    /// # let [head, other, a, b, c] = links.each_ref().map(NonNull::from);
    /// # let members = |head: NonNull<Links>| {
    /// #     // SAFETY: the head of a ring that nobody changes meanwhile.
    /// #     let ring = core::iter::successors(Some(head), |&at| Some(unsafe { Links::next(at) }));
    /// #     ring.skip(1).take_while(|&at| at != head).collect::<Vec<_>>()
    /// # };
    /// // SAFETY: all stay in place to the end, and nobody else knows of them.
    /// unsafe {
    ///     Links::init(head);
    ///     for node in [a, b, c] {
    ///         Links::add_tail(node, head)?;
    ///     }
    ///     Links::rotate_left(head)?;
    /// }
    /// assert_eq!(members(head), [b, c, a]);
    /// # Ok::<(), sync::list::Corruption>(())
    /// ```
    pub unsafe fn rotate_left(head: NonNull<Links>) -> Result<(), Corruption> {
        // SAFETY: as the contract says.
        unsafe {
            check_initialised(head)?;
            let first = Links::next(head);
            if first == head { Ok(()) } else { Links::move_tail(first, head) }
        }
    }

    /// Rotates the list so that `node` becomes the first. Linux: `list_rotate_to_front`.
    ///
    /// # Errors
    /// Debug builds: the neighbours disagree.
    ///
    /// # Safety
    /// R1 to R3 hold; `node` is a member of the list of `head`.
    ///
    /// ```
    /// # use core::ptr::NonNull;
    /// # use sync::list::raw::Links;
    /// # let links = [const { Links::new() }; 5];
    /// # let [head, other, a, b, c] = links.each_ref().map(NonNull::from);
    /// # let members = |head: NonNull<Links>| {
    /// #     // SAFETY: the head of a ring that nobody changes meanwhile.
    /// #     let ring = core::iter::successors(Some(head), |&at| Some(unsafe { Links::next(at) }));
    /// #     ring.skip(1).take_while(|&at| at != head).collect::<Vec<_>>()
    /// # };
    /// // SAFETY: all stay in place to the end, and nobody else knows of them.
    /// unsafe {
    ///     Links::init(head);
    ///     for node in [a, b, c] {
    ///         Links::add_tail(node, head)?;
    ///     }
    ///     Links::rotate_to_front(b, head)?;
    /// }
    /// assert_eq!(members(head), [b, c, a]);
    /// # Ok::<(), sync::list::Corruption>(())
    /// ```
    pub unsafe fn rotate_to_front(node: NonNull<Links>, head: NonNull<Links>) -> Result<(), Corruption> {
        // SAFETY: as the contract says. The head is in the ring like everybody else: moving it to the place in front of
        // `node` is the rotation.
        unsafe { Links::move_tail(head, node) }
    }

    /// Puts the head at another address: `new` becomes the head of the ring that `first` and `last` are the ends of.
    ///
    /// # Safety
    /// R1 to R3 hold for that ring, whose head's former memory need not exist any more; `new` is valid and R2 holds for it
    /// from here on. No lockless readers are let in.
    ///
    /// ```
    /// use core::ptr::NonNull;
    /// use sync::list::raw::Links;
    /// let (a, new) = (Links::new(), Links::new());
    /// let (a, new) = (NonNull::from(&a), NonNull::from(&new));
    /// // SAFETY: node and new head stay in place to the end, and nobody else knows of them.
    /// unsafe {
    ///     let old = Links::new();
    ///     Links::init(NonNull::from(&old));
    ///     Links::add(a, NonNull::from(&old))?;
    ///     drop(old); // whose address the node still has
    ///     Links::rehome(new, a, a);
    ///     assert_eq!((Links::next(new), Links::next(a)), (a, new));
    /// }
    /// # Ok::<(), sync::list::Corruption>(())
    /// ```
    pub unsafe fn rehome(new: NonNull<Links>, first: NonNull<Links>, last: NonNull<Links>) {
        // SAFETY: all are valid.
        unsafe { join(new, first, last, new) };
    }
}

/// Writes a node that is in no neighbour's links into a place.
///
/// # Safety
/// `prev` and `next` are neighbours in a ring for which R1 to R3 hold; `node` is unlinked from its former one.
#[inline(always)]
unsafe fn relink(node: NonNull<Links>, prev: NonNull<Links>, next: NonNull<Links>) {
    // SAFETY: as the contract says.
    unsafe { join(prev, node, node, next) };
}

/// Joins a chain from `first` to `last` to what comes before and behind it.
///
/// # Safety
/// All four are valid, and the caller is the writer of the rings that they come from.
#[inline(always)]
unsafe fn join(before: NonNull<Links>, first: NonNull<Links>, last: NonNull<Links>, behind: NonNull<Links>) {
    // SAFETY: as the contract says.
    unsafe {
        set_prev(behind, last);
        // Published: unlike a new node, the chain may have lockless readers on it.
        publish_next(last, behind);
        set_prev(first, before);
        publish_next(before, first);
    }
}

/// # Safety
/// As for [`Links::splice`]; `prev` and `next` are neighbours.
unsafe fn splice_between(
    from: NonNull<Links>,
    prev: NonNull<Links>,
    next: NonNull<Links>,
) -> Result<(), Corruption> {
    // SAFETY: as the contract says.
    unsafe {
        check_member(from)?;
        if CHECKED {
            check_pair(prev, next)?;
        }
        if Links::is_empty(from) {
            return Ok(());
        }
        let (first, last) = (Links::next(from), Links::prev(from));
        join(prev, first, last, next);
        Links::init(from);
    }
    Ok(())
}
