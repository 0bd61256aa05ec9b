//! The map of a build with the checker.

use core::fmt;
use core::panic::Location;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU16, Ordering};

use hal::Platform;
use hal::platform::{Report, Severity};

use super::checker::{Checker, Env, Taking};
use super::class::Identity;
use super::map::{Acquire, Level, WaitType};
use super::shell::{self, with_checker};

/// What a lock embeds: its class, which is the place in the source that created it. Takes no room in builds without the
/// checker, and 48 bytes in this one.
///
/// A lock calls [`acquire`](Map::acquire) before it waits (so that a deadlock is reported before it happens), or after a
/// successful attempt without waiting, and [`release`](Map::release) before it lets go. Whatever else can be waited for
/// has a map as well; the module's documentation says how it is used.
///
/// Dropping the map of a lock that the executing task holds is reported as `held lock freed`.
///
/// ```
/// # use hal::{Native, hosted};
/// # use sync::lockdep;
/// # static CHECKER: lockdep::Checker = lockdep::Checker::new();
/// # static HELD: lockdep::HeldStack = lockdep::HeldStack::new();
/// # if !lockdep::ENABLED { return; }
/// # let _cpu = hosted::bind().unwrap();
/// # unsafe { lockdep::install::<Native>(&CHECKER, &HELD) };
/// # use core::panic::Location;
/// # use sync::lockdep::{Acquire, Level, Map, WaitType};
/// static MAP: Map = Map::new(WaitType::Spin, Level::Task);
/// MAP.acquire::<Native>(Acquire::WRITE, Location::caller());
/// // .. waits for the lock, and has it ..
/// assert_eq!(MAP.is_held::<Native>(), Some(true));
/// MAP.release::<Native>(Location::caller());
/// assert_eq!(MAP.is_held::<Native>(), Some(false));
/// # unsafe { lockdep::uninstall::<Native>() };
/// ```
pub struct Map {
    identity: Identity,
    /// The checker that gave the lock its number, null before.
    known_to: AtomicPtr<Checker>,
    /// The number. Written before `known_to` and never again.
    site: AtomicU16,
}

impl Map {
    /// The map of a lock that is created at the caller's place in the source.
    ///
    /// ```
    /// # use hal::{Native, hosted};
    /// # use sync::lockdep;
    /// # static CHECKER: lockdep::Checker = lockdep::Checker::new();
    /// # static HELD: lockdep::HeldStack = lockdep::HeldStack::new();
    /// # if !lockdep::ENABLED { return; }
    /// # let _cpu = hosted::bind().unwrap();
    /// # unsafe { lockdep::install::<Native>(&CHECKER, &HELD) };
    /// # use core::panic::Location;
    /// # use sync::lockdep::{Acquire, Level, Map, WaitType};
    /// let maps = [(); 2].map(|()| Map::new(WaitType::Spin, Level::Task));
    /// for map in &maps {
    ///     map.acquire::<Native>(Acquire::WRITE, Location::caller());
    ///     map.release::<Native>(Location::caller());
    /// }
    /// assert_eq!(lockdep::summary::<Native>(&CHECKER).classes, 1, "one place");
    /// # unsafe { lockdep::uninstall::<Native>() };
    /// ```
    #[track_caller]
    pub const fn new(wait: WaitType, level: Level) -> Map {
        Map::made(None, 0, wait, level, Location::caller())
    }

    /// The map of a lock with a name for reports, and a key that tells it from others created at the same place: locks of
    /// one place and key are one class. Linux: `lockdep_set_class_and_name`.
    ///
    /// ```
    /// use sync::lockdep::{Level, Map, WaitType};
    /// // Two of an array, of which the first is taken before the second: two classes.
    /// let maps = [0, 1].map(|i| Map::named("runqueue", i, WaitType::Spin, Level::Hardirq));
    /// # let _ = maps;
    /// ```
    #[track_caller]
    pub const fn named(name: &'static str, key: u32, wait: WaitType, level: Level) -> Map {
        Map::made(Some(name), key, wait, level, Location::caller())
    }

    const fn made(
        name: Option<&'static str>,
        key: u32,
        wait: WaitType,
        level: Level,
        site: &'static Location<'static>,
    ) -> Map {
        Map {
            identity: Identity { site, name, key, wait, level },
            known_to: AtomicPtr::new(ptr::null_mut()),
            site: AtomicU16::new(0),
        }
    }

