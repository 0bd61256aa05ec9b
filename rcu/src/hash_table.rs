//! What a hash table is made of: entries, and the chains of a size.

use alloc::boxed::Box;
use core::fmt;
use core::ops::Deref;
use core::ptr;

use crate::primitives::AtomicPtr;

/// A key with its value, as it was put in.
pub struct Entry<K, V> {
    pub(crate) next: [AtomicPtr<Entry<K, V>>; 2],
    pub(crate) hash: u64,
    pub(crate) key: K,
    pub(crate) value: V,
}

impl<K, V> Entry<K, V> {
    /// The key.
    pub fn key(&self) -> &K {
        &self.key
    }

    /// The value.
    pub fn value(&self) -> &V {
        &self.value
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Entry<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Entry").field(&self.key).field(&self.value).finish()
    }
}

impl<K, V> Deref for Entry<K, V> {
    type Target = V;

    fn deref(&self) -> &V {
        &self.value
    }
}

/// The chains.
pub(crate) struct Table<K, V> {
    /// Which of an entry's pointers they use.
    pub(crate) set: usize,
    /// A power of two of them.
    pub(crate) buckets: Box<[AtomicPtr<Entry<K, V>>]>,
}

// SAFETY: a table only points to entries; the map owns them.
unsafe impl<K, V> Send for Table<K, V> {}
// SAFETY: as above.
unsafe impl<K, V> Sync for Table<K, V> {}

impl<K, V> Table<K, V> {
    pub(crate) fn new(set: usize, buckets: usize) -> Table<K, V> {
        Table { set, buckets: (0..buckets).map(|_| AtomicPtr::new(ptr::null_mut())).collect() }
    }

    pub(crate) fn bucket(&self, hash: u64) -> &AtomicPtr<Entry<K, V>> {
        // The high bits, which weak hash functions mix best, take part.
        let mixed = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        &self.buckets[mixed as usize & (self.buckets.len() - 1)]
    }
}
