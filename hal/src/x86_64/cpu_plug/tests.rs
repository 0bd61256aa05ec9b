//! The driver against a plain model of the device, with a host that plugs and asks at any time, also in the middle.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Copy, Default, Debug)]
struct Slot {
    present: bool,
    inserted: bool,
    wanted: bool,
}

/// What the host may do.
#[derive(Clone, Copy, Debug)]
enum Host {
    Plug(usize),
    Ask(usize),
}

/// The device, as its specification has it.
struct Device {
    slots: Vec<Slot>,
    legacy: bool,
    selector: usize,
    command: u8,
    event: u32,
    /// Slot, event, status: what the host was told.
    told: Vec<(usize, u32, u32)>,
    ejected: u32,
    /// What the host does before the access with this number.
    plan: Vec<(usize, Host)>,
    accesses: usize,
    raised: bool,
}

impl Device {
    fn new(present: &[bool]) -> Device {
        Device {
            slots: present.iter().map(|&present| Slot { present, ..Slot::default() }).collect(),
            legacy: true,
            selector: 0,
            command: 0,
            event: 0,
            told: vec![],
            ejected: 0,
            plan: vec![],
            accesses: 0,
            raised: false,
        }
    }

    fn host(&mut self, act: Host) {
        match act {
            Host::Plug(n) if !self.slots[n].present => {
                self.slots[n].present = true;
                self.slots[n].inserted = true;
            }
            Host::Ask(n) if self.slots[n].present => self.slots[n].wanted = true,
            _ => return,
        }
        self.raised = true;
    }

    fn access(&mut self) {
        let now = self.accesses;
        self.accesses += 1;
        while let Some(at) = self.plan.iter().position(|(when, _)| *when <= now) {
            let (_, act) = self.plan.remove(at);
            self.host(act);
        }
    }

    fn apic_id(slot: usize) -> u32 {
        2 * slot as u32 + 1
    }
}

#[derive(Clone)]
struct Shared(Rc<RefCell<Device>>);

impl Ports for Shared {
    fn read_u8(&mut self, offset: u16) -> u8 {
        let mut device = self.0.borrow_mut();
        device.access();
        assert_eq!(offset, FLAGS);
        assert!(!device.legacy);
        let Some(slot) = device.slots.get(device.selector) else { return 0 };
        u8::from(slot.present) | u8::from(slot.inserted) << 1 | u8::from(slot.wanted) << 2
    }

    fn read_u32(&mut self, offset: u16) -> u32 {
        let mut device = self.0.borrow_mut();
        device.access();
        if device.legacy {
            // A bitmap of the CPUs that are there.
            return device.slots.iter().enumerate().map(|(n, slot)| u32::from(slot.present) << n).sum();
        }
        match (offset, device.command) {
            (DATA_HIGH, _) => 0,
            (DATA, NEXT) => device.selector as u32,
            (DATA, APIC_ID) => Device::apic_id(device.selector),
            other => panic!("read of {other:?}"),
        }
    }

    fn write_u8(&mut self, offset: u16, value: u8) {
        let mut device = self.0.borrow_mut();
        device.access();
        let (selector, count) = (device.selector, device.slots.len());
        match offset {
            COMMAND => {
                device.command = value;
                if value == NEXT {
                    let order = (0..count).map(|n| (selector + n) % count);
                    let news = |n: &usize| device.slots[*n].inserted || device.slots[*n].wanted;
                    if let Some(found) = order.into_iter().find(news) {
                        device.selector = found;
                    }
                }
            }
            FLAGS => {
                assert_eq!(value.count_ones(), 1, "one thing at a time");
                let slot = &mut device.slots[selector];
                match value {
                    INSERTED => slot.inserted = false,
                    WANTED => slot.wanted = false,
                    EJECT => {
                        assert!(slot.present, "what is not there cannot go");
                        // The device keeps its notes.
                        slot.present = false;
                        device.ejected += 1;
                    }
                    other => panic!("flag {other:#x}"),
                }
            }
            other => panic!("write to {other}"),
        }
    }

    fn write_u32(&mut self, offset: u16, value: u32) {
        let mut device = self.0.borrow_mut();
        device.access();
        match (offset, device.command) {
            (SELECTOR, _) => {
                assert!((value as usize) < device.slots.len());
                device.selector = value as usize;
                device.legacy &= value != 0;
            }
            (DATA, TELL_EVENT) => device.event = value,
            (DATA, TELL_STATUS) => {
                let told = (device.selector, device.event, value);
                device.told.push(told);
            }
            other => panic!("write to {other:?}"),
        }
    }
}