    /// The lock is about to be waited for, or has been acquired without waiting. What its flavour switches off is off.
    ///
    /// Linux: `lock_acquire`. Contexts: any. Cost: a load and a branch where no checker is installed; otherwise a few
    /// dozen nanoseconds, and a search of the graph when the chain of held locks is new.
    ///
    /// ```
    /// # use hal::{Native, hosted};
    /// # use sync::lockdep;
    /// # static CHECKER: lockdep::Checker = lockdep::Checker::new();
    /// # static HELD: lockdep::HeldStack = lockdep::HeldStack::new();
    /// # if !lockdep::ENABLED { return; }
    /// # let _cpu = hosted::bind().unwrap();
    /// # unsafe { lockdep::install::<Native>(&CHECKER, &HELD) };
    /// # use core::panic::Location;
    /// # use sync::lockdep::{Acquire, Level, Map, WaitType};
    /// let maps = [0, 1].map(|key| Map::named("queue", key, WaitType::Spin, Level::Task));
    /// maps[0].acquire::<Native>(Acquire::WRITE, Location::caller());
    /// maps[1].acquire::<Native>(Acquire::WRITE, Location::caller());
    /// assert_eq!(lockdep::summary::<Native>(&CHECKER).orders, 1);
    /// # maps.each_ref().map(|map| map.release::<Native>(Location::caller()));
    /// # unsafe { lockdep::uninstall::<Native>() };
    /// ```
    #[inline]
    pub fn acquire<P: Platform>(&self, how: Acquire, at: &'static Location<'static>) {
        if shell::installed::<P>().is_some() {
            self.acquire_checked::<P>(how, at);
        }
    }

    /// The lock is about to be released, or waiting for it was given up.
    ///
    /// Locks may be released in any order. Linux: `lock_release`. Contexts and cost: as [`acquire`](Map::acquire).
    ///
    /// ```
    /// # use hal::{Native, hosted};
    /// # use sync::lockdep;
    /// # static CHECKER: lockdep::Checker = lockdep::Checker::new();
    /// # static HELD: lockdep::HeldStack = lockdep::HeldStack::new();
    /// # if !lockdep::ENABLED { return; }
    /// # let _cpu = hosted::bind().unwrap();
    /// # unsafe { lockdep::install::<Native>(&CHECKER, &HELD) };
    /// # use core::panic::Location;
    /// # use sync::lockdep::{Acquire, Level, Map, WaitType};
    /// let reports = hosted::ReportCapture::new();
    /// let map = Map::new(WaitType::Spin, Level::Task);
    /// map.acquire::<Native>(Acquire::WRITE, Location::caller());
    /// map.release::<Native>(Location::caller());
    /// assert_eq!(reports.take(), []);
    /// map.release::<Native>(Location::caller());
    /// assert!(reports.take()[0].message.contains("bad unlock balance detected"));
    /// # unsafe { lockdep::uninstall::<Native>() };
    /// ```
    #[inline]
    pub fn release<P: Platform>(&self, at: &'static Location<'static>) {
        if shell::installed::<P>().is_some() {
            self.release_checked::<P>(at);
        }
    }

    /// What others wait for, by `acquire` and `release` of this map, is brought about now. The locks that the executing
    /// task holds here it may have had to wait for first: one that is held by somebody who waits for this is a circle.
    ///
    /// Linux: what its `complete` told the checker by the name of cross-release. Contexts and cost: as
    /// [`acquire`](Map::acquire).
    ///
    /// ```
    /// # use hal::{Native, hosted};
    /// # use sync::lockdep;
    /// # static CHECKER: lockdep::Checker = lockdep::Checker::new();
    /// # static HELD: lockdep::HeldStack = lockdep::HeldStack::new();
    /// # if !lockdep::ENABLED { return; }
    /// # let _cpu = hosted::bind().unwrap();
    /// # unsafe { lockdep::install::<Native>(&CHECKER, &HELD) };
    /// # use core::panic::Location;
    /// # use sync::lockdep::{Acquire, Level, Map, WaitType};
    /// let reports = hosted::ReportCapture::new();
    /// let (lock, done) = (sync::SpinLock::<u32>::new(1), Map::new(WaitType::Spin, Level::Task));
    /// let guard = lock.lock();
    /// done.acquire::<Native>(Acquire::WRITE, Location::caller()); // waits for it under the lock
    /// done.release::<Native>(Location::caller());
    /// assert_eq!(reports.take(), []);
    /// done.bring_about::<Native>(Location::caller()); // the other side needs the lock for that
    /// assert!(reports.take()[0].message.contains("possible circular locking dependency detected"));
    /// # drop(guard);
    /// # unsafe { lockdep::uninstall::<Native>() };
    /// ```
    #[inline]
    pub fn bring_about<P: Platform>(&self, at: &'static Location<'static>) {
        if shell::installed::<P>().is_some() {
            self.bring_about_checked::<P>(at);
        }
    }

    /// What nobody holds is about to be waited for, under whatever this task holds; and that is all there is to know. The
    /// other half is [`bring_about`](Map::bring_about).
    #[inline]
    pub(crate) fn wait_for<P: Platform>(&self, at: &'static Location<'static>) {
        self.acquire::<P>(Acquire::WRITE, at);
        self.release::<P>(at);
    }

    /// The lock has been found taken, and will be waited for. Returns the moment, for [`waited`](Map::waited); 0 if nobody
    /// counts. Linux: `lock_contended`.
    #[inline]
    pub(crate) fn contended<P: Platform>(&self) -> u64 {
        if shell::installed::<P>().is_some() { P::now_ns().max(1) } else { 0 }
    }

    /// That wait is over. Linux: `lock_acquired`.
    #[inline]
    pub(crate) fn waited<P: Platform>(&self, since_ns: u64) {
        if since_ns != 0 {
            with_checker::<P, _>(|checker, held, _, env| checker.waited(held, self.address(), since_ns, env));
        }
    }

