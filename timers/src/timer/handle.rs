//! What a timer is armed through.

use core::pin::Pin;
use core::ptr::NonNull;

#[cfg(feature = "alloc")]
use alloc::{boxed::Box, sync::Arc};

use hal::Platform;

use super::Timer;
use crate::base::{Core, Kinds, Ops, Reference};
use crate::queue::Queue;

/// A pointer that a timer is armed through: it keeps the timer alive while it is armed and while it is being called.
///
/// | pointer | keeps it alive by |
/// |---|---|
/// | `Arc<Timer>` | one reference count, which the armed state has from then on |
/// | `&Arc<Timer>` | the same; nothing is counted if the timer is armed already |
/// | `Box<Timer>` | being the only pointer: the timer is freed when it was called, unless its function armed it again |
/// | `&'static Timer` | itself |
/// | `Pin<&Timer>` | the timer's own drop, which stops the machine if it is armed or running |
///
/// The state is used by the function on any CPU, and for as long as the timer is armed: it is `Send`, `Sync` and `'static`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not keep a timer alive",
    note = "arm it through an `Arc`, a `Box`, a `&'static` reference, or, embedded, through `Pin<&Timer>`; its state must be \
            `Send + Sync + 'static`"
)]
pub trait Handle<T, Q: Queue, P: Platform>: sealed::Handle<T, Q, P> {}

impl<T, Q: Queue, P: Platform, H: sealed::Handle<T, Q, P>> Handle<T, Q, P> for H {}

pub(crate) mod sealed {
    use super::*;

    pub trait Handle<T, Q: Queue, P: Platform>: Sized {
        #[doc(hidden)]
        #[expect(private_interfaces, reason = "nobody outside can call it")]
        fn core(&self) -> &Core<Q, P>;

        /// Takes the pointer apart.
        #[doc(hidden)]
        #[expect(private_interfaces, reason = "nobody outside can call it")]
        fn into_reference(self) -> Reference<Q, P>;
    }
}

/// The timer's name in reports.
fn name<T>() -> &'static str {
    core::any::type_name::<T>()
}

macro_rules! handle {
    ($(#[$cfg:meta])? $Pointer:ty, embedded: $embedded:expr, release: $release:expr, kinds: $kinds:expr, |$self:ident| $object:expr) => {
        $(#[$cfg])?
        #[expect(private_interfaces, reason = "nobody outside can call it")]
        impl<T: Send + Sync + 'static, Q: Queue, P: Platform> sealed::Handle<T, Q, P> for $Pointer {
            #[inline(always)]
            fn core(&self) -> &Core<Q, P> {
                &self.core
            }

            #[inline(always)]
            fn into_reference($self) -> Reference<Q, P> {
                struct Via<T, Q, P>(core::marker::PhantomData<(T, Q, P)>);
                impl<T: 'static, Q: Queue, P: Platform> Via<T, Q, P> {
                    const OPS: Ops<Q, P> = Ops {
                        release: $release,
                        type_name: name::<T>,
                        embedded: $embedded,
                        kinds: $kinds,
                    };
                }
                let object: NonNull<Timer<T, Q, P>> = $object;
                Reference { core: object.cast(), ops: &Via::<T, Q, P>::OPS }
            }
        }
    };
}

handle!(&'static Timer<T, Q, P>, embedded: false, release: None, kinds: Kinds::PLAIN, |self| NonNull::from(self));
handle!(Pin<&Timer<T, Q, P>>, embedded: true, release: None, kinds: Kinds::PLAIN, |self| NonNull::from(self.get_ref()));
handle!(
    #[cfg(feature = "alloc")]
    Box<Timer<T, Q, P>>,
    embedded: false,
    release: Some(release_box::<T, Q, P>),
    kinds: Kinds::RELEASED,
    |self| {
        // SAFETY: a box is never null.
        unsafe { NonNull::new_unchecked(Box::into_raw(self)) }
    }
);
handle!(
    #[cfg(feature = "alloc")]
    Arc<Timer<T, Q, P>>,
    embedded: false,
    release: Some(release_arc::<T, Q, P>),
    kinds: Kinds::RELEASED,
    |self| {
        // SAFETY: an `Arc` is never null.
        unsafe { NonNull::new_unchecked(Arc::into_raw(self).cast_mut()) }
    }
);

#[cfg(feature = "alloc")]
#[expect(private_interfaces, reason = "nobody outside can call it")]
impl<T: Send + Sync + 'static, Q: Queue, P: Platform> sealed::Handle<T, Q, P> for &Arc<Timer<T, Q, P>> {
    #[inline(always)]
    fn core(&self) -> &Core<Q, P> {
        &self.core
    }

    #[inline(always)]
    fn into_reference(self) -> Reference<Q, P> {
        Arc::clone(self).into_reference()
    }
}

/// # Safety
/// `core` is that of such a timer, from a box that was taken apart and not put together since.
#[cfg(feature = "alloc")]
unsafe fn release_box<T, Q: Queue, P: Platform>(core: NonNull<Core<Q, P>>) {
    // SAFETY: by the contract.
    drop(unsafe { Box::<Timer<T, Q, P>>::from_raw(core.cast().as_ptr()) });
}

/// # Safety
/// As for [`release_box`], of an `Arc`.
#[cfg(feature = "alloc")]
unsafe fn release_arc<T, Q: Queue, P: Platform>(core: NonNull<Core<Q, P>>) {
    // SAFETY: by the contract.
    drop(unsafe { Arc::<Timer<T, Q, P>>::from_raw(core.cast().as_ptr()) });
}
