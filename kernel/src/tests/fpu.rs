//! Vector registers on the machine: owners, sections in every context, and the work that uses them.

mod tasks;

use core::arch::asm;
use core::sync::atomic::AtomicU32;

use hal::x86_64::fpu::{self, Area, FpuGuard, Unusable, usable};
use hal::x86_64::{apic, unswitched};
use hal::{CpuId, percpu};
use sync::{context, irq, preempt};

use crate::memory::check;
use crate::softirq::{Handler, Vector};
use crate::testing::comes_true;
use crate::testing::irq::{Source, send_call, set_hook};
use crate::testing::{Outcome, expect_report, nmi};
use crate::vector::{self, Page, Width, scalar};
use crate::{check, check_eq, kernel_test, softirq};

/// The softirq that these tests raise.
const VECTOR: Vector = Vector::Complete;

percpu! {
    /// Sections that interrupts and softirqs of this CPU had.
    static SECTIONS: AtomicU32 = AtomicU32::new(0);
    /// How often this CPU's interrupts and softirqs could not have one, by reason.
    static INTERRUPTED: AtomicU32 = AtomicU32::new(0);
    static IN_NMI: AtomicU32 = AtomicU32::new(0);
    /// How often something was wrong there.
    static WRONG: AtomicU32 = AtomicU32::new(0);
    /// How often this CPU ran the interrupt's hook, and served the softirq that it raises.
    static CAME: AtomicU32 = AtomicU32::new(0);
    static SERVED: AtomicU32 = AtomicU32::new(0);
}

/// All vector registers as far as every machine has them, and the control words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C, align(64))]
struct Registers {
    vectors: [[u64; 4]; 16],
    mxcsr: u32,
    control: u16,
}

impl Registers {
    /// What a new task finds.
    const INITIAL: Registers = Registers { vectors: [[0; 4]; 16], mxcsr: 0x1f80, control: 0x37f };

    /// Values that tell who wrote them: all registers differ, and differ between seeds. The upper halves stay 0 where the
    /// machine has none.
    fn of(seed: u64) -> Registers {
        let words = if Width::best() == Width::Avx2 { 4 } else { 2 };
        let vectors = core::array::from_fn(|register| {
            core::array::from_fn(|word| {
                let place = (seed << 8) | (register as u64) << 2 | word as u64;
                if word < words { hal::chaos::mix(place) } else { 0 }
            })
        });
        // Rounding modes, with all exceptions masked.
        Registers {
            vectors,
            mxcsr: 0x1f80 | (seed as u32 & 3) << 13,
            control: 0x37f | (seed as u16 & 3) << 10,
        }
    }

    /// Loads the registers. They must be the caller's.
    fn put(&self) {
        macro_rules! load {
            ($instruction:literal, $register:literal) => {
                // SAFETY: reads the value. The kernel's own code uses no vector register.
                unsafe {
                    asm!(
                        concat!($instruction, " ", $register, "0, [{0}]"),
                        concat!($instruction, " ", $register, "1, [{0} + 32]"),
                        concat!($instruction, " ", $register, "2, [{0} + 64]"),
                        concat!($instruction, " ", $register, "3, [{0} + 96]"),
                        concat!($instruction, " ", $register, "4, [{0} + 128]"),
                        concat!($instruction, " ", $register, "5, [{0} + 160]"),
                        concat!($instruction, " ", $register, "6, [{0} + 192]"),
                        concat!($instruction, " ", $register, "7, [{0} + 224]"),
                        concat!($instruction, " ", $register, "8, [{0} + 256]"),
                        concat!($instruction, " ", $register, "9, [{0} + 288]"),
                        concat!($instruction, " ", $register, "10, [{0} + 320]"),
                        concat!($instruction, " ", $register, "11, [{0} + 352]"),
                        concat!($instruction, " ", $register, "12, [{0} + 384]"),
                        concat!($instruction, " ", $register, "13, [{0} + 416]"),
                        concat!($instruction, " ", $register, "14, [{0} + 448]"),
                        concat!($instruction, " ", $register, "15, [{0} + 480]"),
                        "ldmxcsr [{0} + 512]",
                        "fldcw [{0} + 516]",
                        in(reg) self,
                        options(nostack, readonly),
                    );
                }
            };
        }
        if Width::best() == Width::Avx2 {
            load!("vmovdqa", "ymm");
        } else {
            load!("movdqa", "xmm");
        }
    }

