//! What a list finds wrong with itself, and how it looks for it.
//!
//! A node that is added twice or removed twice, or memory that somebody overwrote, turns a ring into something that
//! loops for ever or leads into freed memory, and the crash comes much later and elsewhere. Debug builds therefore look
//! at both neighbours before they change them, and mark removed nodes with addresses that cannot be followed. An
//! operation that finds something wrong changes nothing and returns a [`Corruption`]; the typed lists report it with
//! their caller's line.

use core::fmt;
use core::ptr;

/// Why an operation on a list was refused. Fields are addresses, for finding the culprit in a memory dump.
///
/// Its `Display` is the line that the typed lists report.
///
/// ```
/// use sync::list::Corruption;
///
/// let error = Corruption::DoubleAdd { node: 0x1000 };
/// assert_eq!(error.to_string(), "double add: node 0x1000 is in a list already");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Corruption {
    /// The node to be added is in a list, this one or another.
    DoubleAdd {
        /// The node.
        node: usize,
    },
    /// The node to be removed was removed before.
    DoubleRemove {
        /// The node.
        node: usize,
    },
    /// The node to be removed has never been in a list, or the head was never initialised.
    NotInList {
        /// The node.
        node: usize,
    },
    /// The node behind does not point back: `node.next.prev` is not `node`.
    NextDisagrees {
        /// The node that was asked.
        node: usize,
        /// Its `next`.
        next: usize,
        /// What `next.prev` is instead of `node`.
        found: usize,
    },
    /// The node in front does not point here: `node.prev.next` is not `node`.
    PrevDisagrees {
        /// The node that was asked.
        node: usize,
        /// Its `prev`.
        prev: usize,
        /// What `prev.next` is instead of `node`.
        found: usize,
    },
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Corruption::DoubleAdd { node } => {
                write!(f, "double add: node {node:#x} is in a list already")
            }
            Corruption::DoubleRemove { node } => {
                write!(f, "double remove: node {node:#x} was removed before")
            }
            Corruption::NotInList { node } => {
                write!(f, "node {node:#x} is in no list")
            }
            Corruption::NextDisagrees { node, next, found } => {
                write!(
                    f,
                    "list corruption: next.prev should be {node:#x}, but is {found:#x} (next is {next:#x})"
                )
            }
            Corruption::PrevDisagrees { node, prev, found } => {
                write!(
                    f,
                    "list corruption: prev.next should be {node:#x}, but is {found:#x} (prev is {prev:#x})"
                )
            }
        }
    }
}

impl core::error::Error for Corruption {}

/// Whether operations look before they change anything.
pub(crate) const CHECKED: bool = cfg!(debug_assertions);

/// An address that no machine maps: on 64-bit processors it is not canonical, so following it traps at once instead of
/// reading whatever lies there. Odd, so that it is no node's.
const fn poison(which: usize) -> usize {
    (1 << (usize::BITS - 2)) | (which << 8) | 1
}

/// In `next` of a node that was removed.
pub(crate) const POISON_NEXT: usize = poison(1);
/// In `prev` of a node that was removed.
pub(crate) const POISON_PREV: usize = poison(2);
/// In `prev` of a node that somebody is about to add. Odd, so that it is no node's.
pub(crate) const CLAIMED: usize = 1;

/// A pointer that is only compared.
#[inline(always)]
pub(crate) const fn marker<T>(address: usize) -> *mut T {
    ptr::without_provenance_mut(address)
}
