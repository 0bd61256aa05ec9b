//! What all timers have, whatever they call.

use core::mem;
use core::panic::Location;
use core::ptr::{self, NonNull};

use hal::Platform;
use hal::percpu::IrqsOff;
use sync::lockdep::{Level, Map, WaitType};

use super::{Base, FunctionName, Locked};
use crate::faults::{Fault, is_planted};
use crate::primitives::{AtomicPtr, Ordering, const_fn};
use crate::queue::{Entry, Queue};
use crate::timer::Firing;

/// The part of a timer that its base knows: 48 bytes with entries of 32, and what to call.
///
/// # Invariants
/// B1 and B2 of the [module](super).
#[repr(C)]
pub(crate) struct Core<Q: Queue, P: Platform> {
    pub(super) entry: Q::Entry,
    /// Which base it belongs to, and [`Flags`] in the bits that are 0 in a base's address.
    word: AtomicPtr<Base<Q, P>>,
    /// How the armed state's reference is used, and [`Kinds`] in the bits that are 0 in its address.
    ops: AtomicPtr<Ops<Q, P>>,
    /// A [`Call`]: what is called for it.
    function: AtomicPtr<()>,
    pub(crate) map: Map,
    places: Places,
}

/// What is called for a timer, of which it gets the core.
///
/// # Safety
/// The function of this timer, by who has detached it and has its reference.
pub(crate) type Call<Q, P> = unsafe fn(NonNull<Core<Q, P>>, &Firing<'_, Q, P>);
type Release<Q, P> = unsafe fn(NonNull<Core<Q, P>>);

/// A base that is locked, and which one it is.
type LockedBase<'a, Q, P> = (Locked<'a, Q, P>, &'static Base<Q, P>);

/// How a pointer to a timer is used by a base that knows neither the type of the timer nor of the pointer.
#[repr(align(8))]
pub(crate) struct Ops<Q: Queue, P: Platform> {
    /// Lets go of the reference; `None` if there is nothing to do.
    pub(crate) release: Option<Release<Q, P>>,
    /// What the timer's state is called.
    pub(crate) type_name: fn() -> &'static str,
    /// The pointer keeps nothing alive: the timer must see to it itself.
    pub(crate) embedded: bool,
    /// [`RELEASED`](Kinds::RELEASED) if `release` is something, and whether it is [`NAMELESS`](Kinds::NAMELESS).
    pub(crate) kinds: Kinds,
}

impl<Q: Queue, P: Platform> Ops<Q, P> {
    pub(super) fn name(&self, function: Call<Q, P>) -> FunctionName {
        FunctionName::new(function as *const (), (self.type_name)())
    }

    /// What must be seen to when a timer is called that was armed with these.
    #[inline(always)]
    fn kinds(&self, flags: Flags) -> Kinds {
        self.kinds.and(Kinds((flags.0 & Flags::IRQSAFE.0) / (Flags::IRQSAFE.0 / Kinds::IRQSAFE.0)))
    }
}

/// What calling a timer takes beside the call. Most take nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kinds(usize);

impl Kinds {
    pub(crate) const PLAIN: Kinds = Kinds(0);
    /// Its reference is let go of.
    #[cfg(any(feature = "alloc", all(test, any(loom, shuttle))))]
    pub(crate) const RELEASED: Kinds = Kinds(1);
    /// It must not be known to run: its memory is gone when its function is called, and its address may be that of another
    /// timer. Nobody else knows of it.
    pub(crate) const NAMELESS: Kinds = Kinds(2);
    /// Interrupts are off.
    pub(super) const IRQSAFE: Kinds = Kinds(4);

    const ALL: usize = 7;

    #[inline(always)]
    pub(super) fn and(self, other: Kinds) -> Kinds {
        Kinds(self.0 | other.0)
    }

    #[inline(always)]
    pub(super) fn has(self, other: Kinds) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether there is none.
    #[inline(always)]
    pub(super) fn is_plain(self) -> bool {
        self.0 & Kinds::ALL == 0
    }
}

/// Of a reference that there is not.
pub(super) fn nothing<Q: Queue, P: Platform>() -> &'static Ops<Q, P> {
    struct Nothing<Q, P>(core::marker::PhantomData<(Q, P)>);
    impl<Q: Queue, P: Platform> Nothing<Q, P> {
        const OPS: Ops<Q, P> = Ops { release: None, type_name: || "", embedded: false, kinds: Kinds::PLAIN };
    }
    &Nothing::<Q, P>::OPS
}

