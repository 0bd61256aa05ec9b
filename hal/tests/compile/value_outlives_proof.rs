//! A reference that is kept when the proof is gone.
use core::marker::PhantomData;
use core::sync::atomic::AtomicU64;

hal::percpu! {
    static COUNT: AtomicU64 = AtomicU64::new(0);
}

struct NoPreempt(PhantomData<*mut ()>);
impl NoPreempt {
    fn end(self) {}
}
// SAFETY: a thread of the hosted machine stays on its CPU while it is bound, as it is until it ends.
unsafe impl hal::percpu::Pinned for NoPreempt {}

fn main() {
    let pinned = NoPreempt(PhantomData);
    let count = COUNT.get(&pinned);
    pinned.end();
    count.load(core::sync::atomic::Ordering::Relaxed);
}
