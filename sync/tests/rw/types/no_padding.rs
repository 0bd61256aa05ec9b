//! A type without padding.

#[derive(Clone, Copy, sync::seq::NoUninit)]
#[bytemuck(crate = "sync::seq::bytemuck")]
#[repr(C)]
struct Reading {
    ns: u64,
    cpu: u16,
    unused: [u16; 3],
}

pub(crate) fn main() {
    let lock: sync::SeqLock<Reading> = sync::SeqLock::new(Reading { ns: 0, cpu: 0, unused: [0; 3] });
    lock.read();
}