/// A pointer to a timer that was taken apart: it keeps it alive, and is let go by what it remembers.
///
/// It is not dropped by itself, because most of them are handed to the armed state.
#[must_use = "it must be handed on or let go"]
pub(crate) struct Reference<Q: Queue, P: Platform> {
    pub(crate) core: NonNull<Core<Q, P>>,
    pub(crate) ops: &'static Ops<Q, P>,
}

impl<Q: Queue, P: Platform> Reference<Q, P> {
    /// Lets go. No base's lock is held.
    #[inline(always)]
    pub(crate) fn let_go(self) {
        if let Some(release) = self.ops.release {
            // SAFETY: `release` belongs to the pointer that was taken apart, and this value is what is left of it.
            unsafe { release(self.core) }
        }
    }
}

/// Bits in a timer's word, below the address of a base.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flags(usize);

impl Flags {
    pub(crate) const NONE: Flags = Flags(0);
    /// It belongs to whoever set this bit (B1).
    pub(crate) const MOVING: Flags = Flags(1);
    /// It is not armed any more (B6).
    pub(crate) const SHUT: Flags = Flags(2);
    pub(crate) const PINNED: Flags = Flags(4);
    pub(crate) const DEFERRABLE: Flags = Flags(8);
    pub(crate) const IRQSAFE: Flags = Flags(16);
    /// It was armed by a pointer that keeps nothing alive.
    pub(crate) const EMBEDDED: Flags = Flags(32);

    const ALL: usize = 63;

    pub(crate) const fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    #[inline(always)]
    pub(crate) const fn and(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    #[inline(always)]
    pub(crate) const fn has(self, other: Flags) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether it is [`PINNED`](Flags::PINNED), in bit 0, and [`DEFERRABLE`](Flags::DEFERRABLE), in bit 1.
    #[inline(always)]
    pub(crate) const fn ties(self) -> usize {
        const { assert!(Flags::DEFERRABLE.0 == 2 * Flags::PINNED.0) };
        (self.0 & (Flags::PINNED.0 | Flags::DEFERRABLE.0)) / Flags::PINNED.0
    }
}

/// A value of a timer's word.
pub(crate) struct Word<Q: Queue, P: Platform>(*mut Base<Q, P>);

impl<Q: Queue, P: Platform> Clone for Word<Q, P> {
    fn clone(&self) -> Word<Q, P> {
        *self
    }
}
impl<Q: Queue, P: Platform> Copy for Word<Q, P> {}
impl<Q: Queue, P: Platform> PartialEq for Word<Q, P> {
    fn eq(&self, other: &Word<Q, P>) -> bool {
        ptr::eq(self.0, other.0)
    }
}

impl<Q: Queue, P: Platform> Word<Q, P> {
    #[inline(always)]
    pub(super) fn of(base: &'static Base<Q, P>, flags: Flags) -> Word<Q, P> {
        const { assert!(align_of::<Base<Q, P>>() > Flags::ALL, "the flags lie below the address") };
        Word(ptr::from_ref(base).cast_mut().map_addr(|address| address | flags.0))
    }

    #[inline(always)]
    pub(crate) fn flags(self) -> Flags {
        Flags(self.0.addr() & Flags::ALL)
    }

    #[inline(always)]
    pub(crate) fn has(self, flags: Flags) -> bool {
        self.flags().has(flags)
    }

    /// The base, if there was one ever.
    #[inline(always)]
    pub(super) fn base(self) -> Option<&'static Base<Q, P>> {
        let base = self.0.map_addr(|address| address & !Flags::ALL);
        // SAFETY: null, or a base, which lives for ever (`of` is given no other).
        unsafe { base.as_ref() }
    }

