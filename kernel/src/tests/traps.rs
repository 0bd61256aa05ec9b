//! Traps: complete frames, stacks, probes, nested NMIs.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use hal::context::{IRQ_DEPTH, PREEMPT_WORD};
use hal::x86_64::backtrace::Backtrace;
use hal::x86_64::traps::{self, TrapFrame, probe};
use hal::x86_64::{apic, clock, layout};
use hal::{Native, Platform};

use crate::testing::{nmi, watchdog};
use crate::{check, check_eq, cpus, kernel_test, memory, services};

/// Loads every general register with a value of its own, executes a breakpoint, and tells which registers changed.
fn registers_across_a_breakpoint() -> u64 {
    let changed: u64;
    // SAFETY: saves what it must (RBX and RBP on the stack), declares the rest; the breakpoint returns.
    unsafe {
        asm!(
            "push rbx",
            "push rbp",
            "mov rax, 0x1001", "mov rbx, 0x1002", "mov rcx, 0x1003", "mov rdx, 0x1004",
            "mov rsi, 0x1005", "mov rdi, 0x1006", "mov r8, 0x1008", "mov r9, 0x1009",
            "mov r10, 0x100a", "mov r11, 0x100b", "mov r12, 0x100c", "mov r13, 0x100d",
            "mov r14, 0x100e", "mov r15, 0x100f", "mov rbp, 0x1010",
            "int3",
            "xor rax, 0x1001", "xor rbx, 0x1002", "xor rcx, 0x1003", "xor rdx, 0x1004",
            "xor rsi, 0x1005", "xor rdi, 0x1006", "xor r8, 0x1008", "xor r9, 0x1009",
            "xor r10, 0x100a", "xor r11, 0x100b", "xor r12, 0x100c", "xor r13, 0x100d",
            "xor r14, 0x100e", "xor r15, 0x100f", "xor rbp, 0x1010",
            "or rax, rbx", "or rax, rcx", "or rax, rdx", "or rax, rsi", "or rax, rdi", "or rax, r8", "or rax, r9",
            "or rax, r10", "or rax, r11", "or rax, r12", "or rax, r13", "or rax, r14", "or rax, r15", "or rax, rbp",
            "pop rbp",
            "pop rbx",
            out("rax") changed, out("rcx") _, out("rdx") _, out("rsi") _, out("rdi") _,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _, out("r12") _, out("r13") _, out("r14") _, out("r15") _,
        );
    }
    changed
}

kernel_test! {
    everywhere,
    fn smoke_a_trap_changes_no_register(_) {
        check_eq!(registers_across_a_breakpoint(), 0);
        Ok(())
    }
}

kernel_test! {
    everywhere,
    fn interrupts_change_no_register(_) {
        // Long enough for several timer interrupts to hit the loop.
        let until = Native::now_ns() + 20_000_000;
        let mut state = 1_u64;
        let mut rounds = 0_u64;
        while Native::now_ns() < until {
            for _ in 0..1000 {
                state = hal::chaos::mix(state.wrapping_add(1));
            }
            rounds += 1;
        }
        let mut again = 1_u64;
        for _ in 0..rounds * 1000 {
            again = hal::chaos::mix(again.wrapping_add(1));
        }
        check_eq!(state, again);
        Ok(())
    }
}

kernel_test! {
    everywhere,
    fn probes_tell_what_is_mapped(_) {
        let here = core::ptr::from_ref(PREEMPT_WORD) as u64;
        check!(probe::read_u64(here).is_some());
        check_eq!(probe::read_u64(0), None);
        check_eq!(probe::read_u64(0x1000), None);
        check_eq!(probe::read_u64(layout::DYNAMIC.end - 8), None);
        // Not canonical: a general protection fault.
        check_eq!(probe::read_u64(0x8000_0000_0000_0000), None);
        let text = &layout::sections()[0];
        check!(probe::read_u64(text.range.start).is_some());
        // SAFETY: the write is refused, or the test fails and the machine with it.
        check!(!unsafe { probe::write_u64(text.range.start, 0) });
        // SAFETY: as above.
        check!(!unsafe { probe::write_u64(layout::sections()[1].range.start, 0) });
        check_eq!(Native::irq_depth(), 0);
        Ok(())
    }
}

static NMI_LEVEL: AtomicU64 = AtomicU64::new(0);
static NMI_RUNS: AtomicU64 = AtomicU64::new(0);
static NMI_PROBLEMS: AtomicU64 = AtomicU64::new(0);

fn nmi_with_a_breakpoint_inside(frame: &TrapFrame) {
    // A handler that overlaps itself on this CPU would run on a stack in use.
    if NMI_LEVEL.fetch_add(1, Ordering::Relaxed) != 0 {
        NMI_PROBLEMS.fetch_add(1, Ordering::Relaxed);
    }
    let before = *frame;
    let run = NMI_RUNS.fetch_add(1, Ordering::Relaxed);
    if run.is_multiple_of(2) {
        // The next NMI is sent while NMIs are blocked; the breakpoint's IRET unblocks them in the middle of this one.
        apic::send_nmi_to_cpu(Native::cpu());
    }
    // SAFETY: the breakpoint handler returns.
    unsafe { asm!("int3") };
    // A fault whose handler returns by IRET, too.
    if probe::read_u64(8).is_some() {
        NMI_PROBLEMS.fetch_add(1, Ordering::Relaxed);
    }
    if (before.rip, before.rsp, before.rflags) != (frame.rip, frame.rsp, frame.rflags) {
        NMI_PROBLEMS.fetch_add(1, Ordering::Relaxed);
    }
    NMI_LEVEL.fetch_sub(1, Ordering::Relaxed);
}

