//! One CPU's callbacks, by what they wait for.

use core::mem::take;
use core::ptr::NonNull;

use hal::Platform;

use super::queue::Queue;
use crate::head::{Callback, Head};
use crate::seq::{Cookie, has_reached};

/// What the callbacks of a part of the list wait for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Segment {
    /// Nothing: their grace period has ended, they may be called.
    Done,
    /// The earliest grace period that one of this CPU's callbacks waits for.
    Wait,
    /// A later one.
    NextReady,
    /// One that nobody has asked for yet.
    Next,
}

impl Segment {
    /// All of them, in the order in which callbacks pass through.
    pub const ALL: [Segment; 4] = [Segment::Done, Segment::Wait, Segment::NextReady, Segment::Next];
}

/// Callbacks that wait for grace periods, in the order in which they came.
///
/// Linux: `struct rcu_segcblist`. There the segments are pointers into one chain; here each is a queue with both ends,
/// which makes the moves the same one operation. Contexts: any; it belongs to one execution at a time. Cost: O(1) each.
///
/// # Invariants
/// * The order of segments is the order in which callbacks came, except that lazy ones are younger than they look.
/// * *next-ready* is empty if *wait* is. Where both are not, the cookie of *wait* is the earlier one.
/// * Cookies of segments that are empty mean nothing.
#[derive(Debug)]
pub struct Segmented {
    segments: [Queue; 4],
    /// What *wait* and *next-ready* wait for.
    cookies: [Cookie; 2],
    /// Those that can wait until something else asks for a grace period.
    lazy: Queue,
}

const DONE: usize = Segment::Done as usize;
const NEXT: usize = Segment::Next as usize;

impl Segmented {
    /// A list without callbacks.
    pub const fn new() -> Segmented {
        const NONE: Cookie = Cookie::from_number(0);
        Segmented { segments: [const { Queue::new() }; 4], cookies: [NONE; 2], lazy: Queue::new() }
    }

    /// How many callbacks there are, lazy ones included.
    #[inline]
    pub fn len(&self) -> usize {
        Segment::ALL.into_iter().map(|segment| self.len_of(segment)).sum::<usize>() + self.lazy.len()
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.segments.iter().all(Queue::is_empty) && self.lazy.is_empty()
    }

    /// How many are in one segment.
    #[inline]
    pub fn len_of(&self, segment: Segment) -> usize {
        self.segments[segment as usize].len()
    }

    /// How many are lazy, and in no segment yet.
    #[inline]
    pub fn lazy_len(&self) -> usize {
        self.lazy.len()
    }

    /// The grace period that the callbacks of `segment` wait for, if there are such and it is known.
    pub fn cookie_of(&self, segment: Segment) -> Option<Cookie> {
        let cookie = match segment {
            Segment::Wait => self.cookies[0],
            Segment::NextReady => self.cookies[1],
            Segment::Done | Segment::Next => return None,
        };
        (self.len_of(segment) != 0).then_some(cookie)
    }

    /// Adds a callback, which asks for a grace period when the list is accelerated. Lazy ones
    /// come along, because the grace period costs them nothing. Returns `false` if the head was queued already.
    ///
    /// # Safety
    /// As for [`Queue::push`].
    #[inline]
    #[track_caller]
    pub unsafe fn push<P: Platform>(&mut self, head: NonNull<Head>, function: Callback) -> bool {
        self.hurry();
        // SAFETY: passed on.
        unsafe { self.segments[NEXT].push::<P>(head, function) }
    }

    /// Adds a callback that can wait. Returns `false` if the head was queued already.
    ///
    /// # Safety
    /// As for [`Queue::push`].
    #[inline]
    #[track_caller]
    pub unsafe fn push_lazy<P: Platform>(&mut self, head: NonNull<Head>, function: Callback) -> bool {
        // SAFETY: passed on.
        unsafe { self.lazy.push::<P>(head, function) }
    }

