//! Per-CPU variables that come and go.

mod common;

use std::cell::Cell;
use std::panic::catch_unwind;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::*};
use std::sync::{Mutex, MutexGuard, PoisonError};

use common::{NoIrqs, NoPreempt};
use hal::hosted::{self, run_cpus};
use hal::percpu::{self, DYNAMIC_BYTES, DynamicPerCpu, OutOfPerCpuSpace, area_of, area_size};
use hal::{CpuId, MAX_CPUS, Native, Platform};

/// The room is the whole process's, and some tests want all of it.
fn alone() -> MutexGuard<'static, ()> {
    static ROOM: Mutex<()> = Mutex::new(());
    ROOM.lock().unwrap_or_else(PoisonError::into_inner)
}

#[repr(align(64))]
struct Line(AtomicU32);

#[test]
fn each_cpu_has_its_own_value_inside_its_area() {
    let _alone = alone();
    let line = DynamicPerCpu::new(|cpu| Line(AtomicU32::new(cpu.as_u32()))).unwrap();
    let byte = DynamicPerCpu::new(|_| 7u8).unwrap();
    run_cpus(8, |call| {
        let pinned = NoPreempt::new();
        let here = line.get(&pinned);
        assert_eq!(here.0.swap(1000 + call as u32, Relaxed), Native::cpu().as_u32());
        let area = area_of(Native::cpu()).unwrap();
        for address in [here as *const Line as usize, byte.get(&pinned) as *const u8 as usize] {
            assert!((area + percpu::template_size()..area + area_size()).contains(&address));
        }
        assert_eq!(here as *const Line as usize % 64, 0);
        assert_eq!(line.on(Native::cpu()).0.load(Relaxed), 1000 + call as u32);
        assert_eq!(*byte.get(&pinned), 7);
        // For the next call on this CPU, should there be one.
        here.0.store(Native::cpu().as_u32(), Relaxed);
    });
}

#[test]
fn cpus_that_come_later_get_their_value_too() {
    let _alone = alone();
    let before: Vec<CpuId> = percpu::cpus().collect();
    let value = DynamicPerCpu::new(|cpu| AtomicU64::new(100 + u64::from(cpu.as_u32()))).unwrap();
    run_cpus(before.len() + 8, |_| {
        let pinned = NoPreempt::new();
        assert_eq!(value.get(&pinned).load(Relaxed), 100 + u64::from(Native::cpu().as_u32()));
    });
    assert!(percpu::cpus().count() >= before.len() + 8);
    let absent = CpuId::new(MAX_CPUS as u32 - 1).unwrap();
    catch_unwind(|| value.on(absent).load(Relaxed)).unwrap_err();
}

#[test]
fn values_are_dropped_once_with_the_handle() {
    static MADE: AtomicUsize = AtomicUsize::new(0);
    static DROPPED: AtomicUsize = AtomicUsize::new(0);
    struct Counted(#[expect(dead_code)] Box<u64>);
    impl Drop for Counted {
        fn drop(&mut self) {
            DROPPED.fetch_add(1, SeqCst);
        }
    }
    let _alone = alone();
    let _cpu = hosted::bind().unwrap();
    let handle = DynamicPerCpu::new(|cpu| {
        MADE.fetch_add(1, SeqCst);
        Counted(Box::new(cpu.as_u32().into()))
    })
    .unwrap();
    run_cpus(percpu::cpus().count() + 1, |_| ());
    assert_eq!(MADE.load(SeqCst), percpu::cpus().count());
    assert_eq!(DROPPED.load(SeqCst), 0);
    drop(handle);
    assert_eq!(DROPPED.load(SeqCst), MADE.load(SeqCst));
    run_cpus(percpu::cpus().count() + 1, |_| ());
    assert_eq!(DROPPED.load(SeqCst), MADE.load(SeqCst), "its constructor is off the record");
}

#[test]
fn values_that_may_not_be_shared_are_reached_with_interrupts_off() {
    let _alone = alone();
    let cell = DynamicPerCpu::new(|_| Cell::new(1)).unwrap();
    run_cpus(2, |_| {
        let masked = NoIrqs::new();
        cell.get_local(&masked).set(cell.get_local(&masked).get() + 1);
        assert!(cell.get_local(&masked).get() >= 2);
    });
}

#[test]
fn room_runs_out_with_an_error_and_comes_back() {
    let _alone = alone();
    for _ in 0..3 {
        let mut handles = Vec::new();
        let error = loop {
            match DynamicPerCpu::new(|_| [0u64; 32]) {
                Ok(handle) => handles.push(handle),
                Err(error) => break error,
            }
        };
        assert_eq!(error, OutOfPerCpuSpace { bytes: 256 });
        assert_eq!(handles.len(), DYNAMIC_BYTES / 256);
    }
    assert_eq!(
        DynamicPerCpu::new(|_| [0u8; DYNAMIC_BYTES + 1]).err(),
        Some(OutOfPerCpuSpace { bytes: DYNAMIC_BYTES + 1 })
    );
    drop(DynamicPerCpu::new(|_| [0u8; DYNAMIC_BYTES]).unwrap());
    drop(DynamicPerCpu::new(|_| ()).unwrap());
}

#[test]
fn a_constructor_that_panics_gives_everything_back() {
    static MADE: AtomicUsize = AtomicUsize::new(0);
    static DROPPED: AtomicUsize = AtomicUsize::new(0);
    struct Counted;
    impl Drop for Counted {
        fn drop(&mut self) {
            DROPPED.fetch_add(1, SeqCst);
        }
    }
    let _alone = alone();
    run_cpus(3, |_| ());
    catch_unwind(|| {
        DynamicPerCpu::new(|cpu| {
            if cpu.as_u32() == 2 {
                std::panic::resume_unwind(Box::new("on purpose"));
            }
            MADE.fetch_add(1, SeqCst);
            [const { Counted }; 1]
        })
        .map(drop)
    })
    .unwrap_err();
    assert_eq!((MADE.load(SeqCst), DROPPED.load(SeqCst)), (2, 2));
    drop(DynamicPerCpu::new(|_| [0u8; DYNAMIC_BYTES]).unwrap());
}

/// Handles come and go on some threads while others bring new CPUs up.
#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn allocation_and_new_cpus_race() {
    let _alone = alone();
    let already = percpu::cpus().count();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for round in 0..300u64 {
                    let value = DynamicPerCpu::new(|cpu| AtomicU64::new(u64::from(cpu.as_u32()))).unwrap();
                    for cpu in percpu::cpus() {
                        // A CPU that is just coming may not be ready yet; all others have their value.
                        if Native::is_online(cpu) {
                            assert_eq!(value.on(cpu).load(Relaxed), u64::from(cpu.as_u32()), "round {round}");
                        }
                    }
                }
            });
        }
        scope.spawn(|| {
            for more in 1..60 {
                let value = DynamicPerCpu::new(|cpu| AtomicU64::new(u64::from(cpu.as_u32()))).unwrap();
                run_cpus((already + more).min(MAX_CPUS - 8), |_| {
                    let pinned = NoPreempt::new();
                    assert_eq!(value.get(&pinned).load(Relaxed), u64::from(Native::cpu().as_u32()));
                });
            }
        });
    });
}
