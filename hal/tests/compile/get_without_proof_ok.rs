//! With proof.
use core::marker::PhantomData;
use core::sync::atomic::AtomicU64;

hal::percpu! {
    static COUNT: AtomicU64 = AtomicU64::new(0);
}

pub(crate) fn main() {
    struct AProof(PhantomData<*mut ()>);
    // SAFETY: a thread of the hosted machine stays on its CPU while it is bound, as it is until it ends.
    unsafe impl hal::percpu::Pinned for AProof {}
    COUNT.get(&AProof(PhantomData));
}
