//! Several CPUs' records as one story.

use alloc::vec::Vec;

use super::event::Record;
use super::ring::Ring;

/// What is read from all rings.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Story {
    /// The newest records, oldest first.
    pub records: Vec<Record>,
    /// How many older ones were left out, or have been overwritten.
    pub before: u64,
    /// How many were never stored.
    pub dropped: u64,
}

/// The newest `count` records of all `rings`, in the order of their times.
///
/// Contexts: those in which memory can be allocated. Records that are written meanwhile may be missing.
pub fn newest<'a>(rings: impl Iterator<Item = &'a Ring>, count: usize) -> Story {
    let mut story = Story::default();
    let mut written = 0;
    for ring in rings {
        let positions = ring.positions();
        written += positions.end;
        story.dropped += ring.dropped();
        story.records.extend(positions.filter_map(|position| ring.read(position)));
    }
    // Within a ring records are in the order of their places; an interrupt between the clock and the place makes that
    // differ from the order of times. The sort is stable.
    story.records.sort_by_key(|record| record.time_ns);
    story.records.drain(..story.records.len().saturating_sub(count));
    story.before = written.saturating_sub(story.dropped).saturating_sub(story.records.len() as u64);
    story
}

impl core::fmt::Display for Story {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        if self.before > 0 {
            writeln!(f, "  .. {} earlier", self.before)?;
        }
        self.records.iter().try_for_each(|record| writeln!(f, "  {record}"))?;
        if self.dropped > 0 {
            writeln!(f, "  {} were dropped: they came while their place was being written", self.dropped)?;
        }
        Ok(())
    }
}

/// How many records a machine that stops can show.
pub const FEW: usize = 40;

/// The newest records, for who can allocate nothing.
#[derive(Debug)]
pub struct Few {
    /// By time, the oldest first; only the first `len` are there.
    records: [Option<Record>; FEW],
    len: usize,
}

/// The newest [`FEW`] records of all `rings`, in the order of their times. Contexts: any. Cost: for each ring up to `FEW`
/// records, each put into its place.
pub fn newest_few<'a>(rings: impl Iterator<Item = &'a Ring>) -> Few {
    let mut few = Few { records: [None; FEW], len: 0 };
    for ring in rings {
        let positions = ring.positions();
        let first = positions.start.max(positions.end.saturating_sub(FEW as u64));
        (first..positions.end)
            .filter_map(|position| ring.read(position))
            .for_each(|record| few.insert(record));
    }
    few
}

impl Few {
    fn insert(&mut self, record: Record) {
        let older = |known: &Option<Record>| known.is_some_and(|known| known.time_ns <= record.time_ns);
        let place = self.records[..self.len].partition_point(older);
        if self.len < FEW {
            self.records[place..=self.len].rotate_right(1);
            self.records[place] = Some(record);
            self.len += 1;
        } else if place > 0 {
            // The oldest one goes.
            self.records[..place].rotate_left(1);
            self.records[place - 1] = Some(record);
        }
    }
}

impl core::fmt::Display for Few {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.records.iter().flatten().try_for_each(|record| writeln!(f, "  {record}"))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::boxed::Box;
    use std::string::ToString;

    use super::super::event::Event;
    use super::super::ring::Slot;
    use super::*;

    fn ring() -> Ring {
        Ring::new(Box::leak((0..4).map(|_| Slot::new()).collect::<Vec<_>>().into_boxed_slice()))
    }

    #[test]
    fn rings_are_merged_by_time_and_the_newest_are_kept() {
        let rings = [ring(), ring()];
        for time in 0..10 {
            let cpu = time as u32 % 2;
            rings[cpu as usize].push(Record {
                time_ns: 100 - time % 3 + time * 10,
                cpu,
                event: Event::Mark(time),
            });
        }
        let story = newest(rings.iter(), 6);
        let marks: Vec<_> = story.records.iter().map(|record| record.event).collect();
        assert_eq!(marks, [4, 5, 6, 7, 8, 9].map(Event::Mark));
        assert_eq!((story.before, story.dropped), (4, 0));
        assert!(
            story.to_string().starts_with("  .. 4 earlier\n  [    0.000000139] cpu0   mark 0x4\n"),
            "{story}"
        );
        assert_eq!(newest_few(rings.iter()).to_string().lines().count(), 8, "all that the rings hold");
        assert_eq!(newest(rings.iter(), 0).before, 10);
        assert_eq!(newest(rings.iter(), 100).records.len(), 8);
    }

    proptest::proptest! {
        /// Whatever the times, those without memory see what the others see.
        #[test]
        fn a_few_are_the_newest(times in proptest::collection::vec(0..50_u64, 0..200)) {
            let large = || Ring::new(Box::leak((0..64).map(|_| Slot::new()).collect::<Vec<_>>().into_boxed_slice()));
            let rings = [large(), large(), large()];
            // As a ring has them: by time.
            let mut times = times;
            times.sort_unstable();
            for (number, time_ns) in (0..).zip(times) {
                let cpu = number as u32 * 7 % 3;
                rings[cpu as usize].push(Record { time_ns, cpu, event: Event::Mark(number) });
            }
            let few: Vec<u64> = newest_few(rings.iter()).records.iter().flatten().map(|record| record.time_ns).collect();
            let newest: Vec<u64> = newest(rings.iter(), FEW).records.iter().map(|record| record.time_ns).collect();
            proptest::prop_assert_eq!(few, newest);
        }
    }
}
