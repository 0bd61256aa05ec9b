//! A hash table whose readers take no lock, and which grows and shrinks under them.
//!
//! 1. A key's entry hangs in the chain of its bucket. Readers walk chains by `next` pointers, under the proof of a read
//!    section. Writers exclude each other by a spin lock.
//! 2. Every entry has *two* `next` pointers, and every table says which of the two its chains use. To resize, the writer
//!    builds chains of all entries in a new table by the other pointer. The chains of the old table stay as they are:
//!    readers who are in them miss nothing.
//! 3. Then the new table is published, in one store. Readers who begin afterwards find it. After a grace period nobody is
//!    in the old chains any more; the old table is freed, and its pointers are free for the next resize.
//!
//! So a present key is found at every moment, and a reader pays for resizing with nothing. A resize that would come less
//! than a grace period after the one before is put off to a later insertion.
//!
//! # Invariants
//! * **T1**: entries of the current table are linked by `next[table.set]`, each in the chain of its hash; the other pointers
//!   are used by readers of the former table only, until a grace period has passed since it was replaced.
//! * **T2**: tables and chains are changed by the holder of the lock.
//! * **T3**: an entry is unlinked from the current table before it is retired, and belongs to the map until then. Readers who
//!   still find it in a former table began before that table was replaced.

use core::borrow::Borrow;
use core::fmt;
use core::hash::{BuildHasher, Hash};
use core::ptr::{self, NonNull};

use sync::list::Owner;
use sync::{SpinLock, Task};

use crate::always::Rcu;
use crate::boxed::RcuBox;
use crate::domain::Domain;
use crate::guard::{Proof, ReadGuard, read};
use crate::hash_table::{Entry, Table};
use crate::primitives::{AtomicPtr, AtomicUsize, Ordering};
use crate::retired::Retired;

/// The fewest buckets of a table.
const FEWEST: usize = 8;

/// A map from keys to values for many readers in domain `D`.
///
/// Readers pass the proof of a read section and get references that last as long as it. An entry is never changed; a new
/// value is a new entry.
///
/// Linux: `rhashtable`. Contexts: reading, any; changing, tasks with preemption allowed or not (a spin lock is taken, memory
/// is allocated). Cost: reading, one load for the table and one an entry of the chain, of which there is one on average.
///
/// ```
/// use rcu::RcuHashMap;
/// use std::hash::RandomState;
/// rcu::hosted_domain! { struct Names; }
///
/// let numbers = RcuHashMap::<&str, u32, Names, RandomState>::default();
/// numbers.insert("one", 1);
/// numbers.insert("two", 2);
/// let reader = rcu::read();
/// assert_eq!(numbers.get("two", &reader), Some(&2));
/// drop(numbers.remove("two"));
/// assert_eq!(numbers.get("two", &reader), None);
/// ```
pub struct RcuHashMap<K: Send + Sync + 'static, V: Send + Sync + 'static, D: Domain, S> {
    table: Rcu<RcuBox<Table<K, V>>, D>,
    /// Writers exclude each other.
    writers: SpinLock<Writers<D>, Task<D::Platform>>,
    len: AtomicUsize,
    hasher: S,
}

struct Writers<D: Domain> {
    /// When the current table replaced another one.
    replaced: Option<D::State>,
}

// SAFETY: entries go in and out by any thread and are shared by readers, which `K` and `V` allow.
unsafe impl<K: Send + Sync, V: Send + Sync, D: Domain, S: Send> Send for RcuHashMap<K, V, D, S> {}
// SAFETY: as above; the lock excludes writers.
unsafe impl<K: Send + Sync, V: Send + Sync, D: Domain, S: Sync> Sync for RcuHashMap<K, V, D, S> {}

impl<K: Send + Sync + 'static, V: Send + Sync + 'static, D: Domain, S> RcuHashMap<K, V, D, S> {
    /// An empty map with this way to hash.
    ///
    /// ```
    /// # use rcu::RcuHashMap;
    /// # rcu::hosted_domain! { struct Names; }
    /// let map = RcuHashMap::<u32, u32, Names, _>::with_hasher(std::hash::RandomState::new());
    /// assert!(map.is_empty());
    /// ```
    pub fn with_hasher(hasher: S) -> RcuHashMap<K, V, D, S> {
        RcuHashMap {
            table: Rcu::new(RcuBox::new(Table::new(0, FEWEST))),
            writers: SpinLock::new(Writers { replaced: None }),
            len: AtomicUsize::new(0),
            hasher,
        }
    }

