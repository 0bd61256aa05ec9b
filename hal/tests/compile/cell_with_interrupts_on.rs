//! A value that may not be shared, while an interrupt could share it.
use core::cell::Cell;
use core::marker::PhantomData;

hal::percpu! {
    static VALUE: Cell<u64> = Cell::new(0);
}

struct NoPreempt(PhantomData<*mut ()>);
// SAFETY: a thread of the hosted machine stays on its CPU while it is bound, as it is until it ends.
unsafe impl hal::percpu::Pinned for NoPreempt {}

fn main() {
    let pinned = NoPreempt(PhantomData);
    VALUE.get(&pinned);
    VALUE.get_local(&pinned);
}
