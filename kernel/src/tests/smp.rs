//! All CPUs: found, started, reachable.

use core::sync::atomic::{AtomicU32, Ordering};

use alloc::vec::Vec;
use hal::x86_64::acpi::ProcessorState;
use hal::x86_64::traps::count;
use hal::x86_64::{apic, vectors};
use hal::{CpuId, MAX_CPUS, Native, Platform};
use sync::IrqSpinLock;

use crate::{boot, check, check_eq, cpus, kernel_test, services};

kernel_test! {
    fn smoke_every_present_cpu_is_online() {
        let Some(topology) = boot::topology() else { crate::skip!("no ACPI") };
        let present = topology.processors.iter().filter(|p| p.state == ProcessorState::Enabled).count();
        check_eq!(cpus::online_count(), present);
        check!(cpus::online_count() <= MAX_CPUS);
        for cpu in cpus::online() {
            check_eq!(apic::id_of(cpu), Some(topology.processors[cpu.index()].apic_id));
        }
        Ok(())
    }
}

kernel_test! {
    everywhere,
    fn smoke_each_cpu_is_who_it_thinks_it_is(cpu) {
        check_eq!(Some(apic::local().id()), apic::id_of(cpu));
        Ok(())
    }
}

kernel_test! {
    fn a_job_runs_once_on_each_cpu() {
        let ran: Vec<AtomicU32> = (0..MAX_CPUS).map(|_| AtomicU32::new(0)).collect();
        for round in 1..=20 {
            services::run_on_all(&|cpu| {
                ran[cpu.index()].fetch_add(1, Ordering::Relaxed);
            });
            for cpu in (0..MAX_CPUS as u32).filter_map(CpuId::new) {
                let expected = if cpus::is_online(cpu) { round } else { 0 };
                check_eq!((cpu, ran[cpu.index()].load(Ordering::Relaxed)), (cpu, expected));
            }
        }
        Ok(())
    }
}

/// Waits until `cpu` has taken the kick vector more often than `before`.
fn kicked(cpu: CpuId, before: u64) -> bool {
    let patience = Native::now_ns() + 5_000_000_000;
    while count(cpu, vectors::KICK) <= before {
        if Native::now_ns() > patience {
            return false;
        }
        Native::relax();
    }
    true
}

kernel_test! {
    fn an_interrupt_reaches_one_cpu() {
        for target in cpus::online() {
            let before: Vec<_> = cpus::online().map(|cpu| (cpu, count(cpu, vectors::KICK))).collect();
            apic::send_ipi_to_cpu(target, vectors::KICK);
            for (cpu, before) in before {
                if cpu == target {
                    check!(kicked(cpu, before), "CPU {cpu} got no interrupt");
                } else {
                    check_eq!((cpu, count(cpu, vectors::KICK)), (cpu, before));
                }
            }
        }
        Ok(())
    }
}

kernel_test! {
    fn an_interrupt_reaches_all_other_cpus() {
        let me = Native::cpu();
        let before: Vec<_> = cpus::online().map(|cpu| (cpu, count(cpu, vectors::KICK))).collect();
        apic::send_ipi_all_but_self(vectors::KICK);
        for (cpu, before) in before {
            check!(cpu == me || kicked(cpu, before), "CPU {cpu} got no interrupt");
        }
        Ok(())
    }
}

kernel_test! {
    fn cpus_interrupt_each_other_at_once() {
        const EACH: u32 = 200;
        let failed = AtomicU32::new(0);
        services::run_on_all(&|cpu| {
            let others: Vec<_> = cpus::online().filter(|other| *other != cpu).collect();
            for i in 0..EACH {
                let Some(target) = others.get(i as usize % others.len().max(1)) else { return };
                let before = count(*target, vectors::KICK);
                apic::send_ipi_to_cpu(*target, vectors::KICK);
                // Others kick it as well, so this shows progress, not the count.
                if i % 50 == 0 && !kicked(*target, before) {
                    failed.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        check_eq!(failed.load(Ordering::Relaxed), 0);
        Ok(())
    }
}

kernel_test! {
    limit_ms = 60_000,
    fn a_spin_lock_excludes() {
        static COUNT: IrqSpinLock<u64> = IrqSpinLock::new(0);
        *COUNT.lock() = 0;
        let each = 20_000 / cpus::online_count() as u64;
        services::run_on_all(&|_| {
            for _ in 0..each {
                let mut count = COUNT.lock();
                // A plain read and write: lost updates would show.
                let value = *count;
                core::hint::black_box(value);
                *count = value + 1;
            }
        });
        check_eq!(*COUNT.lock(), each * cpus::online_count() as u64);
        Ok(())
    }
}
