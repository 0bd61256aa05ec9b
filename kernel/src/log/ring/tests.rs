//! The ring against a queue, and (built with `--cfg loom`) against every interleaving.

use std::boxed::Box;
use std::string::String;
use std::vec::Vec;

use super::*;

fn ring(words: usize) -> Ring {
    let words: Vec<AtomicU64> = (0..words).map(|_| AtomicU64::new(0)).collect();
    Ring::new(Box::leak(words.into_boxed_slice()))
}

fn entry(cpu: u32, text: &str) -> Entry<'_> {
    Entry { cpu, level: 3, target: "t", text, cut: false }
}

/// Takes the oldest record out.
fn pop(ring: &Ring) -> Option<(u32, String, u32)> {
    let mut record = Record::empty();
    ring.peek(&mut record).then(|| {
        ring.advance(&record);
        (record.cpu, String::from(record.text()), record.lost)
    })
}

#[cfg(not(loom))]
mod sequential {
    use core::cell::Cell;
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_record_keeps_everything_it_was_given() {
        let ring = ring(64);
        ring.push(&Entry { cpu: 511, level: 5, target: "memory", text: "größe: 3", cut: true }, || 77);
        let mut record = Record::empty();
        assert!(ring.peek(&mut record));
        assert_eq!((record.cpu, record.level, record.time_ns, record.cut), (511, 5, 77, true));
        assert_eq!((record.target(), record.text()), ("memory", "größe: 3"));
    }

    #[test]
    fn long_texts_are_cut_between_characters_and_marked() {
        let ring = ring(64);
        let long = "ä".repeat(MAX_TEXT);
        ring.push(&entry(0, &long), || 0);
        let mut record = Record::empty();
        assert!(ring.peek(&mut record));
        assert!(record.cut);
        assert_eq!(record.text(), "ä".repeat(MAX_TEXT / 2));
    }

    #[test]
    fn an_interrupted_writer_holds_back_those_behind_and_loses_none() {
        let ring = ring(64);
        // The interrupt comes between reservation and commit: where the clock is read is the last moment before.
        let (start, _) = ring.reserve(FIXED_WORDS as u64, || 0).unwrap();
        ring.push(&entry(1, "from the interrupt"), || 1);
        assert_eq!(pop(&ring), None);
        let header = Header { position: start, target: 0, text: 0, level: 1, cut: false };
        ring.word(start).store(header.encode(), Ordering::Release);
        assert_eq!(pop(&ring).unwrap().1, "");
        assert_eq!(pop(&ring).unwrap().1, "from the interrupt");
        assert_eq!(pop(&ring), None);
    }

    #[test]
    fn an_interrupt_at_the_clock_keeps_times_in_order() {
        let ring = ring(64);
        let clock = Cell::new(0);
        let tick = || clock.replace(clock.get() + 1);
        let interrupted = Cell::new(false);
        ring.push(&entry(0, "task"), || {
            let time = tick();
            if !interrupted.replace(true) {
                ring.push(&entry(0, "interrupt"), tick);
            }
            time
        });
        let mut record = Record::empty();
        let mut times = Vec::new();
        while ring.peek(&mut record) {
            times.push(record.time_ns);
            ring.advance(&record);
        }
        assert_eq!(times, [1, 2]);
    }

    /// Text can be made to look like the header of a record that will begin there on the next lap.
    #[test]
    fn bytes_left_behind_are_no_header() {
        let ring = ring(64);
        let bare = |text| Entry { target: "", ..entry(0, text) };
        // Without a target the text begins in word 3, which is also position 67. Its last byte opens a character of two
        // bytes: committed, cut, level 2.
        let imitation = "\u{43}\0\0\0\u{5}\0\0\u{80}";
        let word = u64::from_le_bytes(imitation.as_bytes()[..8].try_into().unwrap());
        assert!(Header::decode(word, 67).is_some(), "the imitation is no good");
        ring.push(&bare(imitation), || 0);
        let filler = "x".repeat(28 * 8);
        for text in [imitation, &filler, &filler] {
            if text != imitation {
                ring.push(&bare(text), || 0);
            }
            assert_eq!(pop(&ring).unwrap().1, text);
        }
        assert_eq!(ring.reserve(FIXED_WORDS as u64, || 0), Some((67, 0)));
        assert_eq!(pop(&ring), None);
    }