    /// How many entries there are. Out of date at once.
    ///
    /// ```
    /// # use rcu::RcuHashMap;
    /// # rcu::hosted_domain! { struct Names; }
    /// let map = RcuHashMap::<u32, u32, Names, std::hash::RandomState>::default();
    /// map.insert(1, 1);
    /// assert_eq!(map.len(), 1);
    /// ```
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Whether there are none. Out of date at once.
    ///
    /// ```
    /// # use rcu::RcuHashMap;
    /// # rcu::hosted_domain! { struct Names; }
    /// assert!(RcuHashMap::<u32, u32, Names, std::hash::RandomState>::default().is_empty());
    /// ```
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many buckets the table has at this moment.
    ///
    /// ```
    /// # use rcu::RcuHashMap;
    /// # rcu::hosted_domain! { struct Names; }
    /// let map = RcuHashMap::<u32, u32, Names, std::hash::RandomState>::default();
    /// assert_eq!(map.buckets(), 8);
    /// ```
    pub fn buckets(&self) -> usize {
        self.table.load(&read::<D>()).buckets.len()
    }

    /// All entries, in no order. Those that are there during the whole iteration come exactly once; it goes over one
    /// table, whatever resizing happens meanwhile.
    ///
    /// ```
    /// # use rcu::RcuHashMap;
    /// # rcu::hosted_domain! { struct Names; }
    /// let map = RcuHashMap::<u32, u32, Names, std::hash::RandomState>::default();
    /// map.insert(1, 10);
    /// map.insert(2, 20);
    /// let reader = rcu::read();
    /// assert_eq!(map.iter(&reader).map(|entry| entry.value()).sum::<u32>(), 30);
    /// ```
    pub fn iter<'g>(&'g self, section: &'g impl Proof<D>) -> impl Iterator<Item = &'g Entry<K, V>> {
        let table = self.table.load(section);
        table.buckets.iter().flat_map(|bucket| {
            // SAFETY: the entries of a table that was loaded in this section are alive until it ends (T3).
            unsafe { chain(bucket, table.set) }
        })
    }
}

/// The pointer that points to what was looked for, and that; without one, the end of the chain.
type Found<'t, K, V> = (&'t AtomicPtr<Entry<K, V>>, Option<NonNull<Entry<K, V>>>);

/// The entries of a chain.
///
/// # Safety
/// They stay alive for `'g`: the table was loaded in a read section that lasts so long, or the caller is the writer.
unsafe fn chain<'g, K: 'g, V: 'g>(
    bucket: &'g AtomicPtr<Entry<K, V>>,
    set: usize,
) -> impl Iterator<Item = &'g Entry<K, V>> {
    let mut at = bucket;
    core::iter::from_fn(move || {
        // Acquire: pairs with the Releases of `insert` and `rebuild`: the entry is complete.
        // SAFETY: the contract.
        let entry: &'g Entry<K, V> = unsafe { at.load(Ordering::Acquire).as_ref() }?;
        at = &entry.next[set];
        Some(entry)
    })
}

