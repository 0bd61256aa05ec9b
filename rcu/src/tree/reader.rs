//! Readers that were preempted: the CPU goes on, and may be quiescent; they are not.
//!
//! 1. A task that is switched away from inside a read-side section is entered in a list of the leaf of that CPU, with its
//!    [`Reader`], which lies in the task's structure. The CPU may then report for itself.
//! 2. The entry notes the first grace period that it holds up: the running one, if its CPU had not reported for it when
//!    the task was preempted, and otherwise the next. It holds up every later one too. So the leaf needs to know only *how
//!    many* entries hold up the running period: all, when one begins, for none of them is younger.
//! 3. The outermost unlock takes the entry out. A second preemption inside of the same section finds it entered already,
//!    and that is right as it is, wherever the task has moved to meanwhile.

use core::fmt;
use core::marker::PhantomPinned;
use core::pin::Pin;
use core::ptr::NonNull;

use hal::platform::TaskId;

use crate::primitives::{AtomicUsize, Cell, Ordering, const_fn};
use crate::seq::has_reached;

/// A task's place in the list of preempted readers. It lies in the task's structure.
///
/// Dropping one that is in a list, a task that ended inside of a read-side section, panics: the list would lead into
/// freed memory.
///
/// Linux: `rcu_node_entry` and `rcu_blocked_node` of `struct task_struct`.
pub struct Reader {
    /// The leaf in whose list it is, plus one; 0 if in none. Changed under that leaf's lock.
    leaf: AtomicUsize,
    entry: Cell<Entry>,
    _pinned: PhantomPinned,
}

/// What the lock of the leaf protects.
#[derive(Clone, Copy)]
struct Entry {
    next: Option<NonNull<Reader>>,
    prev: Option<NonNull<Reader>>,
    /// The first grace period that it holds up, as a sequence number.
    normal_from: usize,
    /// The first expedited one, as the leaf counts them.
    expedited_from: usize,
    task: Option<TaskId>,
    is_boosted: bool,
}

// SAFETY: `entry` is used under the lock of the leaf that `leaf` names, and while it names none by who enters the reader,
// which is the CPU that is switching the task away.
unsafe impl Sync for Reader {}
// SAFETY: as above; and it is pinned while others know of it.
unsafe impl Send for Reader {}

impl Reader {
    const_fn! {
        /// A reader that is in no list.
        pub fn new() -> Reader {
            Reader {
                leaf: AtomicUsize::new(0),
                entry: Cell::new(Entry {
                    next: None,
                    prev: None,
                    normal_from: 0,
                    expedited_from: 0,
                    task: None,
                    is_boosted: false,
                }),
                _pinned: PhantomPinned,
            }
        }
    }

    /// Whether the task was preempted inside of the section that it is in, or has left without having said so. Exact for
    /// the task itself, and for who has switched it away.
    #[inline]
    pub fn is_queued(&self) -> bool {
        self.leaf.load(Ordering::Relaxed) != 0
    }

    /// The leaf in whose list it is.
    #[inline]
    pub(super) fn leaf(&self) -> Option<usize> {
        self.leaf.load(Ordering::Relaxed).checked_sub(1)
    }
}

impl Default for Reader {
    fn default() -> Reader {
        Reader::new()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        assert!(!self.is_queued(), "rcu: a task has ended inside of a read-side critical section");
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("leaf", &self.leaf()).finish_non_exhaustive()
    }
}

/// A leaf's list of preempted readers.
///
/// # Invariants
/// * The chain from `first` by `next` has `len` entries, each pinned, and each the only one of its task.
/// * `normal` of them hold up the grace period that the leaf knows to be running, `expedited` the expedited one. Once
///   a period has ended, no entry is left that it waited for.
#[derive(Debug)]
pub(super) struct Blocked {
    first: Option<NonNull<Reader>>,
    len: usize,
    /// How many hold up the running grace period.
    pub(super) normal: usize,
    /// How many hold up the running expedited one.
    pub(super) expedited: usize,
    /// How many expedited grace periods have reached this leaf; wraps.
    expedited_begun: usize,
}

