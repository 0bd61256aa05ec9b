//! Chains between which objects move while readers are on them.
//!
//! An object that is taken out of a list has to wait for a grace period before it can be used for something else. Where
//! objects come and go all the time, connections for instance, that keeps many of them, cold, out of use. If the memory
//! always holds objects of the same kind, one can be given a new key and put into another chain at once. Then:
//!
//! 1. A reader that stands on such an object goes on into the other chain. Each chain's end says whose it is; a reader that
//!    ends in another one than it began in starts again.
//! 2. The object that a reader has found may have got another key since. So whoever wants to keep it looks at the key
//!    again when it holds the object, by a reference count for instance.
//! 3. Objects go in at the front only: a reader that is carried on so misses nothing of the chain in which it ends.

use alloc::boxed::Box;
use core::fmt;

use sync::list::raw::HLinks;
use sync::list::{Field, HlistLink};
use sync::lockdep::Subclass;

use crate::domain::Domain;
use crate::guard::Proof;
use crate::hlist::{RcuHList, node_of, object_of};
use crate::member::report;
use crate::retired::{Reclaim, Retired};

/// A table of chains of `O`s, linked by field `F`, that readers of domain `D` search while objects move from one to another.
///
/// Which chain an object belongs to, and what its key is, is the user's affair; a key that [`rekey`](RcuNullsTable::rekey)
/// changes is one that can be read meanwhile, an atomic.
///
/// Linux: an array of `hlist_nulls_head`, for objects of a `SLAB_TYPESAFE_BY_RCU` cache. Size: a word and a lock a chain.
///
/// ```
/// use core::sync::atomic::{AtomicU32, Ordering};
/// use rcu::{RcuBox, RcuNullsTable};
/// use sync::list::HLink;
///
/// rcu::hosted_domain! { struct Connections; }
/// struct Connection {
///     port: AtomicU32,
///     link: HLink,
/// }
/// sync::link_field! { struct Hashed = Connection => link: HLink; }
///
/// let table = RcuNullsTable::<RcuBox<Connection>, Hashed, Connections>::new(16);
/// let chain = |port: u32| port as usize % 16;
/// let is = |port: u32| move |connection: &Connection| connection.port.load(Ordering::Relaxed) == port;
///
/// table.insert(chain(80), RcuBox::new(Connection { port: AtomicU32::new(80), link: HLink::new() }));
/// let reader = rcu::read();
/// assert!(table.find(chain(80), &reader, is(80)).is_some());
///
/// // It is closed, and the object used for the next one at once.
/// assert!(table.rekey(chain(80), chain(22), is(80), |connection| connection.port.store(22, Ordering::Relaxed)));
/// assert!(table.find(chain(80), &reader, is(80)).is_none());
/// assert!(table.find(chain(22), &reader, is(22)).is_some());
/// ```
///
/// # Invariants
/// The end of chain number `n` has the value `n`.
pub struct RcuNullsTable<O: Reclaim, F, D: Domain>
where
    F: Field<Object = O::Object, Link: HlistLink>,
{
    chains: Box<[RcuHList<O, F, D>]>,
}

impl<O: Reclaim, F: Field<Object = O::Object, Link: HlistLink>, D: Domain> RcuNullsTable<O, F, D> {
    /// A table of empty chains.
    ///
    /// ```
    /// # use rcu::{RcuBox, RcuNullsTable};
    /// # use sync::list::HLink;
    /// # rcu::hosted_domain! { struct Connections; }
    /// # struct Connection(u32, HLink);
    /// # sync::link_field! { struct Hashed = Connection => 1: HLink; }
    /// let table = RcuNullsTable::<RcuBox<Connection>, Hashed, Connections>::new(4);
    /// assert!(table.find(3, &rcu::read(), |_| true).is_none());
    /// ```
    #[cfg(not(loom))]
    pub fn new(chains: usize) -> RcuNullsTable<O, F, D> {
        // INVARIANT: numbered in order.
        RcuNullsTable { chains: (0..chains).map(RcuHList::with_end).collect() }
    }

