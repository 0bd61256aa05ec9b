//! Of a type that two CPUs may share.
use core::sync::atomic::AtomicU64;
use hal::CpuId;

hal::percpu! {
    static VALUE: AtomicU64 = AtomicU64::new(0);
}

pub(crate) fn main() {
    let _cpu = hal::hosted::bind();
    VALUE.on(CpuId::BOOT);
}
