//! What a callback is, while it waits: two words inside of the object that it is about.
//!
//! 1. A [`Head`] is embedded in the object. To have something done after a grace period its owner queues the head with a
//!    function; nothing is allocated, so that this cannot fail where an object is being given up.
//! 2. Queues link heads by their `next` words. A head is in one queue at a time.
//! 3. When the time has come the queue takes the head out, reads its `next`, and calls the function with the head's
//!    address. From that call on the object belongs to the function, which may free it or queue the head again; nobody
//!    looks at the head afterwards.
//!
//! # Invariants
//! * **H1**: between [`prepare`](Head::prepare) and [`invoke`](Head::invoke) the head stays in place, and nobody but
//!   the queue that it was given to uses its words.
//! * **H2**: who hands a queue from one CPU to another orders its accesses; the words themselves are not atomic.

use core::cell::Cell;
use core::fmt;
use core::marker::PhantomPinned;
use core::ptr::NonNull;

use hal::Platform;

/// What is called with the head's address after a grace period.
///
/// It runs with bottom halves off, on any CPU, and must not sleep. Called once for each time that the head was queued.
pub type Callback = unsafe fn(NonNull<Head>);

/// The place for a callback, to be embedded in the objects that are given up after a grace period.
///
/// Linux: `struct rcu_head`. Size: two words; in debug builds one more, for the line that queued it.
///
/// ```
/// use core::ptr::NonNull;
/// use rcu::Head;
///
/// struct Route {
///     metric: u32,
///     rcu: Head,
/// }
/// /// Frees the route that the head lies in.
/// unsafe fn free_route(head: NonNull<Head>) {
///     // SAFETY: every head that is queued with this function is the field of a boxed route.
///     drop(unsafe { Box::from_raw(sync::container_of!(head, Route, rcu).as_ptr()) });
/// }
/// let route = Box::leak(Box::new(Route { metric: 1, rcu: Head::new() }));
/// let whole: *mut Route = route;
/// // SAFETY: the field of a live object, by way of a pointer to the whole one.
/// let head = unsafe { NonNull::new_unchecked(&raw mut (*whole).rcu) };
/// // SAFETY: the object is ours; what a queue does is done here at once.
/// unsafe {
///     assert!(Head::prepare::<hal::Native>(head, free_route));
///     Head::invoke(head);
/// }
/// ```
#[repr(C)]
pub struct Head {
    next: Cell<Option<NonNull<Head>>>,
    function: Cell<Option<Callback>>,
    /// Who queued it, while it is queued.
    #[cfg(debug_assertions)]
    queued: queued::Queued,
    // A queue writes to the head while its object is owned by a `Box` somewhere: no reference to the whole object may be
    // taken for the only way to it.
    _pinned: PhantomPinned,
}

// SAFETY: the words are used by the owner of the object before it is queued, then by the queue alone (H1), and whoever
// passes it on orders the accesses (H2). What several CPUs may touch at once, `queued`, is atomic.
unsafe impl Send for Head {}
// SAFETY: as above; a shared reference gives access to nothing but `queued`.
unsafe impl Sync for Head {}

impl Head {
    /// A head in no queue.
    ///
    /// ```
    /// static HEAD: rcu::Head = rcu::Head::new();
    /// assert!(!HEAD.is_queued());
    /// ```
    pub const fn new() -> Head {
        Head {
            next: Cell::new(None),
            function: Cell::new(None),
            #[cfg(debug_assertions)]
            queued: queued::Queued::new(),
            _pinned: PhantomPinned,
        }
    }

    /// Whether it waits in a queue, as far as is known: release builds do not remember, and answer `false`.
    ///
    /// ```
    /// assert!(!rcu::Head::new().is_queued());
    /// ```
    pub fn is_queued(&self) -> bool {
        #[cfg(debug_assertions)]
        return self.queued.place().is_some();
        #[cfg(not(debug_assertions))]
        return false;
    }

