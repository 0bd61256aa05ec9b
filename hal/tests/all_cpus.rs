//! Every virtual CPU at once. Alone in its process, because it takes them all.

use std::collections::BTreeSet;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;

use hal::cpumask::CpuMask;
use hal::hosted::{self, NoCpuLeft, NotOnline, run_cpus, send_interrupt};
use hal::percpu::{AREA_ALIGN, area_of, area_size};
use hal::{CpuId, MAX_CPUS, Native, Platform};

hal::percpu! {
    static VALUE: AtomicU64 = AtomicU64::new(7);
}

#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn all_virtual_cpus_run_at_once_and_then_there_is_none_left() {
    let everybody = Barrier::new(MAX_CPUS);
    let areas = run_cpus(MAX_CPUS, |call| {
        VALUE.add(call as u64);
        everybody.wait();
        let value = VALUE.read();
        if call == 0 {
            let online: CpuMask =
                CpuMask::all(Native::cpu_count()).iter().filter(|cpu| Native::is_online(*cpu)).collect();
            assert_eq!(online.to_string(), format!("0-{}", MAX_CPUS - 1));

            thread::scope(|scope| {
                assert_eq!(scope.spawn(|| hosted::bind().map(drop)).join().unwrap(), Err(NoCpuLeft));
                let panic = scope.spawn(Native::cpu).join().unwrap_err();
                let message = panic.downcast::<String>().unwrap();
                assert!(message.contains(&format!("all {MAX_CPUS} virtual CPUs are bound")), "{message}");
            });
            let sum: u64 = online.iter().map(|cpu| VALUE.on(cpu).load(Relaxed)).sum();
            let n = MAX_CPUS as u64;
            assert_eq!(sum, 7 * n + n * (n - 1) / 2);
        }
        everybody.wait();
        assert_eq!((VALUE.read(), value), (7 + call as u64, 7 + call as u64));
        area_of(Native::cpu()).unwrap()
    });
    let areas: BTreeSet<usize> = areas.into_iter().collect();
    assert_eq!(areas.len(), MAX_CPUS);
    assert!(areas.iter().all(|area| area.is_multiple_of(AREA_ALIGN)));
    assert!(areas.iter().zip(areas.iter().skip(1)).all(|(low, high)| high - low >= area_size()));

    // Numbers are free again, lowest first, and their areas are the same.
    let binding = hosted::bind().unwrap();
    assert_eq!(binding.cpu(), CpuId::BOOT);
    assert!(areas.contains(&area_of(binding.cpu()).unwrap()));
    let other = CpuId::new(1).unwrap();
    assert!(!Native::is_online(other));
    assert_eq!(send_interrupt(other, || ()), Err(NotOnline(other)));
    Native::kick(other);
    Native::set_need_resched(other);
}