    /// Makes the lazy callbacks ordinary ones.
    #[inline]
    pub fn hurry(&mut self) {
        self.segments[NEXT].append(&mut self.lazy);
    }

    /// Adds a callback behind all others, such that it is called when they have been, and no grace period later. Lazy
    /// ones are made ordinary. Returns `false` if the head was queued already.
    ///
    /// Linux: `rcu_segcblist_entrain`.
    ///
    /// # Safety
    /// As for [`Queue::push`]. The function needs no grace period of its own.
    #[track_caller]
    pub unsafe fn entrain<P: Platform>(&mut self, head: NonNull<Head>, function: Callback) -> bool {
        self.hurry();
        let last = self.segments.iter().rposition(|queue| !queue.is_empty()).unwrap_or(DONE);
        // SAFETY: passed on.
        unsafe { self.segments[last].push::<P>(head, function) }
    }

    /// The number of grace periods that have begun and ended is `number`: moves those whose one has ended to *done*.
    ///
    /// Linux: `rcu_segcblist_advance`.
    pub(crate) fn advance(&mut self, number: usize) {
        let [done, wait, next_ready, _] = &mut self.segments;
        if !wait.is_empty() && has_reached(number, self.cookies[0].number()) {
            done.append(wait);
        }
        if !next_ready.is_empty() && has_reached(number, self.cookies[1].number()) {
            // INVARIANT: its cookie is later than that of *wait*, which has become empty above, or was.
            done.append(next_ready);
        }
        self.settle();
    }

    /// Moves *next-ready* up if there is nothing before it.
    fn settle(&mut self) {
        let [_, wait, next_ready, _] = &mut self.segments;
        if wait.is_empty() && !next_ready.is_empty() {
            wait.append(next_ready);
            self.cookies[0] = self.cookies[1];
        }
    }

    /// Lets *next* wait for the grace period of `cookie`, which was taken after all of them were queued. If two later
    /// ones are waited for already, they stay until one has ended. Returns the latest grace period that anybody here
    /// waits for then.
    ///
    /// Linux: `rcu_segcblist_accelerate`.
    pub(crate) fn accelerate(&mut self, cookie: Cookie) -> Option<Cookie> {
        let [_, wait, next_ready, next] = &mut self.segments;
        if !next.is_empty() {
            if wait.is_empty() || !cookie.is_after(self.cookies[0]) {
                // INVARIANT: *next-ready* stays empty: it was if *wait* was, and otherwise its cookie would be later than
                // one that the sequence has only now come to.
                wait.append(next);
                self.cookies[0] = cookie;
            } else if next_ready.is_empty() || !cookie.is_after(self.cookies[1]) {
                next_ready.append(next);
                self.cookies[1] = cookie;
            }
        }
        self.cookie_of(Segment::NextReady).or(self.cookie_of(Segment::Wait))
    }

    /// Takes callbacks that may be called, `limit` at the most.
    pub fn take_done(&mut self, limit: usize) -> Queue {
        let done = &mut self.segments[DONE];
        if done.len() <= limit {
            return take(done);
        }
        let mut taken = Queue::new();
        for _ in 0..limit {
            taken.append(&mut done.pop_as_queue());
        }
        taken
    }

    /// Puts callbacks that were taken back in front of the others.
    pub fn put_back(&mut self, mut rest: Queue) {
        rest.append(&mut self.segments[DONE]);
        self.segments[DONE] = rest;
    }

    /// Takes over another CPU's callbacks. Those of `other` that may be called may be called here; the others start
    /// anew, behind the ones that are here already.
    ///
    /// Linux: `rcu_segcblist_merge`.
    pub fn adopt(&mut self, other: &mut Segmented) {
        other.hurry();
        self.hurry();
        let [done, wait, next_ready, next] = &mut other.segments;
        self.segments[DONE].append(done);
        for queue in [wait, next_ready, next] {
            self.segments[NEXT].append(queue);
        }
    }
}

impl Default for Segmented {
    fn default() -> Segmented {
        Segmented::new()
    }
}
