//! Lists of shared objects behind a lock, with holders of references beside the list.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sync::SpinLock;
use sync::list::{Link, List};

struct Device {
    name: &'static str,
    link: Link,
    gone: Arc<AtomicUsize>,
}
impl Drop for Device {
    fn drop(&mut self) {
        self.gone.fetch_add(1, Ordering::Relaxed);
    }
}
sync::link_field! { struct OnBus = Device => link: Link; }

/// Devices that are found, referred to and removed by many.
struct Bus {
    devices: SpinLock<List<Arc<Device>, OnBus>>,
    gone: Arc<AtomicUsize>,
}

impl Bus {
    fn new() -> Bus {
        Bus { devices: SpinLock::new(List::new()), gone: Arc::default() }
    }

    fn device(&self, name: &'static str) -> Arc<Device> {
        Arc::new(Device { name, link: Link::new(), gone: self.gone.clone() })
    }

    fn with(names: &[&'static str]) -> Bus {
        let bus = Bus::new();
        for name in names {
            let device = bus.device(name);
            bus.devices.lock().push_back(device);
        }
        bus
    }

    fn names(&self) -> String {
        self.devices.lock().iter().map(|device| device.name).collect()
    }

    /// A reference to the device behind `here`, or the first; for walks that let go of the lock in between.
    fn behind(&self, here: Option<&Arc<Device>>) -> Option<Arc<Device>> {
        let mut devices = self.devices.lock();
        let mut cursor = match here {
            // SAFETY: devices are on this bus or on none.
            Some(device) => unsafe { devices.cursor_mut_at(device) },
            None => devices.cursor_front_mut(),
        };
        if here.is_some() {
            cursor.move_next();
        }
        cursor.current_owner()
    }

    fn gone(&self) -> usize {
        self.gone.load(Ordering::Relaxed)
    }
}

#[test]
fn added_at_the_tail_each_is_behind_the_former() {
    assert_eq!(Bus::with(&["a", "b", "c"]).names(), "abc");
}

#[test]
fn added_at_the_head_each_is_before_the_former() {
    let bus = Bus::new();
    for name in ["a", "b"] {
        bus.devices.lock().push_front(bus.device(name));
    }
    assert_eq!(bus.names(), "ba");
}

#[test]
fn added_behind_another() {
    let bus = Bus::with(&["a", "c"]);
    bus.devices.lock().cursor_front_mut().insert_after(bus.device("b"));
    assert_eq!(bus.names(), "abc");
}

#[test]
fn added_before_another() {
    let bus = Bus::with(&["a", "c"]);
    bus.devices.lock().cursor_back_mut().insert_before(bus.device("b"));
    assert_eq!(bus.names(), "abc");
}

#[test]
fn removed_while_somebody_refers_to_it_it_stays_alive() {
    let bus = Bus::with(&["a", "b"]);
    let first = bus.behind(None).unwrap();
    assert_eq!(Arc::strong_count(&first), 2);
    drop(bus.devices.lock().pop_front());
    assert_eq!((bus.names(), bus.gone(), first.link.is_linked()), ("b".into(), 0, false));
    drop(first);
    assert_eq!(bus.gone(), 1);
}

#[test]
fn removed_while_nobody_refers_to_it_it_ends() {
    let bus = Bus::with(&["a", "b"]);
    drop(bus.devices.lock().pop_front());
    assert_eq!((bus.names(), bus.gone()), ("b".into(), 1));
}

#[test]
fn a_walk_that_lets_go_of_the_lock_meets_all() {
    let bus = Bus::with(&["a", "b", "c"]);
    let (mut at, mut met) = (None, String::new());
    while let Some(device) = bus.behind(at.as_ref()) {
        met.push_str(device.name);
        at = Some(device);
    }
    assert_eq!(met, "abc");
    // What it held when it came to the end is still on the bus.
    assert!(at.unwrap().link.is_linked());
}

#[test]
fn membership_is_seen_from_the_object() {
    let bus = Bus::new();
    let device = bus.device("a");
    assert!(!device.link.is_linked());
    bus.devices.lock().push_back(device.clone());
    assert!(device.link.is_linked());
    // SAFETY: on this bus.
    assert!(unsafe { bus.devices.lock().remove(&device) }.is_some());
    assert!(!device.link.is_linked());
}

/// Of several CPUs that want to add one object to lists of their own, each time exactly one succeeds.
#[test]
fn one_of_several_adders_succeeds() {
    let bus = Bus::new();
    let device = bus.device("a");
    let added = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut mine = List::<Arc<Device>, OnBus>::new();
                for _ in 0..5_000 {
                    if mine.try_push_back(device.clone()).is_ok() {
                        added.fetch_add(1, Ordering::Relaxed);
                        assert!(mine.is_singular() && device.link.is_linked());
                        assert_eq!(mine.pop_front().unwrap().name, "a");
                    }
                }
            });
        }
    });
    assert!(added.into_inner() > 0);
    assert_eq!(Arc::strong_count(&device), 1);
}
