//! Softirqs: which function serves a vector.
//!
//! The machine keeps the pending bits and says when they are served; each vector has one function, the same on all
//! CPUs.

use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

use sync::context::expect_balanced;

/// A vector's function, or null.
static HANDLERS: [AtomicPtr<fn()>; 10] = [const { AtomicPtr::new(ptr::null_mut()) }; 10];

/// From now on softirq `vector` calls `handler`, on the CPU where it was raised, with bottom halves off and interrupts
/// on. `None` takes the function away; one that is running goes on.
///
/// # Panics
/// If there is no such vector.
pub fn set_handler(vector: u32, handler: Option<&'static fn()>) {
    let pointer = handler.map_or(ptr::null_mut(), |handler| ptr::from_ref(handler).cast_mut());
    // Release: pairs with the Acquire in `serve`; the function sees what was prepared for it.
    HANDLERS[vector as usize].store(pointer, Ordering::Release);
}

/// Serves the vectors whose bits are set, the lowest first. Called by the machine.
pub(crate) fn serve(vectors: u32) {
    let mut left = vectors;
    while left != 0 {
        let vector = left.trailing_zeros();
        left &= left - 1;
        // SAFETY: null, or a `'static` function that `set_handler` stored.
        match unsafe { HANDLERS[vector as usize].load(Ordering::Acquire).as_ref() } {
            Some(handler) => expect_balanced(format_args!("softirq {vector}"), handler),
            None => ::log::warn!("softirq {vector} was raised and has no handler"),
        }
    }
}