impl<K: Eq + Hash + Send + Sync + 'static, V: Send + Sync + 'static, D: Domain, S: BuildHasher>
    RcuHashMap<K, V, D, S>
{
    /// The value of a key, for as long as the section lasts.
    ///
    /// ```
    /// # use rcu::RcuHashMap;
    /// # rcu::hosted_domain! { struct Names; }
    /// let map = RcuHashMap::<String, u32, Names, std::hash::RandomState>::default();
    /// map.insert("one".into(), 1);
    /// assert_eq!(map.get("one", &rcu::read()), Some(&1));
    /// ```
    pub fn get<'g, Q: Eq + Hash + ?Sized>(&'g self, key: &Q, section: &'g impl Proof<D>) -> Option<&'g V>
    where
        K: Borrow<Q>,
    {
        let hash = self.hasher.hash_one(key);
        let table = self.table.load(section);
        // SAFETY: as in `iter`.
        let mut chain = unsafe { chain(table.bucket(hash), table.set) };
        let found = chain.find(|entry| entry.hash == hash && entry.key.borrow() == key)?;
        Some(&found.value)
    }

    /// Puts a value in. If the key had another one before, its entry comes out; a reader finds one of the two at every
    /// moment. The new entry carries the new `key`.
    ///
    /// ```
    /// # use rcu::RcuHashMap;
    /// # rcu::hosted_domain! { struct Names; }
    /// let map = RcuHashMap::<u32, u32, Names, std::hash::RandomState>::default();
    /// assert!(map.insert(1, 10).is_none());
    /// assert_eq!(*map.insert(1, 11).unwrap().value(), 10);
    /// ```
    pub fn insert(&self, key: K, value: V) -> Option<Retired<RcuBox<Entry<K, V>>, D>> {
        let hash = self.hasher.hash_one(&key);
        let none = || AtomicPtr::new(ptr::null_mut());
        let entry = RcuBox::new(Entry { next: [none(), none()], hash, key, value }).into_raw();
        let mut spare = self.spare_table();
        let mut writers = self.writers.lock();
        let section: ReadGuard<'_, D> = read();
        let table = self.table.load(&section);
        // SAFETY: fresh, and not known to readers yet.
        let new = unsafe { entry.as_ref() };
        // SAFETY: entries of the current table are alive, for the writer (T3).
        let (place, old) = unsafe { self.find(table, hash, &new.key) };
        let behind = match old {
            // SAFETY: as above.
            Some(old) => unsafe { old.as_ref() }.next[table.set].load(Ordering::Relaxed),
            None => table.bucket(hash).load(Ordering::Relaxed),
        };
        new.next[table.set].store(behind, Ordering::Relaxed);
        let place = if old.is_some() { place } else { table.bucket(hash) };
        // Release: pairs with the Acquire in `chain`. One store: readers find the old one or the new one.
        place.store(entry.as_ptr(), Ordering::Release);
        if old.is_none() {
            self.len.fetch_add(1, Ordering::Relaxed);
        }
        let former = spare.take().and_then(|spare| self.rebuild(spare, table, &mut writers));
        drop(section);
        drop(writers);
        drop(former);
        // SAFETY: unlinked from the current table, so that the map has given up its right to it (T3).
        old.map(|old| unsafe { Retired::from_raw(old) })
    }

    /// Takes the entry of a key out.
    ///
    /// ```
    /// # use rcu::RcuHashMap;
    /// # rcu::hosted_domain! { struct Names; }
    /// let map = RcuHashMap::<u32, u32, Names, std::hash::RandomState>::default();
    /// map.insert(1, 10);
    /// assert_eq!(*map.remove(&1).unwrap().value(), 10);
    /// assert!(map.remove(&1).is_none());
    /// ```
    pub fn remove<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<Retired<RcuBox<Entry<K, V>>, D>>
    where
        K: Borrow<Q>,
    {
        let hash = self.hasher.hash_one(key);
        let writers = self.writers.lock();
        let section: ReadGuard<'_, D> = read();
        let table = self.table.load(&section);
        // SAFETY: as in `insert`.
        let (place, old) = unsafe { self.find(table, hash, key) };
        let old = old?;
        // The entry's own pointer stays, for readers who are on it.
        // SAFETY: as in `insert`.
        let behind = unsafe { old.as_ref() }.next[table.set].load(Ordering::Relaxed);
        // Release: pairs with the Acquire in `chain`, for the entry behind.
        place.store(behind, Ordering::Release);
        self.len.fetch_sub(1, Ordering::Relaxed);
        drop(section);
        drop(writers);
        // SAFETY: as in `insert`.
        Some(unsafe { Retired::from_raw(old) })
    }

    /// Gives the table as many buckets as its entries deserve, if it has many more. (It grows by itself.) Returns whether
    /// it did; not if less than a grace period has passed since the table was replaced the last time.
    ///
    /// ```
    /// # use rcu::{RcuHashMap, hosted::HostedDomain};
    /// # rcu::hosted_domain! { struct Names; }
    /// let map = RcuHashMap::<u32, u32, Names, std::hash::RandomState>::default();
    /// for n in 0..1_000 {
    ///     map.insert(n, n);
    /// }
    /// for n in 10..1_000 {
    ///     drop(map.remove(&n));
    /// }
    /// Names::wait_for_readers();
    /// assert!(map.shrink() && map.buckets() <= 16);
    /// ```
    pub fn shrink(&self) -> bool {
        let mut spare = self.table_of(self.buckets_for(self.len()));
        let mut writers = self.writers.lock();
        let section: ReadGuard<'_, D> = read();
        let table = self.table.load(&section);
        let smaller = spare.take().filter(|spare| spare.buckets.len() < table.buckets.len());
        let former = smaller.and_then(|spare| self.rebuild(spare, table, &mut writers));
        drop(section);
        drop(writers);
        former.is_some()
    }

    fn buckets_for(&self, len: usize) -> usize {
        len.next_power_of_two().max(FEWEST)
    }

    fn table_of(&self, buckets: usize) -> Option<RcuBox<Table<K, V>>> {
        Some(RcuBox::new(Table::new(0, buckets)))
    }

    /// A larger table, allocated before the lock is taken, if it looks as if one were needed.
    fn spare_table(&self) -> Option<RcuBox<Table<K, V>>> {
        let len = self.len() + 1;
        if len > self.buckets() { self.table_of(self.buckets_for(2 * len)) } else { None }
    }

    /// The entry of a key, and the pointer that points to it; without one, the end of the chain.
    ///
    /// # Safety
    /// The caller holds the lock, and `table` is the current one.
    unsafe fn find<'t, Q: Eq + ?Sized>(&self, table: &'t Table<K, V>, hash: u64, key: &Q) -> Found<'t, K, V>
    where
        K: Borrow<Q>,
    {
        let mut place = table.bucket(hash);
        loop {
            let Some(at) = NonNull::new(place.load(Ordering::Relaxed)) else { return (place, None) };
            // SAFETY: entries of the current table are alive, and nobody else takes any out (T2, T3).
            let entry: &'t Entry<K, V> = unsafe { at.as_ref() };
            if entry.hash == hash && entry.key.borrow() == key {
                return (place, Some(at));
            }
            place = &entry.next[table.set];
        }
    }

    /// Links all entries into `new` and publishes it. The former table comes out. `None`, and nothing has happened, if the
    /// pointers that `new` would use may have readers.
    fn rebuild(
        &self,
        mut new: RcuBox<Table<K, V>>,
        table: &Table<K, V>,
        writers: &mut Writers<D>,
    ) -> Option<Retired<RcuBox<Table<K, V>>, D>> {
        if new.buckets.len() == table.buckets.len() || writers.replaced.is_some_and(|since| !D::poll(since)) {
            return None;
        }
        new.set = 1 - table.set;
        for bucket in &table.buckets {
            // The pointers themselves go from place to place: what is made of a reference to an entry would not lead to the
            // box that it is in.
            let mut at = bucket.load(Ordering::Relaxed);
            while let Some(found) = NonNull::new(at) {
                // SAFETY: entries of the current table are alive; the caller holds the lock (T2, T3).
                let entry = unsafe { found.as_ref() };
                at = entry.next[table.set].load(Ordering::Relaxed);
                let place = new.bucket(entry.hash);
                // T1: nobody reads these pointers.
                entry.next[new.set].store(place.load(Ordering::Relaxed), Ordering::Relaxed);
                place.store(found.as_ptr(), Ordering::Relaxed);
            }
        }
        // Releases: pairs with the Acquire in `Rcu::load`.
        let former = self.table.replace(new);
        writers.replaced = Some(D::start_poll());
        Some(former)
    }
}