    /// Whether the timer belongs to `base`, is not on its way elsewhere, and is not shut down.
    #[inline(always)]
    pub(super) fn rests_in(self, base: &'static Base<Q, P>) -> bool {
        let unrest = Flags::MOVING.and(Flags::SHUT);
        self.0.addr() & !(Flags::ALL & !unrest.0) == ptr::from_ref(base).addr()
    }

    #[inline(always)]
    pub(super) fn with(self, flags: Flags) -> Word<Q, P> {
        Word(self.0.map_addr(|address| address | flags.0))
    }
}

impl<Q: Queue, P: Platform> Core<Q, P> {
    const_fn! {
        #[track_caller]
        pub(crate) fn new(entry: Q::Entry, flags: Flags, level: Level, function: *mut ()) -> Core<Q, P> {
            Core {
                entry,
                word: AtomicPtr::new(ptr::without_provenance_mut(flags.0)),
                ops: AtomicPtr::new(ptr::null_mut()),
                function: AtomicPtr::new(function),
                map: Map::new(WaitType::Spin, level),
                places: Places::new(),
            }
        }
    }

    /// The word, as it is or will have been.
    #[inline(always)]
    pub(crate) fn word(&self) -> Word<Q, P> {
        // Acquire: pairs with the Release in `set_word`, so that the base is seen as it was when the timer came to it.
        Word(self.word.load(Ordering::Acquire))
    }

    /// For whoever may change it (B1).
    #[inline(always)]
    pub(super) fn set_word(&self, word: Word<Q, P>) {
        // Release: pairs with the Acquire in `word`.
        self.word.store(word.0, Ordering::Release);
    }

    /// Changes the word of a timer that has no base.
    pub(super) fn exchange_word(&self, from: Word<Q, P>, to: Word<Q, P>) -> bool {
        // Acquire and Release: whoever has the mark sees what the former one did.
        self.word.compare_exchange(from.0, to.0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// How the armed state's reference is used. Under the base's lock, or by whoever moves it.
    #[inline(always)]
    pub(super) fn ops(&self) -> &'static Ops<Q, P> {
        let ops = self.ops.load(Ordering::Relaxed).map_addr(|address| address & !Kinds::ALL);
        // SAFETY: set when the timer was armed, for which there is no other way than `set_ops`.
        unsafe { &*ops }
    }

    #[inline(always)]
    pub(super) fn set_ops(&self, ops: &'static Ops<Q, P>, flags: Flags) {
        const { assert!(align_of::<Ops<Q, P>>() > Kinds::ALL, "the kinds lie below the address") };
        let kinds = ops.kinds(flags).0;
        self.ops.store(ptr::from_ref(ops).cast_mut().map_addr(|address| address | kinds), Ordering::Relaxed);
    }

    /// What calling it takes beside the call, as armed; under the base's lock. Bits that are no kind's may be set.
    #[inline(always)]
    pub(super) fn kinds(&self) -> Kinds {
        Kinds(self.ops.load(Ordering::Relaxed).addr())
    }

    /// What is called for it.
    #[inline(always)]
    pub(crate) fn function(&self) -> Call<Q, P> {
        // Acquire: pairs with the Release in `set_function`.
        let function = self.function.load(Ordering::Acquire);
        // SAFETY: `new` and `set_function` are given such functions. What they are in truth differs in the types that their
        // two arguments point to, for which they can be called all the same.
        unsafe { mem::transmute::<*mut (), Call<Q, P>>(function) }
    }

    pub(crate) fn set_function(&self, function: *mut ()) {
        // Release: pairs with the Acquire in `function`, so that it sees what was prepared for it.
        self.function.store(function, Ordering::Release);
    }

    /// Takes the lock of the timer's base. `None` if it has none, because it was never armed.
    #[inline]
    pub(crate) fn lock_base<'a>(&self, quiet: &'a impl IrqsOff) -> Option<LockedBase<'a, Q, P>> {
        loop {
            let word = self.word();
            if !word.has(Flags::MOVING) {
                let base = word.base()?;
                P::chaos_point();
                let locked = base.lock(quiet);
                // It may have gone elsewhere while we waited. If it is here now, and not on its way from here, it stays
                // while we hold the lock (B1). In one look: on its way it goes from one to the other.
                if self.word() == word || is_planted(Fault::LookOnce) {
                    return Some((locked, base));
                }
            }
            P::relax();
        }
    }

    /// When it is due, or was.
    pub(crate) fn expires(&self) -> u64 {
        self.entry.expires()
    }

    /// Changes when an armed timer is due without its base's lock, if the queue allows that. Returns whether it did: the
    /// timer was armed then, and a call of its function follows that sees what the caller did before.
    #[inline(always)]
    pub(crate) fn modify_in_place(&self, expires: u64) -> bool {
        let Some(word) = self.entry.expires_word() else { return false };
        if !self.entry.is_linked() {
            return false;
        }
        let from = word.load(Ordering::Relaxed);
        if !Q::may_stay(&self.entry, from, expires) {
            return false;
        }
        // Release: pairs with the Acquire in `settled_expires`: the call that follows sees what we did. If instead it was
        // detached before this, Acquire pairs with the Release there, and then it is seen not to be linked. If it was taken
        // out and put in again meanwhile, or modified, then another time fails the exchange, and the same time is as good.
        word.compare_exchange(from, expires, Ordering::AcqRel, Ordering::Relaxed).is_ok()
            && self.entry.is_linked()
    }

    pub(crate) fn entry(&self) -> &Q::Entry {
        &self.entry
    }

    /// Where it was made, as far as that is remembered.
    pub(crate) fn made(&self) -> &'static Location<'static> {
        self.places.made()
    }

    /// Where it was armed last, as far as that is remembered.
    pub(crate) fn armed_at(&self) -> Option<&'static Location<'static>> {
        self.places.armed_at()
    }

    pub(super) fn set_armed_at(&self, at: &'static Location<'static>) {
        self.places.set_armed_at(at);
    }
}

