//! The APICs: timer modes, the NMI pin, lost and spurious interrupts.

use hal::x86_64::apic::{self, timer};
use hal::x86_64::traps::count;
use hal::x86_64::{clock, vectors};
use hal::{Native, Platform};

use crate::{boot, check, check_eq, kernel_test, tick};

kernel_test! {
    everywhere,
    fn a_single_shot_comes_once_and_not_early(cpu) {
        tick::stop(&sync::irq::disable());
        // One that was on its way may still have come.
        clock::delay_ns(1_000_000);
        let before = count(cpu, vectors::TIMER);
        let quiet = sync::irq::disable();
        let begun = Native::now_ns();
        timer::start_oneshot(5_000_000);
        drop(quiet);
        while count(cpu, vectors::TIMER) == before && Native::now_ns() - begun < 10_000_000_000 {
            Native::relax();
        }
        // Read after the interrupt was seen: a host that stops this CPU in the loop makes it late, never early.
        let waited = Native::now_ns() - begun;
        clock::delay_ns(20_000_000);
        let came = count(cpu, vectors::TIMER) - before;
        tick::start(&sync::irq::disable());
        check_eq!(came, 1);
        // The APIC timer and the clock are measured against each other to about one per cent.
        check!(waited >= 4_900_000, "came after {waited} ns");
        Ok(())
    }
}

kernel_test! {
    everywhere,
    fn a_stopped_timer_is_silent(cpu) {
        tick::stop(&sync::irq::disable());
        clock::delay_ns(2_000_000);
        let before = count(cpu, vectors::TIMER);
        clock::delay_ns(30_000_000);
        let came = count(cpu, vectors::TIMER) - before;
        tick::start(&sync::irq::disable());
        check_eq!(came, 0);
        Ok(())
    }
}

kernel_test! {
    everywhere,
    fn smoke_lint1_delivers_nmis(_) {
        check!(apic::local().lint1_is_nmi());
        Ok(())
    }
}

kernel_test! {
    everywhere,
    fn no_interrupt_is_left_in_service(_) {
        let _quiet = sync::irq::disable();
        for vector in vectors::FIRST_EXTERNAL..=u8::MAX {
            check!(!apic::local().is_in_service(vector), "vector {vector:#x}");
        }
        Ok(())
    }
}

kernel_test! {
    fn the_serial_port_is_routed() {
        let Some(topology) = boot::topology() else { crate::skip!("no ACPI") };
        let Some(io_apics) = boot::io_apics() else { crate::skip!("no I/O APIC") };
        let route = topology.isa_route(crate::serial::ISA_IRQ);
        let Ok(entry) = io_apics.lock().raw_entry(route.gsi) else { crate::skip!("no such input") };
        check_eq!(entry & 0xff, u64::from(vectors::ISA + crate::serial::ISA_IRQ));
        // Bit 16: masked.
        check_eq!(entry >> 16 & 1, 0);
        Ok(())
    }
}

kernel_test! {
    everywhere,
    fn apic_errors_are_counted(cpu) {
        let before = apic::counters(cpu).errors;
        apic::send_ipi_self(vectors::APIC_ERROR);
        let patience = Native::now_ns() + 5_000_000_000;
        while apic::counters(cpu).errors == before && Native::now_ns() < patience {
            Native::relax();
        }
        check_eq!(apic::counters(cpu).errors, before + 1);
        check_eq!(apic::stuck_commands(), 0);
        Ok(())
    }
}