    /// Puts an object into a chain, at its front. One that is in a list already is left there, and that is reported.
    /// Linux: `hlist_nulls_add_head_rcu`. Contexts: task; spins. Cost: O(1).
    ///
    /// # Panics
    /// If there is no such chain; so do the others.
    ///
    /// ```
    /// # use rcu::{RcuBox, RcuNullsTable};
    /// # use sync::list::HLink;
    /// # rcu::hosted_domain! { struct Connections; }
    /// # struct Connection(u32, HLink);
    /// # sync::link_field! { struct Hashed = Connection => 1: HLink; }
    /// # let table = RcuNullsTable::<RcuBox<Connection>, Hashed, Connections>::new(4);
    /// table.insert(3, RcuBox::new(Connection(7, HLink::new())));
    /// assert!(table.find(3, &rcu::read(), |connection| connection.0 == 7).is_some());
    /// ```
    #[track_caller]
    pub fn insert(&self, chain: usize, owner: O) {
        self.chains[chain].write().push_front(owner);
    }

    /// An object of the chain for which `is_it` was true at some moment of the call. `None`: at some moment of the call
    /// there was none. It may be another one by now: see [`find_held`](RcuNullsTable::find_held).
    ///
    /// Linux: the loop in `Documentation/RCU/rculist_nulls.rst`. Contexts: any. Cost: O(n), and again if an object was moved
    /// under the reader.
    ///
    /// ```
    /// # use rcu::{RcuBox, RcuNullsTable};
    /// # use sync::list::HLink;
    /// # rcu::hosted_domain! { struct Connections; }
    /// # struct Connection(u32, HLink);
    /// # sync::link_field! { struct Hashed = Connection => 1: HLink; }
    /// # let table = RcuNullsTable::<RcuBox<Connection>, Hashed, Connections>::new(4);
    /// assert!(table.find(0, &rcu::read(), |connection| connection.0 == 7).is_none());
    /// ```
    pub fn find<'g>(
        &'g self,
        chain: usize,
        section: &'g impl Proof<D>,
        mut is_it: impl FnMut(&O::Object) -> bool,
    ) -> Option<&'g O::Object> {
        loop {
            let mut objects = self.chains[chain].iter(section);
            let found = objects.find(|object| is_it(object));
            if found.is_some() || objects.end() == Some(chain) {
                return found;
            }
            // Carried away into another chain.
        }
    }

    /// The same, and keeps the object: `hold` takes a share in it, or answers `None` if it is being given up. `is_it` is asked
    /// again when the share is held, and what it says then stays true as long as objects that are held get no other key.
    ///
    /// Linux: `refcount_inc_not_zero`, and the comparison behind it. Contexts: any, as far as `hold` allows.
    ///
    /// ```
    /// use rcu::{RcuBox, RcuNullsTable};
    /// use sync::{RefCount, list::HLink};
    /// # rcu::hosted_domain! { struct Connections; }
    /// struct Connection(u32, RefCount, HLink);
    /// sync::link_field! { struct Hashed = Connection => 2: HLink; }
    /// let table = RcuNullsTable::<RcuBox<Connection>, Hashed, Connections>::new(4);
    /// table.insert(3, RcuBox::new(Connection(7, RefCount::new(), HLink::new())));
    /// let reader = rcu::read();
    /// let hold = |connection: &Connection| connection.1.try_get().then_some(connection.0);
    /// assert_eq!(table.find_held(3, &reader, |connection| connection.0 == 7, hold), Some(7));
    /// ```
    pub fn find_held<'g, H>(
        &'g self,
        chain: usize,
        section: &'g impl Proof<D>,
        mut is_it: impl FnMut(&O::Object) -> bool,
        mut hold: impl FnMut(&'g O::Object) -> Option<H>,
    ) -> Option<H> {
        loop {
            let object = self.find(chain, section, &mut is_it)?;
            // One that cannot be held is on its way out: it will not be found for ever.
            if let Some(held) = hold(object)
                && is_it(object)
            {
                return Some(held);
            }
        }
    }

    /// Takes the first object of the chain for which `is_it`, has `change` give it another key, and puts it into chain `to`,
    /// at once. Returns whether there was one. Readers who are on it go on in the other chain, and notice.
    ///
    /// Contexts: task; spins; both chains' writers are kept out. Cost: O(n).
    ///
    /// ```
    /// # use rcu::{RcuBox, RcuNullsTable};
    /// # use sync::list::HLink;
    /// # rcu::hosted_domain! { struct Connections; }
    /// # struct Connection(u32, HLink);
    /// # sync::link_field! { struct Hashed = Connection => 1: HLink; }
    /// # let table = RcuNullsTable::<RcuBox<Connection>, Hashed, Connections>::new(4);
    /// table.insert(3, RcuBox::new(Connection(7, HLink::new())));
    /// assert!(table.rekey(3, 1, |_| true, |_| ()));
    /// assert!(table.find(1, &rcu::read(), |connection| connection.0 == 7).is_some());
    /// ```
    #[track_caller]
    pub fn rekey(
        &self,
        from: usize,
        to: usize,
        mut is_it: impl FnMut(&O::Object) -> bool,
        change: impl FnOnce(&O::Object),
    ) -> bool {
        // The lower number's lock first, so that two who exchange objects do not wait for each other.
        let first = self.chains[from.min(to)].write();
        let second = (from != to).then(|| self.chains[from.max(to)].write_nested(Subclass::NESTED));
        let (from, to) = (&self.chains[from], &self.chains[to]);
        let mut at = from.head.first();
        while let Some(node) = at {
            // SAFETY: both chains' writers are kept out: `first` and `second` hold the locks. Members are valid.
            unsafe {
                let object = object_of::<F>(node);
                if !is_it(object.as_ref()) {
                    at = HLinks::next(node);
                    continue;
                }
                if let Err(why) = HLinks::del_rcu(node) {
                    report::<D>("RCU table: rekey", why);
                    return false;
                }
                change(object.as_ref());
                // The table's right to the owner goes with it. A shared owner's other users may try to claim the node in
                // between: then the object is theirs to link, and this share in it ends after a grace period.
                let node = node_of::<F>(object);
                if (O::SHARED && !node.as_ref().claim()) || to.head.add(node).is_err() {
                    drop(Retired::<O, D>::from_raw(object));
                    return false;
                }
            }
            drop((first, second));
            return true;
        }
        false
    }

    /// Removes the first object of the chain for which `is_it`, for good. Cost: O(n).
    ///
    /// ```
    /// # use rcu::{RcuBox, RcuNullsTable};
    /// # use sync::list::HLink;
    /// # rcu::hosted_domain! { struct Connections; }
    /// # struct Connection(u32, HLink);
    /// # sync::link_field! { struct Hashed = Connection => 1: HLink; }
    /// # let table = RcuNullsTable::<RcuBox<Connection>, Hashed, Connections>::new(4);
    /// table.insert(3, RcuBox::new(Connection(7, HLink::new())));
    /// assert_eq!(table.remove(3, |_| true).unwrap().0, 7);
    /// ```
    #[track_caller]
    pub fn remove(&self, chain: usize, is_it: impl FnMut(&O::Object) -> bool) -> Option<Retired<O, D>> {
        self.chains[chain].write().remove_first(is_it)
    }
}

impl<O: Reclaim, F: Field<Object = O::Object, Link: HlistLink>, D: Domain> fmt::Debug
    for RcuNullsTable<O, F, D>
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RcuNullsTable").field("chains", &self.chains.len()).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
#[path = "nulls_tests.rs"]
mod tests;