    /// Makes the head ready for a queue: nothing follows it, and `function` is what will be called. For those who write
    /// a queue; the first thing that they do with a head.
    ///
    /// Returns `false`, and has changed nothing, if it is queued already. That is noticed in debug builds only, and
    /// reported with both lines: the caller's and the one that queued it before. The caller then leaves it alone.
    ///
    /// Contexts: any. Cost: two stores.
    ///
    /// # Safety
    /// `head` is valid, and H1 holds from here on. In release builds it is in no queue.
    #[inline(always)]
    #[track_caller]
    pub unsafe fn prepare<P: Platform>(head: NonNull<Head>, function: Callback) -> bool {
        // SAFETY: valid says the contract.
        let this = unsafe { head.as_ref() };
        #[cfg(debug_assertions)]
        if let Err(before) = this.queued.enter() {
            queued::report_twice::<P>(before);
            return false;
        }
        this.next.set(None);
        this.function.set(Some(function));
        true
    }

    /// The head behind this one. For queues.
    ///
    /// # Safety
    /// `head` is in the caller's queue.
    #[inline(always)]
    pub unsafe fn next(head: NonNull<Head>) -> Option<NonNull<Head>> {
        // SAFETY: valid, and the caller's (H1).
        unsafe { head.as_ref() }.next.get()
    }

    /// Makes `next` the head behind this one. For queues.
    ///
    /// # Safety
    /// `head` is in the caller's queue.
    #[inline(always)]
    pub unsafe fn set_next(head: NonNull<Head>, next: Option<NonNull<Head>>) {
        // SAFETY: valid, and the caller's (H1).
        unsafe { head.as_ref() }.next.set(next);
    }

    /// Calls the function. The head is in no queue any more, and may be gone when this returns: a queue reads
    /// [`next`](Head::next) first.
    ///
    /// # Safety
    /// `head` was [prepared](Head::prepare), this is the only call since, a grace period has passed since then, and the
    /// context is one in which the domain's callbacks run.
    #[inline(always)]
    pub unsafe fn invoke(head: NonNull<Head>) {
        // SAFETY: valid until the function is called (H1).
        let this = unsafe { head.as_ref() };
        let function = this.function.get();
        #[cfg(debug_assertions)]
        this.queued.leave();
        // SAFETY: what `function` asks for is what the contract says.
        unsafe { function.expect("a head is prepared before it is invoked")(head) }
    }
}

impl Default for Head {
    fn default() -> Head {
        Head::new()
    }
}

impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        #[cfg(debug_assertions)]
        if let Some(place) = self.queued.place() {
            return write!(f, "Head(queued at {place})");
        }
        f.write_str("Head")
    }
}

#[cfg(debug_assertions)]
impl Drop for Head {
    /// Going on would let the queue call into freed memory.
    fn drop(&mut self) {
        if let Some(place) = self.queued.place() {
            panic!("rcu: a callback's head was dropped while it is queued, since {place}");
        }
    }
}

/// The memory of who queued a head.
#[cfg(debug_assertions)]
mod queued {
    use core::panic::Location;
    use core::ptr;
    // Not the model checker's: debugging aid, not part of any protocol.
    use core::sync::atomic::{AtomicPtr, Ordering};

    use hal::Platform;
    use hal::platform::{Report, Severity};

    /// Where a queued head was queued; null otherwise.
    pub(super) struct Queued(AtomicPtr<Location<'static>>);

    impl Queued {
        pub(super) const fn new() -> Queued {
            Queued(AtomicPtr::new(ptr::null_mut()))
        }

        pub(super) fn place(&self) -> Option<&'static Location<'static>> {
            // SAFETY: null, or what `enter` stored: the address of a constant.
            unsafe { self.0.load(Ordering::Relaxed).as_ref() }
        }

        /// Remembers the caller; or says who was first.
        #[track_caller]
        pub(super) fn enter(&self) -> Result<(), &'static Location<'static>> {
            let here = ptr::from_ref(Location::caller()).cast_mut();
            match self.0.compare_exchange(ptr::null_mut(), here, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => Ok(()),
                // SAFETY: not null, so that it is what another `enter` stored.
                Err(before) => Err(unsafe { &*before }),
            }
        }

        pub(super) fn leave(&self) {
            self.0.store(ptr::null_mut(), Ordering::Relaxed);
        }
    }

    #[cold]
    #[track_caller]
    pub(super) fn report_twice<P: Platform>(before: &'static Location<'static>) {
        P::report(&Report {
            severity: Severity::Bug,
            message: format_args!(
                "rcu: callback queued twice; it still waits since {before} queued it, and stays where it is"
            ),
            location: Location::caller(),
        });
    }
}

#[cfg(all(test, not(loom)))]
#[path = "head_tests.rs"]
mod tests;
