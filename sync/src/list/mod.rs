//! Intrusive lists: the links are inside of the objects.
//!
//! 1. **No allocation, no second pointer.** An object that is to be in a list has a [`Link`] field. Adding and removing
//!    write a few words and cannot fail for want of memory, so they may be done in every context, and an object is found
//!    in the list in one step.
//! 2. **Membership is owned.** A [`List`] holds `Box`es, `Arc`s, or references, takes them when an object is added and
//!    gives them back when it is removed. An object cannot be in two lists by one link: a second add is refused, by the
//!    compiler where the pointer is unique and by an atomic claim where it is shared. What is in a list does not move
//!    and does not end; if it is dropped all the same, the machine stops with a report.
//! 3. **The ring is below, and separate.** [`raw::Links`] is the unsafe core with its invariants numbered. Its order of
//!    stores lets readers who take no lock walk forward while one writer changes the ring.
//!
//! | wanted | type | a head is | links |
//! |---|---|---|---|
//! | both ends, both directions | [`List`] | three words | two words |
//! | many heads, as in a hash table | [`HList`] | one word | two words |
//! | the same, and lockless readers that notice when they changed chains | [`HList::with_nulls`] | one word | two words |
//! | producers without a lock | [`llist::LList`](crate::llist::LList) | one word | one word |
//!
//! `docs/lists.md` tells the story: why so, what breaks otherwise, what it costs. Read in this order: `links.rs`,
//! `stores.rs`, `rearrange.rs` (the core); `field.rs`, `owner.rs`, `link.rs`, `typed.rs`, `membership.rs`, `cursor.rs`,
//! `iter.rs`; then `hlist_links.rs` and `hlist/`.

mod corruption;
mod cursor;
mod field;
mod hlist;
mod hlist_links;
mod iter;
mod link;
mod links;
mod membership;
mod owner;
mod rearrange;
mod stores;
mod typed;

pub use corruption::Corruption;
pub use cursor::{Cursor, CursorMut};
pub use field::Field;
#[doc(hidden)]
pub use field::{FieldPointer, same_type};
pub use hlist::{HCursorMut, HDrain, HIter, HLink, HList, HlistLink};
pub use iter::{Drain, Iter, IterMut};
pub use link::{Link, RingLink};
pub use owner::{Owner, UniqueOwner};
pub use typed::List;

/// The ring without owners or types, for those who build another list on it.
pub mod raw {
    #[doc(inline)]
    pub use super::hlist_links::{HHead, HLinks};
    #[doc(inline)]
    pub use super::links::Links;
}

/// For the crate's other lists.
pub(crate) mod internals {
    pub(crate) use super::field::{link_of, object_of};
    pub(crate) use super::link::{linked_node_dropped, report_refused};
}
