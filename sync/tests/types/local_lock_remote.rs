//! A CPU's copy of a local lock is not locked against other CPUs, so that there is no way to it from there.

use hal::CpuId;
use sync::LocalLock;

hal::percpu! {
    static CACHE: LocalLock<u32> = LocalLock::new(0);
}

fn main() {
    println!("{:?}", CACHE.on(CpuId::BOOT));
}