    /// Whether the executing task holds the lock, in any mode, or is waiting for it. `None`: nobody keeps books, because
    /// no checker is installed or this is an NMI.
    ///
    /// Linux: `lockdep_is_held`. Contexts: any. Cost: O(held locks).
    ///
    /// ```
    /// # use sync::lockdep::{Level, Map, WaitType};
    /// let map = Map::new(WaitType::Spin, Level::Task);
    /// assert_eq!(map.is_held::<hal::Native>(), None, "no checker is installed");
    /// ```
    pub fn is_held<P: Platform>(&self) -> Option<bool> {
        with_checker::<P, _>(|_, held, _, _| held.find(self.address()).is_some())
    }

    /// Reports if the executing task does not hold the lock. Linux: `lockdep_assert_held`.
    ///
    /// ```
    /// # use hal::{Native, hosted};
    /// # use sync::lockdep;
    /// # static CHECKER: lockdep::Checker = lockdep::Checker::new();
    /// # static HELD: lockdep::HeldStack = lockdep::HeldStack::new();
    /// # if !lockdep::ENABLED { return; }
    /// # let _cpu = hosted::bind().unwrap();
    /// # unsafe { lockdep::install::<Native>(&CHECKER, &HELD) };
    /// # use core::panic::Location;
    /// # use sync::lockdep::{Acquire, Level, Map, WaitType};
    /// let reports = hosted::ReportCapture::new();
    /// let map = Map::new(WaitType::Spin, Level::Task);
    /// map.acquire::<Native>(Acquire::WRITE, Location::caller());
    /// map.assert_held::<Native>();
    /// assert_eq!(reports.take(), []);
    /// map.release::<Native>(Location::caller());
    /// map.assert_held::<Native>();
    /// assert!(reports.take()[0].message.starts_with("a lock is not held that must be"));
    /// # unsafe { lockdep::uninstall::<Native>() };
    /// ```
    #[track_caller]
    pub fn assert_held<P: Platform>(&self) {
        if self.is_held::<P>() == Some(false) {
            P::report(&Report {
                severity: Severity::Bug,
                message: format_args!("a lock is not held that must be: {self:?}"),
                location: Location::caller(),
            });
        }
    }

    #[cold]
    fn acquire_checked<P: Platform>(&self, how: Acquire, at: &'static Location<'static>) {
        if P::context().in_nmi() {
            if !how.is_try {
                shell::waits_in_nmi::<P>(&self.taking(0, how, at));
            }
            return;
        }
        with_checker::<P, _>(|checker, held, here, env| {
            let taking = self.taking(self.site(checker, env, at), how, at);
            checker.acquire(held, &taking, here, env);
        });
    }

    #[cold]
    fn bring_about_checked<P: Platform>(&self, at: &'static Location<'static>) {
        with_checker::<P, _>(|checker, held, here, env| {
            let taking = self.taking(self.site(checker, env, at), Acquire::TRY_WRITE, at);
            checker.bring_about(held, &taking, here, env);
        });
    }

    #[cold]
    fn release_checked<P: Platform>(&self, at: &'static Location<'static>) {
        with_checker::<P, _>(|checker, held, _, env| {
            checker.release(held, (self.address(), &self.identity), || self.site(checker, env, at), at, env);
        });
    }

    fn taking(&self, site: u16, how: Acquire, at: &'static Location<'static>) -> Taking {
        Taking { address: self.address(), identity: self.identity, site, how, at }
    }

    /// The lock's name among those that are held.
    fn address(&self) -> usize {
        ptr::from_ref(self) as usize
    }

    /// The number that `checker` has given to the lock.
    fn site(&self, checker: &'static Checker, env: &Env<'_>, at: &'static Location<'static>) -> u16 {
        let asking = ptr::from_ref(checker).cast_mut();
        // Acquire: pairs with the Release below.
        let known_to = self.known_to.load(Ordering::Acquire);
        if known_to == asking {
            return self.site.load(Ordering::Relaxed);
        }
        let site = checker.site(&self.identity, env, at);
        // Of several checkers (in tests) the first is remembered, and the others look each time. Who finds 0 stores; two
        // CPUs that do store the same.
        if site != 0 && known_to.is_null() && self.first_number(site) {
            // Release: pairs with the Acquire above; who knows the checker knows the number.
            self.known_to.store(asking, Ordering::Release);
        }
        site
    }

    /// Stores the number if there is none. `false`: there is another one, from another checker.
    fn first_number(&self, site: u16) -> bool {
        // Relaxed: the store to `known_to` is what publishes it.
        self.site.compare_exchange(0, site, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        let checker = *self.known_to.get_mut();
        if checker.is_null() {
            return;
        }
        // SAFETY: only `site` stores here, and what it stores is a `&'static Checker`.
        if let Some(on_drop) = unsafe { &*checker }.on_drop() {
            on_drop(self.address());
        }
    }
}

impl fmt::Debug for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.identity.name.unwrap_or("lock"), self.identity.site)
    }
}