    #[test]
    fn a_reader_that_comes_late_gives_nothing_back_twice() {
        let ring = ring(64);
        ring.push(&entry(0, "a"), || 0);
        ring.push(&entry(0, "b"), || 0);
        let (mut one, mut two) = (Record::empty(), Record::empty());
        assert!(ring.peek(&mut one) && ring.peek(&mut two));
        ring.advance(&one);
        ring.advance(&two);
        assert_eq!(pop(&ring).unwrap().1, "b");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(test_support::cases(256)))]

        /// Pushes (`Some(length)`) and pops (`None`) against a queue that counts words.
        #[test]
        fn equals_a_queue(operations in proptest::collection::vec(proptest::option::of(0..120usize), 0..300)) {
            const WORDS: usize = 64;
            let ring = ring(WORDS);
            let mut model: VecDeque<(String, u32, usize)> = VecDeque::new();
            let (mut used, mut lost) = (0, 0);
            for (number, operation) in operations.into_iter().enumerate() {
                match operation {
                    Some(length) => {
                        // All bits but the highest of each byte set, or not.
                        let text: String = core::iter::repeat_n(if number % 2 == 0 { '\u{7f}' } else { 'x' }, length).collect();
                        ring.push(&entry(number as u32, &text), || 0);
                        let words = FIXED_WORDS + (length + 1).div_ceil(8);
                        if used + words > WORDS {
                            lost += 1;
                        } else {
                            used += words;
                            model.push_back((text, std::mem::take(&mut lost), words));
                        }
                    }
                    None => {
                        let expected = model.pop_front().map(|(text, lost, words)| {
                            used -= words;
                            (text, lost)
                        });
                        prop_assert_eq!(pop(&ring).map(|(_, text, lost)| (text, lost)), expected);
                    }
                }
            }
            while let Some((text, lost, _)) = model.pop_front() {
                prop_assert_eq!(pop(&ring).map(|(_, text, lost)| (text, lost)), Some((text, lost)));
            }
            prop_assert_eq!(pop(&ring), None);
            prop_assert_eq!(ring.take_dropped(), u64::from(lost));
        }
    }

    #[test]
    fn threads_that_write_lose_nothing_uncounted() {
        let ring = ring(256);
        let (writers, each) = (3, 3_000u64);
        let finished = core::sync::atomic::AtomicU32::new(0);
        let mut next = [0u64; 3];
        let (mut seen, mut lost) = (0u64, 0u64);
        std::thread::scope(|scope| {
            for writer in 0..writers {
                let (ring, finished) = (&ring, &finished);
                scope.spawn(move || {
                    for number in 0..each {
                        let text = std::format!("{number} {}", "y".repeat((number % 40) as usize));
                        ring.push(&entry(writer, &text), || 0);
                        if number % 8 == 0 {
                            std::thread::yield_now();
                        }
                    }
                    finished.fetch_add(1, Ordering::Release);
                });
            }
            loop {
                let last_turn = finished.load(Ordering::Acquire) == writers;
                while let Some((cpu, text, before)) = pop(&ring) {
                    let (number, tail) = text.split_once(' ').unwrap();
                    let number: u64 = number.parse().unwrap();
                    assert_eq!(tail, "y".repeat((number % 40) as usize), "torn");
                    assert!(number >= next[cpu as usize], "order");
                    next[cpu as usize] = number + 1;
                    seen += 1;
                    lost += u64::from(before);
                }
                if last_turn {
                    break;
                }
                std::thread::yield_now();
            }
        });
        lost += ring.take_dropped();
        assert_eq!(seen + lost, u64::from(writers) * each);
        assert!(seen > 0);
    }
}

/// A writer that another thread stands in for can be interrupted anywhere, and goes on at any time: every nesting of
/// interrupts on one CPU is among these interleavings.
#[cfg(loom)]
mod loom_models {
    use std::sync::Arc;

    use loom::thread;

    use super::*;

    /// Two writers, a reader, and a ring with room for one record and a bit: texts are whole, nobody's order is broken,
    /// and what is missing is counted.
    fn writers_and_reader(preemption_bound: usize, words: usize, writes: [u32; 2]) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(preemption_bound);
        test_support::check(&model, move || {
            let ring = Arc::new(ring(words));
            let threads: Vec<_> = writes
                .into_iter()
                .enumerate()
                .map(|(writer, count)| {
                    let ring = ring.clone();
                    thread::spawn(move || {
                        for number in 0..count {
                            ring.push(&entry(writer as u32, TEXTS[writer][number as usize]), || 0);
                        }
                    })
                })
                .collect();
            let (mut seen, mut lost, mut next) = (0, 0, [0usize; 2]);
            let mut take = || {
                while let Some((cpu, text, before)) = pop(&ring) {
                    let texts = &TEXTS[cpu as usize];
                    let at = texts.iter().position(|known| *known == text).expect("a torn record");
                    assert!(at >= next[cpu as usize], "a writer's records came out of order");
                    next[cpu as usize] = at + 1;
                    seen += 1;
                    lost += before;
                }
            };
            take();
            for thread in threads {
                thread.join().unwrap();
            }
            take();
            assert_eq!(
                seen + lost + ring.take_dropped() as u32,
                writes.iter().sum::<u32>(),
                "lost and not counted"
            );
        });
    }

    const TEXTS: [[&str; 2]; 2] = [["a\u{7f}\u{7f}aaaa", "bbbbbbb"], ["ccccccc", "ddddddd"]];

    #[test]
    fn loom_two_writers_one_reader() {
        writers_and_reader(2, 16, [1, 1]);
    }

    #[test]
    fn loom_a_full_ring_counts() {
        writers_and_reader(2, 4, [2, 1]);
    }

    #[test]
    fn loom_words_are_reused() {
        writers_and_reader(3, 8, [2, 0]);
    }
}
