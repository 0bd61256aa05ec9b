//! Queues against a plain model, one step at a time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use hal::CpuId;
use proptest::prelude::*;

use super::lane::Call;
use super::{Lane, Pool, Running, Work, WorkQueue};
use crate::TaskCx;
use crate::test_platform::{Journaling, collect_reports, reports};

const ITEMS: usize = 5;
const LANES: usize = 2;

type Item = Work<Box<dyn Fn(&mut Running<'_, Journaling>) + Send + Sync>, Journaling>;

/// What a test does.
#[derive(Clone, Debug)]
enum Op {
    Queue {
        item: usize,
        lane: usize,
    },
    /// A worker of the lane's pool takes an item.
    Begin {
        lane: usize,
    },
    /// The function of the call that began first asks for itself.
    Again {
        lane: usize,
    },
    /// The call that began first ends.
    Finish {
        lane: usize,
    },
    Cancel {
        item: usize,
    },
    Close,
    Open,
}

/// What must come of it: lists, and rules as the documentation puts them.
#[derive(Default)]
struct Model {
    /// Where each item was queued last.
    home: [Option<usize>; ITEMS],
    pending: [bool; ITEMS],
    again: [bool; ITEMS],
    running: [bool; ITEMS],
    /// Pending items in order, those beyond the limit at the end.
    waiting: [VecDeque<usize>; LANES],
    calls: [VecDeque<usize>; LANES],
    closed: bool,
    limit: usize,
}

impl Model {
    fn queue(&mut self, item: usize, lane: usize) -> bool {
        if self.pending[item] {
            return false;
        }
        let lane = match self.home[item] {
            Some(home) if self.running[item] => home,
            _ if self.closed && lane == 1 => 0,
            _ => lane,
        };
        self.home[item] = Some(lane);
        self.pending[item] = true;
        self.waiting[lane].push_back(item);
        true
    }

    /// How many of those that wait are in the pool.
    fn in_pool(&self, lane: usize) -> usize {
        self.waiting[lane].len().min(self.limit - self.calls[lane].len().min(self.limit))
    }

    fn begin(&mut self, lane: usize) -> Option<usize> {
        let place = (0..self.in_pool(lane)).find(|place| !self.running[self.waiting[lane][*place]])?;
        let item = self.waiting[lane].remove(place)?;
        self.pending[item] = false;
        self.running[item] = true;
        self.calls[lane].push_back(item);
        Some(item)
    }

    fn again(&mut self, lane: usize) -> Option<bool> {
        let item = *self.calls[lane].front()?;
        let free = !self.pending[item];
        if free {
            self.pending[item] = true;
            self.again[item] = true;
        }
        Some(free)
    }

    fn finish(&mut self, lane: usize) -> Option<usize> {
        let item = self.calls[lane].pop_front()?;
        self.running[item] = false;
        if std::mem::take(&mut self.again[item]) {
            self.waiting[lane].push_back(item);
        }
        Some(item)
    }

    fn cancel(&mut self, item: usize) -> bool {
        if !std::mem::take(&mut self.pending[item]) {
            return false;
        }
        if !std::mem::take(&mut self.again[item]) {
            self.waiting.iter_mut().for_each(|waiting| waiting.retain(|other| *other != item));
        }
        true
    }

    fn close(&mut self) {
        self.closed = true;
        // Those that the pool has; and as they go, those that the limit kept back.
        let mut stay = VecDeque::new();
        while self.in_pool(1) > stay.len() {
            let item = self.waiting[1].remove(stay.len()).unwrap();
            if self.running[item] {
                self.waiting[1].insert(stay.len(), item);
                stay.push_back(item);
            } else {
                self.home[item] = Some(0);
                self.waiting[0].push_back(item);
            }
        }
    }
}

/// The real thing.
struct Real {
    items: Vec<Arc<Item>>,
    lanes: [&'static Lane<Journaling>; LANES],
    queue: WorkQueue<Journaling>,
    calls: [VecDeque<Call<Journaling>>; LANES],
    cx: TaskCx<Journaling>,
}

impl Real {
    fn new(limit: u32) -> Real {
        let pools: [&'static Pool<Journaling>; LANES] =
            [(); LANES].map(|()| &*Box::leak(Box::new(Pool::new(1))));
        let first: &'static Lane<Journaling> = Box::leak(Box::new(Lane::new(pools[0], limit)));
        let second: &'static Lane<Journaling> =
            Box::leak(Box::new(Lane::new(pools[1], limit).with_heir(first)));
        let item = |_| Arc::new(Item::new_in(Box::new(|_: &mut Running<'_, Journaling>| ())));
        Real {
            items: (0..ITEMS).map(item).collect(),
            lanes: [first, second],
            queue: WorkQueue::new("test", Box::leak(Box::new([first, second]))),
            calls: Default::default(),
            // SAFETY: the test's task has no other token that it uses at the same time.
            cx: unsafe { TaskCx::new_in() },
        }
    }

    fn number(&self, call: &Call<Journaling>) -> usize {
        let address = call.reference.object.as_ptr() as usize;
        self.items.iter().position(|item| Arc::as_ptr(item) as usize == address).expect("one of ours")
    }

    fn begin(&mut self, lane: usize) -> Option<usize> {
        let call = self.lanes[lane].lock().begin(&self.cx)?;
        let number = self.number(&call);
        self.calls[lane].push_back(call);
        Some(number)
    }

    fn again(&mut self, lane: usize) -> Option<bool> {
        let number = self.number(self.calls[lane].front()?);
        Some(self.items[number].running(&mut self.cx).again())
    }

    fn finish(&mut self, lane: usize) -> Option<usize> {
        let call = self.calls[lane].pop_front()?;
        let number = self.number(&call);
        if let Some(reference) = self.lanes[lane].lock().finish(call) {
            // SAFETY: `finish` says that it is still ours.
            unsafe { reference.let_go() };
        }
        Some(number)
    }
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let (item, lane) = (0..ITEMS, 0..LANES);
    let op = prop_oneof![
        6 => (item.clone(), lane.clone()).prop_map(|(item, lane)| Op::Queue { item, lane }),
        5 => lane.clone().prop_map(|lane| Op::Begin { lane }),
        2 => lane.clone().prop_map(|lane| Op::Again { lane }),
        4 => lane.prop_map(|lane| Op::Finish { lane }),
        1 => item.prop_map(|item| Op::Cancel { item }),
        1 => Just(Op::Close),
        1 => Just(Op::Open),
    ];
    prop::collection::vec(op, 0..80)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(test_support::cases(2_000)))]
    #[test]
    fn queues_do_what_the_model_does(ops in ops(), limit in prop_oneof![Just(1_u32), Just(2), Just(u32::MAX)]) {
        let (mut real, mut model) = (Real::new(limit), Model { limit: limit as usize, ..Model::default() });
        for op in ops {
            match op {
                Op::Queue { item, lane } => prop_assert_eq!(
                    real.queue.queue_on(CpuId::new(lane as u32).unwrap(), Arc::clone(&real.items[item])),
                    model.queue(item, lane)
                ),
                Op::Begin { lane } => prop_assert_eq!(real.begin(lane), model.begin(lane)),
                Op::Again { lane } => prop_assert_eq!(real.again(lane), model.again(lane)),
                Op::Finish { lane } => prop_assert_eq!(real.finish(lane), model.finish(lane)),
                Op::Cancel { item } => prop_assert_eq!(real.items[item].cancel(), model.cancel(item)),
                Op::Close => {
                    real.lanes[1].pool().close();
                    model.close();
                }
                Op::Open => {
                    real.lanes[1].pool().open();
                    model.closed = false;
                }
            }
            for (number, item) in real.items.iter().enumerate() {
                prop_assert_eq!(item.is_pending(), model.pending[number]);
                prop_assert_eq!(item.is_running(), model.running[number]);
                // One pointer of ours, one of the list's, one of the call's.
                let pointers = 1
                    + usize::from(model.pending[number] && !model.again[number])
                    + usize::from(model.running[number]);
                prop_assert_eq!(Arc::strong_count(item), pointers);
            }
            for lane in 0..LANES {
                let counted = model.pending.iter().zip(&model.home).filter(|(p, home)| **p && **home == Some(lane));
                let expected = counted.count() + model.calls[lane].len();
                let mut locked = real.lanes[lane].lock();
                prop_assert_eq!((locked.count(real.lanes[lane], 0) + locked.count(real.lanes[lane], 1)) as usize, expected);
            }
        }
    }
}

#[test]
fn a_function_that_waits_for_itself_is_reported() {
    collect_reports();
    static POOL: Pool<Journaling> = Pool::new(1);
    static LANE: Lane<Journaling> = Lane::new(&POOL, 1);
    static QUEUE: WorkQueue<Journaling> = WorkQueue::new("itself", &[&LANE]);
    type Slot = Mutex<Option<Arc<Item>>>;
    let slot: Arc<Slot> = Arc::default();
    let own = Arc::clone(&slot);
    let item = Arc::new(Item::new_in(Box::new(move |running: &mut Running<'_, Journaling>| {
        let own = own.lock().unwrap().take().unwrap();
        assert!(!own.flush(running.cx()));
        assert!(running.again());
        assert!(own.cancel_sync(running.cx()) && running.again());
        QUEUE.flush(running.cx());
        own.cancel();
    })));
    *slot.lock().unwrap() = Some(Arc::clone(&item));
    QUEUE.queue(item);
    assert!(POOL.reserve());
    POOL.stop();
    // SAFETY: the test's task, and its only token.
    POOL.serve(&mut unsafe { TaskCx::new_in() }, &mut || false);
    let reports = reports();
    assert_eq!(reports.len(), 3, "{reports:?}");
    assert!(
        reports[0].starts_with("BUG: work flushed from its own function (made at sync/src/work/tests.rs:")
    );
    assert!(reports[1].starts_with("BUG: work cancelled from its own function"));
    assert!(reports[2].starts_with("BUG: work queue `itself` flushed from one of its items"));
    assert!(reports.iter().all(|report| report.contains(" at sync/src/work/tests.rs:")));
    assert_eq!((POOL.stats().executed, POOL.stats().pending), (1, 0));
}
