//! Per-CPU areas and the instructions that reach them.

use core::cell::Cell;
use core::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use alloc::vec::Vec;
use hal::percpu::{self, DynamicPerCpu};
use hal::x86_64::{apic, clock};
use hal::{CpuId, Native, Platform};

use crate::testing::nmi;
use crate::{check, check_eq, cpus, kernel_test, services};

hal::percpu! {
    static MARK: AtomicU64 = AtomicU64::new(0xfeed);
    static OWN_ADDRESS: AtomicU64 = AtomicU64::new(0);
    static BYTE: AtomicU8 = AtomicU8::new(0);
    static WORD: AtomicU16 = AtomicU16::new(0);
    static DOUBLE: AtomicU32 = AtomicU32::new(0);
    static QUAD: AtomicU64 = AtomicU64::new(0);
    static SIGNED: AtomicI64 = AtomicI64::new(0);
    static SHARED_WITH_NMI: AtomicU64 = AtomicU64::new(0);
    static SPLIT: AtomicU64 = AtomicU64::new(0);
    static NMIS_SEEN: AtomicU64 = AtomicU64::new(0);
    static LOCAL: Cell<u32> = Cell::new(7);
}

hal::percpu_init!(remember_address);

fn remember_address(cpu: CpuId) {
    let at = OWN_ADDRESS.on(cpu);
    at.store(core::ptr::from_ref(at) as u64, Ordering::Relaxed);
}

/// The GS base as the hardware has it.
fn gs_base() -> u64 {
    hal::x86_64::start::gs_base()
}

kernel_test! {
    everywhere,
    fn smoke_gs_base_is_what_cpus_prints(cpu) {
        let area = percpu::area_of(cpu).expect("a running CPU has an area") as u64;
        let template = area.wrapping_sub(gs_base());
        check_eq!(percpu::this_base() as u64, gs_base());
        check_eq!(Native::cpu(), cpu);
        check_eq!(area % percpu::AREA_ALIGN as u64, 0);
        // The distance is to the same template on every CPU.
        let boot = percpu::area_of(CpuId::BOOT).expect("the boot CPU has an area") as u64;
        let boot_base = core::ptr::from_ref(MARK.on(CpuId::BOOT)) as u64 - MARK.offset() as u64;
        check_eq!(boot, boot_base);
        check_eq!(core::ptr::from_ref(MARK.on(cpu)) as u64, template.wrapping_add(gs_base()) + MARK.offset() as u64);
        check_eq!(OWN_ADDRESS.read(), core::ptr::from_ref(OWN_ADDRESS.on(cpu)) as u64);
        Ok(())
    }
}

kernel_test! {
    fn smoke_areas_are_apart() {
        let mut areas: Vec<_> = percpu::cpus().filter_map(percpu::area_of).collect();
        areas.sort_unstable();
        check!(areas.len() >= cpus::online_count());
        for pair in areas.windows(2) {
            check!(pair[1] - pair[0] >= percpu::area_size(), "{:#x} and {:#x}", pair[0], pair[1]);
        }
        Ok(())
    }
}

kernel_test! {
    fn a_store_through_gs_lands_in_one_area() {
        for target in cpus::online() {
            for cpu in percpu::cpus() {
                MARK.on(cpu).store(1, Ordering::Relaxed);
            }
            services::run_on(target, || MARK.write(2));
            for cpu in percpu::cpus() {
                check_eq!((cpu, MARK.on(cpu).load(Ordering::Relaxed)), (cpu, if cpu == target { 2 } else { 1 }));
            }
        }
        Ok(())
    }
}