kernel_test! {
    fn nested_nmis_lose_nothing() {
        NMI_LEVEL.store(0, Ordering::Relaxed);
        NMI_RUNS.store(0, Ordering::Relaxed);
        NMI_PROBLEMS.store(0, Ordering::Relaxed);
        let level = ::log::max_level();
        ::log::set_max_level(::log::LevelFilter::Warn);
        nmi::set_hook(Some(nmi_with_a_breakpoint_inside));
        let mut sent = 0;
        for _ in 0..500 {
            let before = NMI_RUNS.load(Ordering::Relaxed);
            apic::send_nmi_to_cpu(Native::cpu());
            sent += 1;
            let patience = Native::now_ns() + 1_000_000_000;
            // Each NMI that we send makes one more that comes while it is being served.
            while NMI_RUNS.load(Ordering::Relaxed) < before + 2 && Native::now_ns() < patience {
                Native::relax();
            }
            check!(NMI_RUNS.load(Ordering::Relaxed) == before + 2,
                "after {sent}: {} runs", NMI_RUNS.load(Ordering::Relaxed) - before);
        }
        nmi::set_hook(None);
        ::log::set_max_level(level);
        check_eq!(NMI_PROBLEMS.load(Ordering::Relaxed), 0);
        check_eq!(Native::irq_depth(), 0);
        check_eq!(Native::context().count(), 0);
        Ok(())
    }
}

kernel_test! {
    fn interrupts_run_on_the_interrupt_stack() {
        static SEEN: AtomicU64 = AtomicU64::new(0);
        static CPU: AtomicU64 = AtomicU64::new(0);
        SEEN.store(0, Ordering::Relaxed);
        watchdog::in_next_tick(|| {
            let here = 0_u8;
            CPU.store(u64::from(Native::cpu().as_u32()), Ordering::Relaxed);
            // Release: pairs with the Acquire below, which then reads `CPU`.
            SEEN.store(&raw const here as u64, Ordering::Release);
        });
        let mut seen = 0;
        while seen == 0 {
            Native::relax();
            seen = SEEN.load(Ordering::Acquire);
        }
        let cpu = hal::CpuId::new(CPU.load(Ordering::Relaxed) as u32).expect("a CPU's number");
        let (top, _) = traps::stacks(cpu);
        check!(seen < top && seen > top - 16 * 1024, "{seen:#x} is not below {top:#x}");
        check!(memory::stacks::stack_at(seen).is_some());
        Ok(())
    }
}

kernel_test! {
    everywhere,
    fn smoke_depth_is_zero_exactly_when_interrupts_are_on(_) {
        let flag = x86_64_flag;
        check_eq!((IRQ_DEPTH.read(), flag()), (0, true));
        let first = sync::irq::disable();
        check_eq!((IRQ_DEPTH.read(), flag()), (1, false));
        let second = sync::irq::disable();
        drop(first);
        check_eq!((IRQ_DEPTH.read(), flag()), (1, false));
        drop(second);
        check_eq!((IRQ_DEPTH.read(), flag()), (0, true));
        Ok(())
    }
}

fn x86_64_flag() -> bool {
    hal::x86_64::start::interrupt_flag()
}

kernel_test! {
    fn a_vector_that_nobody_expects_is_counted() {
        let me = Native::cpu();
        let before = traps::count(me, 0x80);
        apic::send_ipi_self(0x80);
        clock::delay_ns(1_000_000);
        check_eq!(traps::count(me, 0x80), before + 1);
        Ok(())
    }
}

kernel_test! {
    fn a_backtrace_crosses_a_trap() {
        static STEPS: AtomicU64 = AtomicU64::new(0);
        static TRAPS: AtomicU64 = AtomicU64::new(0);
        nmi::set_hook(Some(|_| {
            let (mut steps, mut traps) = (0, 0);
            for step in Backtrace::here() {
                steps += 1;
                traps += u64::from(matches!(step, hal::x86_64::backtrace::Frame::Trap { vector: 2, .. }));
            }
            TRAPS.store(traps, Ordering::Relaxed);
            // Release: pairs with the Acquire below.
            STEPS.store(steps, Ordering::Release);
        }));
        apic::send_nmi_to_cpu(Native::cpu());
        clock::delay_ns(1_000_000);
        nmi::set_hook(None);
        let steps = STEPS.load(Ordering::Acquire);
        check_eq!(TRAPS.load(Ordering::Relaxed), 1);
        check!((5..48).contains(&steps), "{steps} steps");
        Ok(())
    }
}

kernel_test! {
    fn every_cpu_answers_an_nmi_with_interrupts_off() {
        static ANSWERS: AtomicU64 = AtomicU64::new(0);
        ANSWERS.store(0, Ordering::Relaxed);
        nmi::set_hook(Some(|_| {
            ANSWERS.fetch_add(1, Ordering::Relaxed);
        }));
        let others = cpus::online_count() as u64 - 1;
        let me = Native::cpu();
        services::run_on_all(&|cpu| {
            let _quiet = sync::irq::disable();
            if cpu == me {
                apic::send_nmi_all_but_self();
            }
            let patience = Native::now_ns() + 5_000_000_000;
            while ANSWERS.load(Ordering::Relaxed) < others && Native::now_ns() < patience {
                Native::relax();
            }
        });
        nmi::set_hook(None);
        check_eq!(ANSWERS.load(Ordering::Relaxed), others);
        Ok(())
    }
}
