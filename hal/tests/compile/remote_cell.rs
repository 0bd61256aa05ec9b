//! Another CPU's value, of a type that two CPUs may not share.
use core::cell::Cell;
use hal::CpuId;

hal::percpu! {
    static VALUE: Cell<u64> = Cell::new(0);
}

fn main() {
    let _cpu = hal::hosted::bind();
    VALUE.on(CpuId::BOOT);
}
