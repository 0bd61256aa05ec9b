//! A closure that is called once, at a time, and has nobody who could delete it.

use alloc::boxed::Box;
use core::ptr::NonNull;

use hal::Platform;

use super::Fired;
use crate::base::{Context, Core, Ops, Reference};
use crate::queue::Queue;

/// Begins with its core, as every timer does.
#[repr(C)]
struct OneShot<F, Q: Queue, P: Platform> {
    core: Core<Q, P>,
    function: F,
}

/// A reference to a new one. Its memory is freed before `function` is called; if it is never called, never.
pub(crate) fn one_shot<F, Q, P>(core: Core<Q, P>, function: F) -> Reference<Q, P>
where
    F: FnOnce(&Fired<'_, Q, P>) + Send + 'static,
    Q: Queue,
    P: Platform,
{
    struct Via<F, Q, P>(core::marker::PhantomData<(F, Q, P)>);
    impl<F: FnOnce(&Fired<'_, Q, P>), Q: Queue, P: Platform> Via<F, Q, P> {
        const OPS: Ops<Q, P> = Ops {
            call: call_once::<F, Q, P>,
            release: None,
            type_name: core::any::type_name::<F>,
            embedded: false,
            nameless: true,
        };
    }
    let object = NonNull::from(Box::leak(Box::new(OneShot { core, function })));
    Reference { core: object.cast(), ops: &Via::<F, Q, P>::OPS }
}

/// Frees the timer around `core`, and calls its function.
///
/// # Safety
/// `core` is that of such a timer, detached, to which there is no other pointer.
unsafe fn call_once<F: FnOnce(&Fired<'_, Q, P>), Q: Queue, P: Platform>(
    core: NonNull<Core<Q, P>>,
    context: &Context<Q, P>,
) -> *const () {
    // SAFETY: by the contract.
    let OneShot { function, .. } = *unsafe { Box::from_raw(core.cast::<OneShot<F, Q, P>>().as_ptr()) };
    // The memory is gone here. `context` has an address of it, for comparison.
    function(&Fired::new(context));
    call_once::<F, Q, P> as *const ()
}
