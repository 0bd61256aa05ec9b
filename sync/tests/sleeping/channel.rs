use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use sync::wait::{Limits, WaitError};
use sync::{Channel, ReceiveError, SendError};

use super::*;

/// Two senders and two receivers: everything arrives once, and each sender's values in order.
fn everything_arrives<const N: usize>() {
    let channel = Channel::<(usize, u64), N>::new();
    let (sum, open) = (AtomicU64::new(0), AtomicU64::new(2));
    tasks(4, |number, cx| {
        if number < 2 {
            for n in 1..=3_000 {
                channel.send((number, n), cx).unwrap();
            }
            if open.fetch_sub(1, Ordering::AcqRel) == 1 {
                channel.close();
            }
            return;
        }
        let mut last = [0; 2];
        while let Ok((sender, n)) = channel.receive(cx) {
            assert!(n > last[sender], "out of order");
            last[sender] = n;
            sum.fetch_add(n, Ordering::Relaxed);
        }
    });
    assert_eq!(sum.into_inner(), 3_000 * 3_001);
}

#[test]
fn everything_arrives_through_a_ring() {
    everything_arrives::<4>();
}

#[test]
fn everything_arrives_from_hand_to_hand() {
    everything_arrives::<0>();
}

#[test]
fn limits_return_the_value() {
    let channel = Channel::<u32, 1>::new();
    task(|cx| {
        channel.send(1, cx).unwrap();
        let result = channel.send_with(2, Limits::NONE.until(passed()), cx);
        assert_eq!(result, Err(SendError::Wait(WaitError::TimedOut, 2)));
        assert_eq!(channel.receive(cx), Ok(1));
        let result = channel.receive_with(Limits::NONE.until(passed()), cx);
        assert_eq!(result, Err(ReceiveError::Wait(WaitError::TimedOut)));
    });
}

#[test]
fn closing_wakes_everybody() {
    let full = Channel::<u32, 1>::new();
    let empty = Channel::<u32, 1>::new();
    full.try_send(1).unwrap();
    tasks(3, |number, cx| match number {
        0 => {
            std::thread::yield_now();
            full.close();
            empty.close();
        }
        1 => assert_eq!(full.send(2, cx), Err(SendError::Closed(2))),
        _ => assert_eq!(empty.receive(cx), Err(ReceiveError::Closed)),
    });
    assert_eq!((full.try_receive(), full.try_receive()), (Ok(1), Err(ReceiveError::Closed)));
}

#[test]
fn values_that_nobody_received_are_dropped() {
    let value = Arc::new(());
    let channel = Channel::<Arc<()>, 3>::new();
    for _ in 0..3 {
        channel.try_send(Arc::clone(&value)).unwrap();
    }
    drop(channel.try_receive());
    channel.try_send(Arc::clone(&value)).unwrap();
    assert_eq!(Arc::strong_count(&value), 4);
    drop(channel);
    assert_eq!(Arc::strong_count(&value), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(test_support::cases(256)))]

    /// The ring against a `VecDeque`.
    #[test]
    fn tries_are_a_bounded_queue(steps in prop::collection::vec(prop::option::of(0..100_u8), 0..60)) {
        let (channel, mut model) = (Channel::<u8, 5>::new(), VecDeque::new());
        for step in steps {
            match step {
                Some(value) if model.len() < 5 => {
                    prop_assert_eq!(channel.try_send(value), Ok(()));
                    model.push_back(value);
                }
                Some(value) => prop_assert_eq!(channel.try_send(value), Err(SendError::Full(value))),
                None => prop_assert_eq!(channel.try_receive().ok(), model.pop_front()),
            }
            prop_assert_eq!(channel.len(), model.len());
        }
    }
}
