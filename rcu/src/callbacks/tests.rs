//! The callback lists against plain ones of numbers.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ptr::NonNull;

use hal::Native;
use proptest::prelude::*;

use super::*;
use crate::head::Head;
use crate::seq::Sequence;

/// A callback that tells its number.
struct Numbered {
    head: Head,
    number: u32,
}

thread_local! {
    static CALLED: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
}

unsafe fn tell(head: NonNull<Head>) {
    // SAFETY: queued with this function are the heads of leaked `Numbered`s only.
    let this = unsafe { Box::from_raw(sync::container_of!(head, Numbered, head).as_ptr()) };
    CALLED.with_borrow_mut(|called| called.push(this.number));
}

fn numbered(number: u32) -> NonNull<Head> {
    let whole: *mut Numbered = Box::leak(Box::new(Numbered { head: Head::new(), number }));
    // SAFETY: the field of a live object, by way of a pointer to the whole one.
    unsafe { NonNull::new_unchecked(&raw mut (*whole).head) }
}

fn call_all(mut queue: Queue) -> Vec<u32> {
    while let Some(head) = queue.pop() {
        // SAFETY: prepared by a push, and taken out.
        unsafe { Head::invoke(head) };
    }
    CALLED.take()
}

/// What a list should be: callbacks with what they wait for, as the number of periods that must have ended.
#[derive(Default)]
struct Model {
    /// Callbacks in order; `None` waits for a period that nobody has asked for.
    waiting: VecDeque<(u32, Option<u64>)>,
    done: VecDeque<u32>,
    lazy: VecDeque<u32>,
}

impl Model {
    fn hurry(&mut self) {
        self.waiting.extend(self.lazy.drain(..).map(|number| (number, None)));
    }

    fn advance(&mut self, ended: u64) {
        while let Some(&(number, Some(needed))) = self.waiting.front()
            && needed <= ended
        {
            self.done.push_back(number);
            self.waiting.pop_front();
        }
    }

    /// Two periods are waited for at the most.
    fn accelerate(&mut self, needed: u64) {
        let mut known: Vec<u64> = self.waiting.iter().filter_map(|&(_, needed)| needed).collect();
        known.dedup();
        if known.len() < 2 || known.contains(&needed) {
            for (_, unknown) in self.waiting.iter_mut().filter(|(_, needed)| needed.is_none()) {
                *unknown = Some(needed);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(test_support::cases(256)))]

    /// Any sequence of what can be done to a list: each callback is called once, in order, when its period has ended and
    /// not before.
    #[test]
    fn as_plain_lists(steps in prop::collection::vec((0..12_u8, 1..6_usize), 0..300)) {
        let periods = Sequence::new(); // wraps after 256
        for _ in 0..250 {
            periods.start();
            periods.end();
        }
        let (mut list, mut model) = (Segmented::new(), Model::default());
        let (mut begun, mut ended, mut next) = (0_u64, 0_u64, 0);
        for (step, count) in steps {
            match step {
                0..=2 => {
                    model.hurry();
                    for _ in 0..count {
                        // SAFETY: leaked; `tell` may be called anywhere.
                        let pushed = unsafe { list.push::<Native>(numbered(next), tell) };
                        prop_assert!(pushed);
                        model.waiting.push_back((next, None));
                        next += 1;
                    }
                }
                3 => {
                    // SAFETY: as above.
                    let pushed = unsafe { list.push_lazy::<Native>(numbered(next), tell) };
                    prop_assert!(pushed);
                    model.lazy.push_back(next);
                    next += 1;
                }
                4 if begun == ended => {
                    periods.start();
                    begun += 1;
                }
                5 if begun > ended => {
                    periods.end();
                    ended += 1;
                }
                6 | 7 => {
                    list.advance(periods.number());
                    model.advance(ended);
                }
                8 | 9 => {
                    list.accelerate(periods.snapshot());
                    model.accelerate(begun + 1);
                }
                10 => {
                    let taken = list.take_done(count);
                    let expected: Vec<u32> = model.done.drain(..count.min(model.done.len())).collect();
                    prop_assert_eq!(taken.len(), expected.len());
                    prop_assert_eq!(call_all(taken), expected);
                }
                11 => {
                    // Part of a batch is put back.
                    let mut taken = list.take_done(count);
                    let first = taken.pop_as_queue();
                    list.put_back(taken);
                    prop_assert_eq!(call_all(first), model.done.pop_front().into_iter().collect::<Vec<_>>());
                }
                _ => {
                    list.hurry();
                    model.hurry();
                }
            }
            prop_assert_eq!(list.len(), model.waiting.len() + model.done.len() + model.lazy.len());
            prop_assert_eq!(list.is_empty(), model.waiting.is_empty() && model.done.is_empty() && model.lazy.is_empty());
            prop_assert_eq!(list.lazy_len(), model.lazy.len());
            prop_assert_eq!(list.len_of(Segment::Done), model.done.len());
            let unknown = model.waiting.iter().filter(|(_, needed)| needed.is_none()).count();
            prop_assert_eq!(list.len_of(Segment::Next), unknown);
        }
        // Another CPU takes over what is left: nothing is lost.
        let mut other = Segmented::new();
        other.adopt(&mut list);
        prop_assert!(list.is_empty());
        prop_assert_eq!(other.len_of(Segment::Done), model.done.len());
        if begun > ended {
            periods.end();
        }
        for _ in 0..3 {
            other.accelerate(periods.snapshot());
            periods.start();
            periods.end();
            other.advance(periods.number());
        }
        model.hurry();
        let left: Vec<u32> = model.done.into_iter().chain(model.waiting.into_iter().map(|(n, _)| n)).collect();
        prop_assert_eq!(call_all(other.take_done(usize::MAX)), left);
        prop_assert!(other.is_empty());
    }
}

#[test]
fn an_entrained_callback_is_the_last_to_be_called_and_waits_for_no_more() {
    let periods = Sequence::new();
    let mut list = Segmented::new();
    // SAFETY: leaked; `tell` may be called anywhere.
    unsafe {
        list.push::<Native>(numbered(0), tell);
        list.accelerate(periods.snapshot());
        list.entrain::<Native>(numbered(1), tell);
        assert_eq!(list.len_of(Segment::Wait), 2);
        periods.start();
        periods.end();
        list.advance(periods.number());
        assert_eq!(call_all(list.take_done(9)), [0, 1]);
        // Behind nothing it waits for nothing.
        list.entrain::<Native>(numbered(2), tell);
        assert_eq!(call_all(list.take_done(9)), [2]);
    }
}
