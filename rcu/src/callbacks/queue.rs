//! A queue of heads: first in, first out, and appended to another one in one step.

use core::fmt;
use core::ptr::NonNull;

use hal::Platform;

use crate::head::{Callback, Head};

/// Callbacks in the order in which they came.
///
/// Linux: `struct rcu_cblist`. Contexts: any; it belongs to one execution at a time. Cost: O(1) each.
///
/// A queue that is dropped forgets its callbacks, which are then never called.
///
/// # Invariants
/// `ends` is `None` and `len` 0, or it is the first and the last head of a chain of `len` heads, linked by their `next`,
/// of which the last has none. They are prepared, and this queue's by [`Head`]'s H1.
#[derive(Default)]
pub struct Queue {
    ends: Option<(NonNull<Head>, NonNull<Head>)>,
    len: usize,
}

// SAFETY: a queue owns its heads as far as their words go (H1), and they are `Send`.
unsafe impl Send for Queue {}

impl Queue {
    /// A queue without callbacks.
    ///
    /// ```
    /// assert!(rcu::callbacks::Queue::new().is_empty());
    /// ```
    pub const fn new() -> Queue {
        Queue { ends: None, len: 0 }
    }

    /// Whether there is none.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.ends.is_none()
    }

    /// How many there are.
    #[inline]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Appends a callback. Returns `false`, and has changed nothing, if the head is known to be in a queue already, which
    /// is reported in debug builds.
    ///
    /// ```
    /// use core::ptr::NonNull;
    /// use rcu::{Head, callbacks::Queue};
    ///
    /// unsafe fn nothing(_: NonNull<Head>) {}
    /// let (first, second) = (Head::new(), Head::new());
    /// let mut queue = Queue::new();
    /// // SAFETY: both stay where they are until they have been invoked, below.
    /// unsafe {
    ///     queue.push::<hal::Native>(NonNull::from(&first), nothing);
    ///     queue.push::<hal::Native>(NonNull::from(&second), nothing);
    ///     assert_eq!(queue.pop(), Some(NonNull::from(&first)));
    ///     Head::invoke(NonNull::from(&first));
    ///     Head::invoke(queue.pop().unwrap());
    /// }
    /// assert!(queue.is_empty());
    /// ```
    ///
    /// # Safety
    /// As for [`Head::prepare`]; the queue it is given to is this one.
    #[inline]
    #[track_caller]
    pub unsafe fn push<P: Platform>(&mut self, head: NonNull<Head>, function: Callback) -> bool {
        // SAFETY: passed on.
        if !unsafe { Head::prepare::<P>(head, function) } {
            return false;
        }
        // INVARIANT: `head` is prepared, has no next one, and is this queue's from here on.
        self.append(&mut Queue { ends: Some((head, head)), len: 1 });
        true
    }

    /// Appends all that are in `other`, which is empty then.
    #[inline]
    pub fn append(&mut self, other: &mut Queue) {
        let Some((other_first, other_last)) = other.ends.take() else {
            return;
        };
        // INVARIANT: the two chains, linked where one ends, are a chain; `other` has none any more.
        self.ends = Some(match self.ends {
            None => (other_first, other_last),
            Some((first, last)) => {
                // SAFETY: `last` is in this queue.
                unsafe { Head::set_next(last, Some(other_first)) };
                (first, other_last)
            }
        });
        self.len += core::mem::take(&mut other.len);
    }

    /// Takes the first one out. Its words are the caller's: to [invoke](Head::invoke) it is what is left to do.
    #[inline]
    pub fn pop(&mut self) -> Option<NonNull<Head>> {
        let (first, last) = self.ends?;
        // SAFETY: `first` is in this queue.
        let next = unsafe { Head::next(first) };
        // INVARIANT: the chain without its first head.
        self.ends = next.map(|next| (next, last));
        self.len -= 1;
        Some(first)
    }

    /// The first one, as a queue of its own.
    pub(super) fn pop_as_queue(&mut self) -> Queue {
        match self.pop() {
            None => Queue::new(),
            Some(head) => {
                // SAFETY: taken out of this queue just now, to be in the new one.
                unsafe { Head::set_next(head, None) };
                // INVARIANT: one prepared head without a next one.
                Queue { ends: Some((head, head)), len: 1 }
            }
        }
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("len", &self.len).finish_non_exhaustive()
    }
}
