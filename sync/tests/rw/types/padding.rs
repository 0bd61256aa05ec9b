//! A type with padding: its bytes may not all be read.

#[derive(Clone, Copy, sync::seq::NoUninit)]
#[bytemuck(crate = "sync::seq::bytemuck")]
#[repr(C)]
struct Reading {
    ns: u64,
    cpu: u16,
}

fn main() {
    let lock: sync::SeqLock<Reading> = sync::SeqLock::new(Reading { ns: 0, cpu: 0 });
    lock.read();
}