    /// Reads the registers. They must be the caller's.
    fn get() -> Registers {
        let mut found = Registers { vectors: [[0; 4]; 16], mxcsr: 0, control: 0 };
        macro_rules! store {
            ($instruction:literal, $register:literal) => {
                // SAFETY: writes the value.
                unsafe {
                    asm!(
                        concat!($instruction, " [{0}], ", $register, "0"),
                        concat!($instruction, " [{0} + 32], ", $register, "1"),
                        concat!($instruction, " [{0} + 64], ", $register, "2"),
                        concat!($instruction, " [{0} + 96], ", $register, "3"),
                        concat!($instruction, " [{0} + 128], ", $register, "4"),
                        concat!($instruction, " [{0} + 160], ", $register, "5"),
                        concat!($instruction, " [{0} + 192], ", $register, "6"),
                        concat!($instruction, " [{0} + 224], ", $register, "7"),
                        concat!($instruction, " [{0} + 256], ", $register, "8"),
                        concat!($instruction, " [{0} + 288], ", $register, "9"),
                        concat!($instruction, " [{0} + 320], ", $register, "10"),
                        concat!($instruction, " [{0} + 352], ", $register, "11"),
                        concat!($instruction, " [{0} + 384], ", $register, "12"),
                        concat!($instruction, " [{0} + 416], ", $register, "13"),
                        concat!($instruction, " [{0} + 448], ", $register, "14"),
                        concat!($instruction, " [{0} + 480], ", $register, "15"),
                        "stmxcsr [{0} + 512]",
                        "fnstcw [{0} + 516]",
                        in(reg) &mut found,
                        options(nostack),
                    );
                }
            };
        }
        if Width::best() == Width::Avx2 {
            store!("vmovdqa", "ymm");
        } else {
            store!("movdqa", "xmm");
        }
        found
    }

    /// The first difference, for a report.
    fn differs(&self, other: &Registers) -> Option<(usize, [u64; 4], [u64; 4])> {
        let pairs = self.vectors.iter().zip(&other.vectors).enumerate();
        let vector = pairs.into_iter().find(|(_, (a, b))| a != b).map(|(i, (a, b))| (i, *a, *b));
        let words = |r: &Registers| [u64::from(r.mxcsr), u64::from(r.control), 0, 0];
        vector.or_else(|| (words(self) != words(other)).then(|| (16, words(self), words(other))))
    }
}

/// Leaves its mark in every register, as a section may.
fn scribble(_vectors: &FpuGuard) {
    let mut marks = Registers::of(0xdead);
    // The x87 part is left as it was found.
    marks.control = 0x37f;
    marks.put();
}

/// A section in an interrupt: begins with the default control words, or is refused for a reason that is right.
fn try_section() {
    match FpuGuard::try_begin() {
        Ok(guard) => {
            let found = Registers::get();
            WRONG.add(u32::from((found.mxcsr, found.control) != (0x1f80, 0x37f)));
            scribble(&guard);
            SECTIONS.inc();
        }
        Err(Unusable::Interrupted) => INTERRUPTED.inc(),
        Err(Unusable::Nmi) => IN_NMI.inc(),
        Err(Unusable::Nested) => WRONG.inc(),
    }
}

/// Has every timer interrupt and IPI of all CPUs open a section and raise a softirq that opens one.
fn install_hooks() {
    static IN_HARDIRQ: fn() = || {
        WRONG.add(u32::from(!context::in_hardirq()));
        try_section();
        softirq::raise(VECTOR);
        CAME.inc();
    };
    static IN_SOFTIRQ: Handler = |_| {
        WRONG.add(u32::from(!context::in_serving_softirq()));
        try_section();
        SERVED.inc();
    };
    softirq::set_handler(VECTOR, Some(&IN_SOFTIRQ));
    set_hook(Source::Timer, Some(&IN_HARDIRQ));
    set_hook(Source::Call, Some(&IN_HARDIRQ));
    nmi::set_hook(Some(|_| try_section()));
}

