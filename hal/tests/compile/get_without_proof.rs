//! This CPU's value, without proof that it stays this CPU's.
use core::sync::atomic::AtomicU64;

hal::percpu! {
    static COUNT: AtomicU64 = AtomicU64::new(0);
}

fn main() {
    struct NotAProof;
    COUNT.get(&NotAProof);
}
