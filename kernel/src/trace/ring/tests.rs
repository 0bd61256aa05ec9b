//! The ring against a queue, and (built with `--cfg loom`) against every interleaving.

use std::boxed::Box;
use std::vec::Vec;

use super::*;

fn ring(slots: usize) -> Ring {
    let slots: Vec<Slot> = (0..slots).map(|_| Slot::new()).collect();
    Ring::new(Box::leak(slots.into_boxed_slice()))
}

/// A record whose parts say the same number, so that a mixture of two shows.
fn record(number: u64) -> Record {
    Record {
        time_ns: number,
        cpu: number as u32,
        event: Event::Switch { from: number as u32, to: number as u32 },
    }
}

#[cfg(not(loom))]
mod sequential {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    fn contents(ring: &Ring) -> Vec<u64> {
        ring.positions().filter_map(|position| ring.read(position)).map(|record| record.time_ns).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(test_support::cases(256)))]

        #[test]
        fn holds_the_newest(count in 0..40_u64) {
            let ring = ring(8);
            let mut model = VecDeque::new();
            for number in 0..count {
                ring.push(record(number));
                model.push_back(number);
                if model.len() > 8 {
                    model.pop_front();
                }
            }
            prop_assert_eq!(contents(&ring), Vec::from(model));
            prop_assert_eq!(ring.dropped(), 0);
        }
    }

    #[test]
    fn what_would_overwrite_an_interrupted_writer_is_dropped_and_counted() {
        let ring = ring(4);
        ring.push(record(0));
        // A writer is interrupted in the slot of position 1 ..
        ring.next.fetch_add(1, Ordering::Relaxed);
        ring.slots[1].stamp.store(CLAIMED, Ordering::Relaxed);
        // .. for more than a lap.
        (2..8).for_each(|number| ring.push(record(number)));
        assert_eq!(contents(&ring), [4, 6, 7]);
        assert_eq!(ring.dropped(), 1);
        // It goes on, a lap late: what it has is older than what is expected there, and is not shown.
        ring.slots[1].stamp.store(stamp_of(1), Ordering::Release);
        assert_eq!(contents(&ring), [4, 6, 7]);
        ring.push(record(8));
        ring.push(record(9));
        assert_eq!(contents(&ring), [6, 7, 8, 9]);
    }

    #[test]
    fn a_writer_that_is_a_lap_late_gives_way() {
        let ring = ring(4);
        (0..6).for_each(|number| ring.push(record(number)));
        // Back to before position 1 was written: its writer was interrupted before it claimed.
        ring.next.store(1, Ordering::Relaxed);
        ring.push(record(1));
        assert_eq!(ring.dropped(), 1);
        assert_eq!(ring.read(5).map(|record| record.time_ns), Some(5));
    }
}

/// Writers over one slot, which lap each other at once.
#[cfg(loom)]
mod loom_models {
    use std::sync::Arc;

    use loom::thread;

    use super::*;

    /// The record at `position`, checked: it is one that was written there.
    fn look<R: Rules>(ring: &Ring, position: u64) -> Option<Record> {
        let found = ring.read_by::<R>(position)?;
        assert!(found == record(found.time_ns), "a mixture was read: {found:?}");
        assert!(position != 0 || found.time_ns == 1, "position 0 has {found:?}");
        Some(found)
    }

    /// Position 0 is read while it is overwritten.
    fn write_and_read<R: Rules + 'static>() {
        test_support::model(|| {
            let ring = Arc::new(ring(1));
            ring.push_by::<R>(record(1));
            let other = ring.clone();
            let writer = thread::spawn(move || other.push_by::<R>(record(2)));
            let reader =
                thread::spawn(move || (0..2).filter_map(|position| look::<R>(&ring, position)).count());
            writer.join().unwrap();
            reader.join().unwrap();
        });
    }

    /// Two write, then somebody reads: one record is left, and it is one that was written.
    fn write_at_once<R: Rules + 'static>() {
        test_support::model(|| {
            let ring = Arc::new(ring(1));
            let writers = [1, 2].map(|number| {
                let ring = ring.clone();
                thread::spawn(move || ring.push_by::<R>(record(number)))
            });
            writers.into_iter().for_each(|writer| writer.join().unwrap());
            let reader = thread::spawn(move || {
                let found: Vec<Record> = (0..2).filter_map(|position| ring.read_by::<R>(position)).collect();
                assert!(
                    found.len() == 1 && found.iter().all(|found| *found == record(found.time_ns)),
                    "a mixture was left: {found:?}"
                );
            });
            reader.join().unwrap();
        });
    }

    #[test]
    fn what_is_read_was_written_whole() {
        write_and_read::<Sound>();
    }

    #[test]
    fn what_two_write_at_once_is_one_of_both() {
        write_at_once::<Sound>();
    }

    enum TakesSlots {}
    impl Rules for TakesSlots {
        const CLAIMS: bool = false;
    }

    #[test]
    #[should_panic(expected = "a mixture was left")]
    fn a_writer_that_does_not_claim_is_caught() {
        write_at_once::<TakesSlots>();
    }

    enum LooksOnce {}
    impl Rules for LooksOnce {
        const LOOKS_AGAIN: bool = false;
    }

    #[test]
    #[should_panic(expected = "a mixture was read")]
    fn a_reader_that_looks_once_is_caught() {
        write_and_read::<LooksOnce>();
    }
}
