//! Reading beside writing under every schedule and every value that a load may return.
//!
//! The writer keeps the two words of its data equal; a reader that gets a pair whose words differ got a mixture. Each
//! ordering has a twin that leaves it out, and which the model must refuse.

use loom::sync::Arc;
use loom::thread;

use super::*;
use crate::test_platform::Modelled;

/// What is written: twice the same word.
type Pair = [usize; 2];

/// Broken: the data can be seen before the odd number.
enum NoFenceAfterOdd {}
impl Rules for NoFenceAfterOdd {
    const FENCE_AFTER_ODD: bool = false;
}

/// Broken: the even number can be seen before the data.
enum RelaxedEnd {}
impl Rules for RelaxedEnd {
    const END: Ordering = Ordering::Relaxed;
}

/// Broken: the data can be read before the number is.
enum RelaxedBegin {}
impl Rules for RelaxedBegin {
    const BEGIN: Ordering = Ordering::Relaxed;
}

/// Broken: the number can be read again before the data is.
enum NoFenceBeforeReload {}
impl Rules for NoFenceBeforeReload {
    const FENCE_BEFORE_RELOAD: bool = false;
}

/// Broken: a latch's reader trusts its copy.
enum NoReload {}
impl Rules for NoReload {
    const RELOAD: bool = false;
}

trait Readable: Send + Sync + 'static {
    fn new() -> Self;
    fn try_read(&self) -> Option<Pair>;
    fn publish(&self, value: usize);
}

impl<R: Rules + 'static> Readable for OneCopy<Pair, R> {
    fn new() -> Self {
        OneCopy::new([0; 2])
    }
    fn try_read(&self) -> Option<Pair> {
        OneCopy::try_read(self)
    }
    fn publish(&self, value: usize) {
        OneCopy::publish::<Modelled>(self, &[value; 2]);
    }
}

impl<R: Rules + 'static> Readable for TwoCopies<Pair, R> {
    fn new() -> Self {
        TwoCopies::new([0; 2])
    }
    fn try_read(&self) -> Option<Pair> {
        TwoCopies::try_read(self)
    }
    fn publish(&self, value: usize) {
        TwoCopies::publish::<Modelled>(self, &[value; 2]);
    }
}

/// A writer writes `writes` times while each of `readers` readers makes two attempts.
fn read_beside_writes<D: Readable>(writes: usize, readers: usize, preemptions: Option<usize>) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    test_support::check(&builder, move || {
        let data = Arc::new(D::new());
        let readers: Vec<_> = (0..readers)
            .map(|_| {
                let data = Arc::clone(&data);
                thread::spawn(move || {
                    let mut last = 0;
                    for _ in 0..2 {
                        if let Some([a, b]) = data.try_read() {
                            assert_eq!(a, b, "a mixture");
                            assert!(a >= last, "back in time");
                            last = a;
                        }
                    }
                })
            })
            .collect();
        for round in 1..=writes {
            data.publish(round);
        }
        for reader in readers {
            reader.join().unwrap();
        }
        assert_eq!(data.try_read(), Some([writes; 2]), "at rest every attempt succeeds");
    });
}

#[test]
fn a_reader_never_gets_a_mixture() {
    read_beside_writes::<OneCopy<Pair>>(2, 1, Some(3));
}

#[test]
fn two_readers_never_get_a_mixture() {
    read_beside_writes::<OneCopy<Pair>>(1, 2, Some(2));
}

#[test]
fn a_reader_of_a_latch_never_gets_a_mixture() {
    read_beside_writes::<TwoCopies<Pair>>(2, 1, Some(3));
}

#[test]
#[should_panic(expected = "a mixture")]
fn data_before_the_odd_number_is_noticed() {
    read_beside_writes::<OneCopy<Pair, NoFenceAfterOdd>>(2, 1, None);
}

#[test]
#[should_panic(expected = "a mixture")]
fn the_even_number_before_the_data_is_noticed() {
    read_beside_writes::<OneCopy<Pair, RelaxedEnd>>(2, 1, None);
}

#[test]
#[should_panic(expected = "a mixture")]
fn reading_the_data_before_the_number_is_noticed() {
    read_beside_writes::<OneCopy<Pair, RelaxedBegin>>(2, 1, None);
}

#[test]
#[should_panic(expected = "a mixture")]
fn reading_the_number_again_too_early_is_noticed() {
    read_beside_writes::<OneCopy<Pair, NoFenceBeforeReload>>(2, 1, None);
}

#[test]
#[should_panic(expected = "a mixture")]
fn a_latch_whose_copy_changes_early_is_noticed() {
    read_beside_writes::<TwoCopies<Pair, NoFenceAfterOdd>>(2, 1, Some(3));
}

#[test]
#[should_panic(expected = "a mixture")]
fn a_latch_that_turns_readers_too_early_is_noticed() {
    read_beside_writes::<TwoCopies<Pair, RelaxedEnd>>(2, 1, Some(3));
}

#[test]
#[should_panic(expected = "a mixture")]
fn a_latch_that_is_read_before_the_number_is_noticed() {
    read_beside_writes::<TwoCopies<Pair, RelaxedBegin>>(2, 1, Some(3));
}

#[test]
#[should_panic(expected = "a mixture")]
fn a_latch_whose_reader_does_not_look_again_is_noticed() {
    read_beside_writes::<TwoCopies<Pair, NoReload>>(2, 1, Some(3));
}

/// An NMI that comes between any two steps of the write reads without waiting. The step at which it comes is the model's
/// choice: the reader runs on the writer's own thread, so that the writer stands still meanwhile.
#[test]
fn a_reader_that_interrupts_the_writer_of_a_latch_is_done_at_the_first_attempt() {
    for step in 0..4 {
        test_support::model(move || {
            let data = TwoCopies::<Pair>::new([0; 2]);
            let nmi = |at: usize| {
                if at == step {
                    let [a, b] = data.try_read().expect("the writer stands still, so nothing disturbs");
                    assert_eq!(a, b);
                    assert_eq!(a, usize::from(step >= 2), "the copy at rest");
                }
            };
            // `publish`, taken apart.
            for (i, words) in data.words.iter().enumerate() {
                data.number.advance();
                nmi(2 * i);
                words.store(&[1; 2]);
                nmi(2 * i + 1);
            }
        });
    }
}
