//! The list and its marks against a plain model, on a platform with one CPU.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::single::{self, Single};
use crate::{Domain, Proof, Rcu, RcuBox, read};

thread_local! {
    static CALLED: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
    static IDLE: Cell<bool> = const { Cell::new(false) };
}

const fn hooks() -> TinyHooks {
    TinyHooks { softirq: 9, is_idle: || IDLE.get() }
}

/// A callback that says who it is, and queues itself again if it is told to.
#[repr(C)]
struct Item {
    head: Head,
    number: u32,
    again: Cell<Option<&'static Tiny<Single>>>,
}

unsafe fn note(head: NonNull<Head>) {
    assert!(Single::context().in_softirq() && Single::irq_depth() == 0);
    // SAFETY: the head is the first field of an item that the test leaked.
    let item = unsafe { head.cast::<Item>().as_ref() };
    CALLED.with_borrow_mut(|called| called.push(item.number));
    if let Some(tiny) = item.again.take() {
        // SAFETY: being invoked it is in no queue.
        unsafe { tiny.call(head, note) };
    }
}

fn tiny() -> &'static Tiny<Single> {
    Box::leak(Box::new(Tiny::new(hooks())))
}

fn queue(tiny: &'static Tiny<Single>, number: u32, again: bool) {
    let item =
        Box::leak(Box::new(Item { head: Head::new(), number, again: Cell::new(again.then_some(tiny)) }));
    // SAFETY: leaked, and fresh.
    unsafe { tiny.call(NonNull::from(item).cast(), note) };
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(test_support::cases(256)))]

    /// Any run of calls (some of which queue themselves again), quiescent states, ticks and softirqs: what is called,
    /// and in which order, is what a queue with a mark says.
    #[test]
    fn as_a_queue_with_a_mark(steps in prop::collection::vec(0..7_u8, 0..60)) {
        single::reset();
        IDLE.set(false);
        let tiny = tiny();
        let mut model: VecDeque<(u32, bool)> = VecDeque::new();
        let (mut done, mut number) = (0, 0);
        let states = |n| (n, tiny.get_state());
        let (mut periods, mut before) = (0, states(0));
        for step in steps {
            CALLED.take();
            match step {
                0..=2 => {
                    number += 1;
                    queue(tiny, number, step == 2);
                    model.push_back((number, step == 2));
                }
                3 | 4 => {
                    if step == 3 {
                        prop_assert_eq!(tiny.quiescent_state(), done < model.len());
                    } else {
                        tiny.tick(true);
                    }
                    prop_assert_eq!(single::take_softirqs(), if done < model.len() { 1 << 9 } else { 0 });
                    done = model.len();
                    periods += 1;
                }
                5 => {
                    tiny.tick(false);
                    prop_assert_eq!(single::take_resched(), done < model.len(), "asked without need, or did not");
                    prop_assert_eq!(single::take_softirqs(), 0);
                }
                _ => {
                    let calls: Vec<(u32, bool)> = model.drain(..done).collect();
                    done = 0;
                    prop_assert_eq!(tiny.process(), calls.len());
                    prop_assert_eq!(CALLED.take(), calls.iter().map(|c| c.0).collect::<Vec<_>>());
                    model.extend(calls.into_iter().filter(|c| c.1).map(|c| (c.0, false)));
                }
            }
            prop_assert_eq!(tiny.waiting(), model.len());
            prop_assert_eq!(tiny.backlog(), [done, model.len() - done]);
            prop_assert_eq!(tiny.poll(before.1), periods > before.0);
            if step == 1 {
                before = states(periods);
            }
        }
        prop_assert!(single::is_at_rest());
    }
}

#[test]
fn the_idle_task_is_asked_to_reschedule() {
    single::reset();
    let tiny = tiny();
    IDLE.set(true);
    queue(tiny, 1, false);
    assert!(single::take_resched());
    IDLE.set(false);
    queue(tiny, 2, false);
    assert!(!single::take_resched());
}

#[test]
fn a_callback_may_be_queued_by_an_interrupt_handler_and_by_one_that_runs() {
    single::reset();
    CALLED.take();
    let tiny = tiny();
    single::interrupt(|| queue(tiny, 1, true));
    tiny.quiescent_state();
    assert_eq!((tiny.process(), CALLED.take(), tiny.waiting()), (1, vec![1], 1));
    // SAFETY: this thread's only token.
    tiny.barrier(&mut unsafe { TaskCx::new_in() });
    assert_eq!((CALLED.take(), tiny.waiting()), (vec![1], 0));
}

crate::tiny_domain! {
    struct Uni(Single) = hooks();
}

#[test]
fn it_is_a_domain_and_guards_are_proofs() {
    fn value<'a>(pointer: &'a Rcu<RcuBox<u32>, Uni>, section: &'a impl Proof<Uni>) -> u32 {
        *pointer.load(section)
    }
    single::reset();
    // SAFETY: this thread's only token.
    let mut cx = unsafe { TaskCx::new_in() };
    let pointer = Rcu::<_, Uni>::new(RcuBox::new(1));
    assert_eq!(value(&pointer, &read()), 1);
    assert_eq!(value(&pointer, &Cpu::<Single>::disable_preemption()), 1);
    assert_eq!(value(&pointer, &Cpu::<Single>::disable_bottom_halves()), 1);
    assert_eq!(value(&pointer, &Cpu::<Single>::disable_interrupts()), 1);
    assert_eq!(pointer.replace(RcuBox::new(2)).synchronize_then(&mut cx).into_inner(), 1);
    pointer.replace(RcuBox::new(3)).free_after_grace_period();
    assert_eq!(Uni::tiny().waiting(), 1);
    Uni::barrier(&mut cx);
    assert_eq!(Uni::tiny().waiting(), 0);
    assert!(single::is_at_rest());
}

#[test]
#[should_panic(expected = "Illegal synchronize with preemption off")]
fn synchronize_without_preemption_is_refused() {
    single::reset();
    let _off = Cpu::<Single>::disable_preemption();
    // SAFETY: this thread's only token. That sleeping is forbidden is what is tested.
    Uni::synchronize(&mut unsafe { TaskCx::new_in() });
}

#[test]
#[should_panic(expected = "serves one CPU, and this platform can have")]
fn several_cpus_are_refused() {
    Tiny::<hal::Native>::new(hooks()).quiescent_state();
}