fn plug(present: &[bool]) -> (Rc<RefCell<Device>>, CpuPlug<Shared>) {
    let device = Rc::new(RefCell::new(Device::new(present)));
    let plug = CpuPlug::detect(Shared(Rc::clone(&device)), present.len() as u32).unwrap();
    (device, plug)
}

/// Ports that nobody has, or the older interface for good.
struct Constant(u32);

impl Ports for Constant {
    fn read_u8(&mut self, _: u16) -> u8 {
        self.0 as u8
    }
    fn read_u32(&mut self, _: u16) -> u32 {
        self.0
    }
    fn write_u8(&mut self, _: u16, _: u8) {}
    fn write_u32(&mut self, _: u16, _: u32) {}
}

#[test]
fn only_the_newer_interface_is_taken() {
    assert!(CpuPlug::detect(Constant(u32::MAX), 4).is_none());
    assert!(CpuPlug::detect(Constant(0b11), 4).is_none());
    let (device, mut plug) = plug(&[true, false]);
    assert!(!device.borrow().legacy);
    assert_eq!((plug.is_present(0), plug.is_present(1)), (true, false));
    assert_eq!((plug.apic_id(0), plug.apic_id(1)), (1, 3));
}

#[test]
fn one_comes_and_goes() {
    let (device, mut plug) = plug(&[true, false]);
    let mut seen = Vec::new();
    let mut serve = |plug: &mut CpuPlug<Shared>| {
        plug.serve(|id, notice| {
            seen.push((id, notice));
            Answer::Done
        });
    };
    serve(&mut plug);
    device.borrow_mut().host(Host::Plug(1));
    serve(&mut plug);
    device.borrow_mut().host(Host::Ask(1));
    serve(&mut plug);
    serve(&mut plug);
    assert_eq!(
        seen,
        [
            (3, Notice::Request(Request::Inserted)),
            (3, Notice::Request(Request::Wanted)),
            (3, Notice::Ejected { stays: false }),
        ]
    );
    assert_eq!(device.borrow().told, [(1, 1, 0)], "what has gone needs no words");
    assert_eq!(device.borrow().ejected, 1);
}

#[test]
fn who_refuses_keeps_it_and_says_so() {
    let (device, mut plug) = plug(&[true, true]);
    device.borrow_mut().host(Host::Ask(0));
    plug.serve(|_, _| Answer::Refused);
    assert_eq!(device.borrow().told, [(0, 3, 0x82)]);
    assert!(plug.is_present(0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(test_support::cases(512)))]

    /// Whatever the host does and when, in the middle of the driver's accesses too: when all is served, the CPUs that the
    /// guest believes to have are those that are plugged, nothing is left over, and only those went that the guest had put
    /// out of use.
    #[test]
    fn host_and_guest_agree_in_the_end(
        present in prop::collection::vec(any::<bool>(), 1..5),
        plan in prop::collection::vec((0_usize..160, 0_usize..4, any::<bool>()), 0..24),
        refusals in prop::collection::vec(any::<bool>(), 1..24),
    ) {
        let (device, mut plug) = plug(&present);
        let mut known: BTreeSet<u32> =
            (0..present.len()).filter(|n| present[*n]).map(Device::apic_id).collect();
        device.borrow_mut().plan = plan
            .iter()
            .map(|&(when, n, plug)| {
                let n = n % present.len();
                (when, if plug { Host::Plug(n) } else { Host::Ask(n) })
            })
            .collect();
        let mut refused = refusals.iter().cycle();
        let mut leaving = None;
        loop {
            device.borrow_mut().raised = false;
            plug.serve(|id, notice| {
                match notice {
                    Notice::Request(Request::Inserted) => {
                        assert!(known.insert(id), "it was there before");
                        Answer::Done
                    }
                    Notice::Request(Request::Wanted) if *refused.next().unwrap() => Answer::Refused,
                    Notice::Request(Request::Wanted) => {
                        assert!(known.remove(&id), "it had gone before");
                        leaving = Some(id);
                        Answer::Done
                    }
                    Notice::Ejected { stays } => {
                        assert_eq!(leaving.take(), Some(id));
                        assert!(!stays, "another one that was plugged in at once is not this one");
                        Answer::Done
                    }
                }
            });
            let mut device = device.borrow_mut();
            device.access();
            if !device.raised && device.plan.is_empty() {
                break;
            }
        }
        prop_assert_eq!(leaving, None);
        let device = device.borrow();
        let there = (0..present.len()).filter(|n| device.slots[*n].present).map(Device::apic_id);
        prop_assert_eq!(known, there.collect::<BTreeSet<_>>());
        prop_assert!(device.slots.iter().all(|slot| !slot.inserted && !slot.wanted));
    }
}