impl<K: Send + Sync + 'static, V: Send + Sync + 'static, D: Domain, S> Drop for RcuHashMap<K, V, D, S> {
    fn drop(&mut self) {
        let section: ReadGuard<'_, D> = read();
        let table = self.table.load(&section);
        for bucket in &table.buckets {
            let mut at = bucket.load(Ordering::Acquire);
            while let Some(entry) = NonNull::new(at) {
                // SAFETY: linked entries are the map's. References to entries borrow the map, so that there are none; but
                // readers of the former table may have been on others, which were retired.
                unsafe {
                    at = entry.as_ref().next[table.set].load(Ordering::Relaxed);
                    drop(RcuBox::from_raw(entry));
                }
            }
        }
    }
}

impl<K: Send + Sync + 'static, V: Send + Sync + 'static, D: Domain, S: Default> Default
    for RcuHashMap<K, V, D, S>
{
    fn default() -> RcuHashMap<K, V, D, S> {
        RcuHashMap::with_hasher(S::default())
    }
}

impl<K, V, D, S> fmt::Debug for RcuHashMap<K, V, D, S>
where
    K: fmt::Debug + Send + Sync + 'static,
    V: fmt::Debug + Send + Sync + 'static,
    D: Domain,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let section: ReadGuard<'_, D> = read();
        f.debug_map().entries(self.iter(&section).map(|entry| (&entry.key, &entry.value))).finish()
    }
}

#[cfg(all(test, not(loom)))]
#[path = "hash_tests.rs"]
mod tests;