/// Interrupts this CPU in each way, and waits until it was. The softirq is served at the interrupt's end, unless it has
/// been left to its task, which cannot run before the caller lets it.
fn interrupt_this_cpu(cpu: CpuId) -> bool {
    let (before, nmis) = (CAME.read(), IN_NMI.read());
    send_call(cpu);
    apic::send_nmi_to_cpu(cpu);
    comes_true(|| CAME.read() != before && IN_NMI.read() != nmis)
}

/// Becomes, or stops being, the owner of this CPU's registers.
fn own(area: Option<&Area>) {
    fpu::switch_to(area, &irq::disable());
}

fn area() -> Result<Area, crate::testing::Verdict> {
    Area::new().map_err(|error| crate::testing::failed(format_args!("{error}")))
}

kernel_test! {
    everywhere,
    fn smoke_an_owner_keeps_its_registers_under_sections_in_every_context(cpu) {
        install_hooks();
        WRONG.write(0);
        let (before, served) = (SECTIONS.read(), SERVED.read());
        let mine = area()?;
        // Nobody else runs here meanwhile.
        let here = preempt::disable();
        own(Some(&mine));
        let mut wrong = Registers::get().differs(&Registers::INITIAL);
        let mut came = true;
        for round in 0..40 {
            let values = Registers::of(u64::from(cpu.as_u32()) << 16 | round);
            values.put();
            came &= interrupt_this_cpu(cpu);
            drop(FpuGuard::begin());
            let guard = FpuGuard::begin();
            scribble(&guard);
            drop(guard);
            wrong = wrong.or_else(|| Registers::get().differs(&values));
        }
        own(None);
        drop(here);
        check!(came, "an interrupt did not come");
        check_eq!(wrong, None);
        check_eq!(WRONG.read(), 0);
        check!(SECTIONS.read() - before >= 40, "{} sections", SECTIONS.read() - before);
        check!(comes_true(|| SERVED.read() != served), "no softirq was served");
        Ok(())
    }
}

kernel_test! {
    everywhere,
    fn a_section_without_its_restore_is_caught(cpu) {
        let mine = area()?;
        let here = preempt::disable();
        own(Some(&mine));
        let values = Registers::of(0x1234);
        values.put();
        let quiet = irq::disable();
        let kept = Registers::get().differs(&values).is_none();
        fpu::broken::without_restore(scribble);
        let lost = Registers::get().differs(&values).is_some();
        drop(quiet);
        own(None);
        drop(here);
        check!(kept && lost, "CPU {cpu}: the registers were kept: {kept}, lost: {lost}");
        Ok(())
    }
}

kernel_test! {
    everywhere,
    fn a_section_that_is_interrupted_keeps_its_registers(cpu) {
        install_hooks();
        WRONG.write(0);
        let before = INTERRUPTED.read();
        let mut came = true;
        let mut wrong = None;
        for round in 0..20 {
            let guard = FpuGuard::begin();
            let mut values = Registers::of(round);
            values.control = 0x37f;
            values.put();
            // The softirq is served on top of the section too: preemption is off, bottom halves are not.
            came &= interrupt_this_cpu(cpu);
            wrong = wrong.or_else(|| Registers::get().differs(&values));
            drop(guard);
        }
        check!(came, "an interrupt did not come");
        check_eq!(wrong, None);
        check_eq!(WRONG.read(), 0);
        let refused = INTERRUPTED.read() - before;
        check!(refused >= 20, "refused {refused} times");
        Ok(())
    }
}

