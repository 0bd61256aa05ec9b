//! With interrupts off.
use core::cell::Cell;
use core::marker::PhantomData;
use hal::{Native, Platform};

hal::percpu! {
    static VALUE: Cell<u64> = Cell::new(0);
}

struct NoIrqs(PhantomData<*mut ()>);
// SAFETY: interrupts are off in `main` while the value lives, and a bound thread stays on its CPU.
unsafe impl hal::percpu::Pinned for NoIrqs {}
// SAFETY: likewise.
unsafe impl hal::percpu::IrqsOff for NoIrqs {}

pub(crate) fn main() {
    Native::irq_disable();
    {
        let masked = NoIrqs(PhantomData);
        VALUE.get_local(&masked).set(1);
    }
    Native::irq_enable();
}