// SAFETY: the entries are `Sync`, and pinned while they are here.
unsafe impl Send for Blocked {}

impl Blocked {
    pub(super) const fn new() -> Blocked {
        Blocked { first: None, len: 0, normal: 0, expedited: 0, expedited_begun: 0 }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// A grace period has reached the leaf: all that are here hold it up.
    pub(super) fn begin_normal(&mut self) {
        self.normal = self.len;
    }

    /// An expedited one has.
    pub(super) fn begin_expedited(&mut self) {
        self.expedited_begun = self.expedited_begun.wrapping_add(1);
        self.expedited = self.len;
    }

    /// Enters the reader `task`, that is in no list, in the one of leaf `node`. `number` is the leaf's; the flags say
    /// whether its CPU has still to report for the running grace periods.
    pub(super) fn enter(
        &mut self,
        reader: Pin<&Reader>,
        task: TaskId,
        node: usize,
        number: usize,
        holds_up_normal: bool,
        holds_up_expedited: bool,
    ) {
        let this = NonNull::from(reader.get_ref());
        // The number of a running period is odd, so that `| 1` is this period's, or the next one's.
        let normal_from = if holds_up_normal { number } else { number.wrapping_add(1) | 1 };
        let expedited_from = self.expedited_begun.wrapping_add(usize::from(!holds_up_expedited));
        self.normal += usize::from(holds_up_normal);
        self.expedited += usize::from(holds_up_expedited);
        reader.entry.set(Entry {
            next: self.first,
            prev: None,
            normal_from,
            expedited_from,
            task: Some(task),
            is_boosted: false,
        });
        if let Some(first) = self.first {
            // SAFETY: in the list, and so pinned and alive.
            Blocked::change(unsafe { first.as_ref() }, |entry| entry.prev = Some(this));
        }
        // INVARIANT: linked in front of the others; `drop` does not let it go while `leaf` is set.
        self.first = Some(this);
        self.len += 1;
        reader.leaf.store(node + 1, Ordering::Relaxed);
    }

    /// Takes a reader out that is in this list. `number` is the leaf's.
    pub(super) fn leave(&mut self, reader: &Reader, number: usize) {
        let entry = reader.entry.get();
        match entry.prev {
            // SAFETY: neighbours in the list are alive.
            Some(prev) => Blocked::change(unsafe { prev.as_ref() }, |prev| prev.next = entry.next),
            None => self.first = entry.next,
        }
        if let Some(next) = entry.next {
            // SAFETY: as above.
            Blocked::change(unsafe { next.as_ref() }, |next| next.prev = entry.prev);
        }
        self.len -= 1;
        self.normal -= usize::from(has_reached(number, entry.normal_from));
        self.expedited -= usize::from(has_reached(self.expedited_begun, entry.expedited_from));
        reader.leaf.store(0, Ordering::Relaxed);
    }

    /// The tasks that hold up the running grace period, the youngest entry first; `expedited` chooses which.
    pub(super) fn holding_up(&self, number: usize, expedited: bool) -> impl Iterator<Item = &Reader> {
        let begun = self.expedited_begun;
        let mut next = self.first;
        core::iter::from_fn(move || {
            // SAFETY: in the list, which is borrowed, and so alive.
            let reader = unsafe { next?.as_ref() };
            next = reader.entry.get().next;
            Some(reader)
        })
        .filter(move |reader| {
            let entry = reader.entry.get();
            if expedited {
                has_reached(begun, entry.expedited_from)
            } else {
                has_reached(number, entry.normal_from)
            }
        })
    }

    /// The task of an entry.
    pub(super) fn task(reader: &Reader) -> Option<TaskId> {
        reader.entry.get().task
    }

    /// Marks an entry's task as boosted; returns whether it was not.
    pub(super) fn boost(reader: &Reader) -> bool {
        let was_boosted = reader.entry.get().is_boosted;
        Blocked::change(reader, |entry| entry.is_boosted = true);
        !was_boosted
    }

    fn change(reader: &Reader, how: impl FnOnce(&mut Entry)) {
        let mut entry = reader.entry.get();
        how(&mut entry);
        reader.entry.set(entry);
    }
}