kernel_test! {
    everywhere,
    fn smoke_who_cannot_have_a_section_is_told_why(_) {
        check_eq!(usable(), Ok(()));
        let before = context::preempt_count();
        let guard = FpuGuard::begin();
        check_eq!(usable(), Err(Unusable::Nested));
        check_eq!(FpuGuard::try_begin().err(), Some(Unusable::Nested));
        check!(!context::preemptible());
        drop(guard);
        // Where interrupts are off, or in a softirq of one's own, a section is as good as anywhere.
        let quiet = irq::disable();
        drop(FpuGuard::begin());
        drop(quiet);
        drop(FpuGuard::begin());
        check_eq!(context::preempt_count(), before);
        Ok(())
    }
}

kernel_test! {
    fn sleeping_in_a_section_is_reported() {
        expect_report("sleeping function called from invalid context at kernel/src/tests/fpu.rs");
        let _vectors = FpuGuard::begin();
        context::might_sleep();
        Ok(())
    }
}

kernel_test! {
    fn a_section_that_leaves_x87_changed_is_reported() {
        if !cfg!(debug_assertions) {
            crate::skip!("only debug builds look");
        }
        expect_report("a vector section leaves x87 registers or their control word changed");
        let guard = FpuGuard::begin();
        // SAFETY: the section owns the x87 stack. What is left there is what the test is about.
        unsafe { asm!("fld1", options(nomem, nostack)) };
        drop(guard);
        check_eq!(usable(), Ok(()));
        Ok(())
    }
}

kernel_test! {
    everywhere,
    fn state_that_is_switched_by_hand_stays_with_its_area(cpu) {
        install_hooks();
        let areas = [area()?, area()?, area()?];
        let mut expected = [Registers::INITIAL; 3];
        let mut wrong = None;
        let here = preempt::disable();
        let mut seed = u64::from(cpu.as_u32());
        for turn in 0..2_000_u64 {
            seed = hal::chaos::mix(seed + 1);
            let task = seed as usize % 3;
            own(Some(&areas[task]));
            wrong = wrong.or_else(|| Some((turn, task, Registers::get().differs(&expected[task])?)));
            expected[task] = Registers::of(seed >> 8);
            expected[task].put();
        }
        own(None);
        drop(here);
        check_eq!(wrong, None);
        check_eq!(usable(), Ok(()));
        Ok(())
    }
}

kernel_test! {
    everywhere,
    fn smoke_vectors_and_words_give_one_answer(cpu) {
        let mut page: alloc::boxed::Box<Page> = alloc::boxed::Box::new([0; 512]);
        let before = vector::counts();
        for round in 0..20 {
            let pattern = check::pattern(round << 16 | u64::from(cpu.as_u32()), false);
            check::fill(&mut page, &pattern);
            check_eq!(vector::difference(&page, &pattern), 0);
            check_eq!(vector::sum(&page), scalar::sum(&page));
            page[(round as usize * 37) % 512] ^= 1 << round;
            check_eq!(vector::difference(&page, &pattern), 1 << round);
            check_eq!(vector::sum(&page), scalar::sum(&page));
        }
        let after = vector::counts();
        check!(after.0 - before.0 >= 80, "{} pages in vector registers", after.0 - before.0);
        Ok(())
    }
}

kernel_test! {
    fn smoke_memory_is_as_it_should_be() {
        let findings = check::check(1 << 20);
        check!(findings.is_clean(), "{findings:?}");
        check!(findings.constant_pages > 50 && findings.frames > 0, "{findings:?}");
        Ok(())
    }
}

/// What the first CPU of the test below has found.
static FIRST: sync::IrqSpinLock<Option<[u64; unswitched::UNSWITCHED.len()]>> = sync::IrqSpinLock::new(None);

fn compare_with_first() -> Outcome {
    let here = preempt::disable();
    let mine = unswitched::read(&here);
    drop(here);
    let first = *FIRST.lock().get_or_insert(mine);
    if first == mine {
        return Ok(());
    }
    let broken = unswitched::broken_rule(&first, &mine);
    check!(broken.is_none(), "{broken:?}: {first:x?} and {mine:x?}");
    Ok(())
}

kernel_test! {
    everywhere,
    fn smoke_what_a_switch_leaves_alone_keeps_its_rule(_) {
        compare_with_first()
    }
}
