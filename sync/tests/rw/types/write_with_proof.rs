//! A writer under a sequence count that cannot be preempted.

pub(crate) fn main() {
    let count: sync::SeqCount = sync::SeqCount::new();
    let here = sync::preempt::disable();
    let writing = count.write(&here);
    drop(writing);
}