/// Runs every operation on a variable against plain arithmetic.
macro_rules! check_operations {
    ($variable:ident, $type:ty) => {{
        let mut rng = hal::chaos::Rng::new(core::mem::size_of::<$type>() as u64);
        let mut plain: $type = 0;
        for _ in 0..500 {
            let drawn = rng.next_u64();
            let value = (drawn >> 8) as $type;
            match drawn % 9 {
                0 => {
                    $variable.write(value);
                    plain = value;
                }
                1 => {
                    $variable.add(value);
                    plain = plain.wrapping_add(value);
                }
                2 => {
                    $variable.sub(value);
                    plain = plain.wrapping_sub(value);
                }
                3 => {
                    $variable.inc();
                    plain = plain.wrapping_add(1);
                }
                4 => {
                    $variable.dec();
                    plain = plain.wrapping_sub(1);
                }
                5 => {
                    $variable.or(value);
                    plain |= value;
                }
                6 => {
                    $variable.and(value);
                    plain &= value;
                }
                7 => {
                    check_eq!($variable.exchange(value), plain);
                    plain = value;
                }
                _ => {
                    check_eq!($variable.compare_exchange(plain.wrapping_add(1), value), Err(plain));
                    check_eq!($variable.compare_exchange(plain, value), Ok(plain));
                    plain = value;
                    $variable.write(1);
                    check!($variable.dec_is_zero());
                    check!(!$variable.dec_is_zero());
                    $variable.write(plain);
                }
            }
            check_eq!($variable.read(), plain);
        }
    }};
}

kernel_test! {
    everywhere,
    fn integer_operations_compute(_) {
        check_operations!(BYTE, u8);
        check_operations!(WORD, u16);
        check_operations!(DOUBLE, u32);
        check_operations!(QUAD, u64);
        check_operations!(SIGNED, i64);
        Ok(())
    }
}

/// NMIs that the next test wants to see: enough for some to hit the window that is there to be hit.
const WANTED: u64 = 200;

kernel_test! {
    limit_ms = 60_000,
    fn an_increment_is_not_split_by_an_nmi() {
        SHARED_WITH_NMI.write(0);
        SPLIT.write(0);
        NMIS_SEEN.write(0);
        nmi::set_hook(Some(|_| {
            SHARED_WITH_NMI.inc();
            SPLIT.inc();
            NMIS_SEEN.inc();
        }));
        let me = Native::cpu();
        let alone = cpus::online_count() == 1;
        let done = AtomicBool::new(false);
        let increments = AtomicU64::new(0);
        services::run_on_all(&|cpu| {
            if cpu == me {
                let patience = Native::now_ns() + 20_000_000_000;
                let mut count = 0;
                while NMIS_SEEN.read() < WANTED && Native::now_ns() < patience {
                    SHARED_WITH_NMI.inc();
                    // The control: the same in two instructions, with an NMI in between now and then.
                    let value = SPLIT.read();
                    if alone && count % 10 == 0 {
                        apic::send_nmi_to_cpu(me);
                    }
                    Native::relax();
                    SPLIT.write(value + 1);
                    count += 1;
                }
                increments.store(count, Ordering::Relaxed);
                done.store(true, Ordering::Relaxed);
            } else if cpus::online().nth(1) == Some(cpu) {
                while !done.load(Ordering::Relaxed) {
                    apic::send_nmi_to_cpu(me);
                    for _ in 0..50 {
                        Native::relax();
                    }
                }
            }
        });
        // The last NMIs may still be on their way.
        clock::delay_ns(2_000_000);
        nmi::set_hook(None);
        let expected = increments.load(Ordering::Relaxed) + NMIS_SEEN.read();
        check!(NMIS_SEEN.read() >= WANTED, "only {} NMIs came", NMIS_SEEN.read());
        check!(SPLIT.read() < expected, "no NMI came where it matters, so this shows nothing");
        check_eq!(SHARED_WITH_NMI.read(), expected);
        Ok(())
    }
}

kernel_test! {
    everywhere,
    fn values_that_are_not_shared_need_interrupts_off(cpu) {
        let quiet = sync::irq::disable();
        LOCAL.get_local(&quiet).set(cpu.as_u32());
        check_eq!(LOCAL.get_local(&quiet).get(), cpu.as_u32());
        Ok(())
    }
}

kernel_test! {
    fn dynamic_variables_exist_on_every_cpu() {
        let variable = match DynamicPerCpu::<AtomicU32>::new(|cpu| AtomicU32::new(1000 + cpu.as_u32())) {
            Ok(variable) => variable,
            Err(error) => crate::skip!("{error}"),
        };
        services::run_on_all(&|_| {
            let here = sync::preempt::disable();
            variable.get(&here).fetch_add(1, Ordering::Relaxed);
        });
        for cpu in cpus::online() {
            check_eq!(variable.on(cpu).load(Ordering::Relaxed), 1001 + cpu.as_u32());
        }
        Ok(())
    }
}