/// The pointer to an armed timer by which it was armed, which may reach more than a borrow of it: of a state that its
/// function changes, and, of an `Arc`, of the counts beside it.
#[inline(always)]
pub(super) fn exposed<Q: Queue, P: Platform>(core: NonNull<Core<Q, P>>) -> NonNull<Core<Q, P>> {
    let pointer = ptr::with_exposed_provenance_mut(core.as_ptr().addr());
    // SAFETY: the address of what is not null.
    unsafe { NonNull::new_unchecked(pointer) }
}

#[cfg(any(debug_assertions, feature = "lockdep"))]
use remembered::Places;
#[cfg(not(any(debug_assertions, feature = "lockdep")))]
use unremembered::Places;

/// Where a timer was made and armed: remembered in debug builds and with the feature `lockdep`.
#[cfg(any(debug_assertions, feature = "lockdep"))]
mod remembered {
    use core::panic::Location;
    use core::ptr;
    use core::sync::atomic::{AtomicPtr, Ordering};

    pub(super) struct Places {
        made: &'static Location<'static>,
        armed_at: AtomicPtr<Location<'static>>,
    }

    impl Places {
        #[track_caller]
        pub(super) const fn new() -> Places {
            Places { made: Location::caller(), armed_at: AtomicPtr::new(ptr::null_mut()) }
        }

        pub(super) fn made(&self) -> &'static Location<'static> {
            self.made
        }

        pub(super) fn armed_at(&self) -> Option<&'static Location<'static>> {
            // SAFETY: null, or from a `&'static`.
            unsafe { self.armed_at.load(Ordering::Relaxed).as_ref() }
        }

        pub(super) fn set_armed_at(&self, at: &'static Location<'static>) {
            self.armed_at.store(ptr::from_ref(at).cast_mut(), Ordering::Relaxed);
        }
    }
}

/// Of no size in other builds.
#[cfg(not(any(debug_assertions, feature = "lockdep")))]
mod unremembered {
    use core::panic::Location;

    pub(super) struct Places;

    impl Places {
        pub(super) const fn new() -> Places {
            Places
        }

        pub(super) fn made(&self) -> &'static Location<'static> {
            Location::caller()
        }

        pub(super) fn armed_at(&self) -> Option<&'static Location<'static>> {
            None
        }

        pub(super) fn set_armed_at(&self, _at: &'static Location<'static>) {}
    }
}
