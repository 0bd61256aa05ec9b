//! A closure that is called once, at a time, and has nobody who could delete it.

use alloc::boxed::Box;
use core::ptr::NonNull;

use hal::Platform;
use sync::lockdep::Level;

use super::{Fired, Firing};
use crate::base::{Call, Core, Flags, Kinds, Ops, Reference};
use crate::queue::Queue;

/// Begins with its core, as every timer does.
#[repr(C)]
struct OneShot<F, Q: Queue, P: Platform> {
    core: Core<Q, P>,
    function: F,
}

/// A reference to a new one. Its memory is freed before `function` is called; if it is never called, never.
#[track_caller]
pub(crate) fn one_shot<F, Q, P>(entry: Q::Entry, flags: Flags, level: Level, function: F) -> Reference<Q, P>
where
    F: FnOnce(&Fired<'_, Q, P>) + Send + 'static,
    Q: Queue,
    P: Platform,
{
    struct Via<F, Q, P>(core::marker::PhantomData<(F, Q, P)>);
    impl<F: FnOnce(&Fired<'_, Q, P>), Q: Queue, P: Platform> Via<F, Q, P> {
        const OPS: Ops<Q, P> = Ops {
            release: None,
            type_name: core::any::type_name::<F>,
            embedded: false,
            kinds: Kinds::NAMELESS,
        };
    }
    let call: Call<Q, P> = call_once::<F, Q, P>;
    let core = Core::<Q, P>::new(entry, flags, level, call as *mut ());
    let object = NonNull::from(Box::leak(Box::new(OneShot { core, function })));
    Reference { core: object.cast(), ops: &Via::<F, Q, P>::OPS }
}

/// Frees the timer around `core`, and calls its function.
///
/// # Safety
/// `core` is that of such a timer, detached, to which there is no other pointer.
unsafe fn call_once<F: FnOnce(&Fired<'_, Q, P>), Q: Queue, P: Platform>(
    core: NonNull<Core<Q, P>>,
    firing: &Firing<'_, Q, P>,
) {
    // SAFETY: by the contract.
    let OneShot { function, .. } = *unsafe { Box::from_raw(core.cast::<OneShot<F, Q, P>>().as_ptr()) };
    // The memory is gone here.
    function(firing);
}
