//! How an object becomes a member of a list that readers walk, whatever links the list has.

use core::ptr::NonNull;

use hal::Platform;
use hal::platform::{Report, Severity};
use sync::list::Corruption;
use sync::list::raw::{HLinks, Links};

use crate::domain::Domain;
use crate::retired::Reclaim;

/// The links of a node, which is in one list at a time.
pub(crate) trait Node {
    /// See [`Links::is_linked`].
    fn is_linked(&self) -> bool;
    /// See [`Links::claim`].
    fn claim(&self) -> bool;
    /// See [`Links::unclaim`].
    fn unclaim(&self);
}

macro_rules! nodes {
    ($($Links:ty),*) => {$(
        impl Node for $Links {
            #[inline(always)]
            fn is_linked(&self) -> bool {
                self.is_linked()
            }

            #[inline(always)]
            fn claim(&self) -> bool {
                self.claim()
            }

            #[inline(always)]
            fn unclaim(&self) {
                self.unclaim();
            }
        }
    )*};
}
nodes!(Links, HLinks);

/// Claims the owner's node and gives it to `add`. If it is in a list already, or cannot be added, that is reported, and the
/// owner dropped.
///
/// # Safety
/// `node_of` finds a field of the object. The caller is the list's writer, and `add` makes the node a member of it.
#[inline]
#[track_caller]
pub(crate) unsafe fn insert<O: Reclaim, D: Domain, N: Node>(
    owner: O,
    node_of: unsafe fn(NonNull<O::Object>) -> NonNull<N>,
    add: impl FnOnce(NonNull<N>) -> Result<(), Corruption>,
) {
    let object = owner.into_raw();
    // SAFETY: the object is valid, so that its field is.
    let node = unsafe { node_of(object) };
    // SAFETY: as above.
    let links = unsafe { node.as_ref() };
    let mine = if O::SHARED { links.claim() } else { !links.is_linked() };
    let why = if !mine {
        Corruption::DoubleAdd { node: node.addr().get() }
    } else if let Err(why) = add(node) {
        links.unclaim();
        why
    } else {
        return;
    };
    report::<D>("RCU list: add", why);
    // SAFETY: taken apart above, and not added. Another owner's addition keeps the object alive.
    drop(unsafe { O::from_raw(object) });
}

/// Reports a list that is not as it should be, or an object that is in one already.
#[cold]
#[track_caller]
pub(crate) fn report<D: Domain>(operation: &str, why: Corruption) {
    D::Platform::report(&Report {
        severity: Severity::Bug,
        message: format_args!("{operation}: {why}"),
        location: core::panic::Location::caller(),
    });
}
