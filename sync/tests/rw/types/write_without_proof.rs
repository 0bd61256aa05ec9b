//! A writer under a sequence count that can be preempted, from the next statement on.

fn main() {
    let count: sync::SeqCount = sync::SeqCount::new();
    let writing = count.write(&sync::preempt::disable());
    drop(writing);
}
