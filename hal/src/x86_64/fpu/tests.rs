//! Saving and loading on a host's registers, by every method that the processor has. That they also work in a kernel
//! (`xsaveopt` and `xrstor` in an emulator) is tested there.

use core::arch::asm;
use core::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::string::String;
use std::vec::Vec;

use super::area::Block;
use super::*;
use crate::percpu::{IrqsOff, Pinned};
use crate::x86_64::cpuid::Features;
use crate::{Native, Platform};

/// Interrupts are off on the virtual CPU of this thread.
struct Quiet(PhantomData<*const ()>);

impl Quiet {
    fn new() -> Quiet {
        Native::irq_disable();
        Quiet(PhantomData)
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        Native::irq_enable();
    }
}

// SAFETY: interrupts are off while the value lives, and it is neither `Send` nor `Sync`.
unsafe impl Pinned for Quiet {}
// SAFETY: as above.
unsafe impl IrqsOff for Quiet {}

/// What the registers of one task are: compared before and after. The upper registers, which compiled code that calls
/// nothing but these tests leaves alone, and the two control words.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C, align(32))]
struct Values {
    ymm14: [u64; 4],
    ymm15: [u64; 4],
    mxcsr: u32,
    control: u16,
}

impl Values {
    fn of(seed: u64) -> Values {
        let four = |salt: u64| {
            core::array::from_fn(|i| seed.wrapping_add(salt).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ i as u64)
        };
        // All exceptions stay masked; the rounding mode tells tasks apart.
        Values {
            ymm14: four(1),
            ymm15: four(2),
            mxcsr: 0x1f80 | (seed as u32 & 3) << 13,
            control: 0x037f | (seed as u16 & 3) << 10,
        }
    }

    fn put(&self) {
        // SAFETY: reads the value; the host's processor has AVX, which the tests ask for first. Rounding modes are put
        // back before anything is computed with floats.
        unsafe {
            asm!(
                "vmovdqa ymm14, [{0}]", "vmovdqa ymm15, [{0} + 32]", "ldmxcsr [{0} + 64]", "fldcw [{0} + 68]",
                in(reg) self, options(nostack), out("ymm14") _, out("ymm15") _,
            );
        }
    }

    fn get() -> Values {
        let mut found = Values::default();
        // SAFETY: writes the value.
        unsafe {
            asm!(
                "vmovdqa [{0}], ymm14", "vmovdqa [{0} + 32], ymm15", "stmxcsr [{0} + 64]", "fnstcw [{0} + 68]",
                in(reg) &mut found, options(nostack),
            );
        }
        // The lower bits of MXCSR are flags that computing leaves behind.
        found.mxcsr &= !0x3f;
        found
    }
}

fn has_avx() -> bool {
    format().is_some_and(|fpu| fpu.components & 4 != 0)
}

/// Every way to save that this processor has, AVX included.
fn methods() -> Vec<Fpu> {
    let xsave = Features::detect().xsave.expect("AVX comes with XSAVE");
    let components = format().expect("hosts have a format").components;
    [
        (SaveMethod::Compacted, xsave.compacted),
        (SaveMethod::Optimised, xsave.optimised),
        (SaveMethod::Standard, true),
    ]
    .into_iter()
    .filter(|(_, exists)| *exists)
    .map(|(method, _)| Fpu::new(components, method))
    .collect()
}

/// Lets three tasks take turns, each with values of its own, in areas of this format. Returns what was wrong.
fn take_turns(fpu: Fpu) -> Vec<String> {
    let mut wrong = Vec::new();
    let areas: Vec<Area> = (0..3).map(|_| Area::of(fpu).unwrap()).collect();
    let quiet = Quiet::new();
    let mut expected = [None; 3];
    for turn in 0..200_u64 {
        // An order in which each follows each, itself included.
        let task = (turn.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) as usize % 3;
        switch_to(Some(&areas[task]), &quiet);
        let found = Values::get();
        let right = expected[task].unwrap_or(Values { mxcsr: 0x1f80, control: 0x037f, ..Values::default() });
        if found != right {
            wrong.push(std::format!("turn {turn}: task {task} has {found:x?}, not {right:x?}"));
        }
        let values = Values::of(turn);
        values.put();
        expected[task] = Some(values);
        if turn % 5 == 0 {
            let section = FpuGuard::begin();
            let inside = Values::get();
            if (inside.mxcsr, inside.control) != (0x1f80, 0x037f) {
                wrong.push(std::format!("turn {turn}: a section begins with {inside:x?}"));
            }
            Values::of(!turn).put();
            drop(section);
        }
    }
    switch_to(None, &quiet);
    let after = Values::get();
    if after.control != 0x037f {
        wrong.push(std::format!("afterwards: {after:x?}"));
    }
    Values { mxcsr: 0x1f80, control: 0x037f, ..Values::default() }.put();
    wrong
}

#[test]
fn tasks_find_their_own_values_by_every_method() {
    if !has_avx() {
        return;
    }
    for fpu in methods() {
        assert_eq!(take_turns(fpu), [""; 0], "{fpu:?}");
    }
}

/// The format that only processors without XSAVE would choose: x87 and the lower halves.
#[test]
fn the_oldest_format_keeps_the_lower_halves() {
    let area = Area::of(Fpu { components: 0, area_size: 512, method: SaveMethod::Legacy }).unwrap();
    let quiet = Quiet::new();
    switch_to(Some(&area), &quiet);
    let mut found = [0_u64; 2];
    // SAFETY: xmm15 is declared, and 16 bytes are written.
    unsafe {
        asm!("pcmpeqd xmm15, xmm15", out("xmm15") _, options(nostack));
        switch_to(None, &quiet);
        asm!("pxor xmm15, xmm15", out("xmm15") _, options(nostack));
        switch_to(Some(&area), &quiet);
        asm!("movdqu [{}], xmm15", in(reg) &mut found, options(nostack));
    }
    switch_to(None, &quiet);
    assert_eq!(found, [u64::MAX; 2]);
}

#[test]
fn a_section_without_its_restore_is_noticed() {
    if !has_avx() {
        return;
    }
    let area = Area::new().unwrap();
    let quiet = Quiet::new();
    switch_to(Some(&area), &quiet);
    let mine = Values::of(7);
    mine.put();
    drop(FpuGuard::begin());
    let (whole, scribble) = (Values::get(), Values::of(12));
    broken::without_restore(|_| scribble.put());
    let broken = Values::get();
    switch_to(None, &quiet);
    Values { mxcsr: 0x1f80, control: 0x037f, ..Values::default() }.put();
    assert_eq!(whole, mine);
    assert_eq!(broken, scribble, "the owner reads what the section left");
}

#[test]
fn an_area_is_in_one_cpus_registers_at_a_time() {
    let area = Area::new().unwrap();
    let quiet = Quiet::new();
    switch_to(Some(&area), &quiet);
    let other = std::thread::scope(|scope| {
        scope
            .spawn(|| {
                let quiet = Quiet::new();
                catch_unwind(AssertUnwindSafe(|| switch_to(Some(&area), &quiet))).unwrap_err()
            })
            .join()
            .unwrap()
    });
    let message = other.downcast_ref::<String>().unwrap();
    assert!(message.contains("is to run a task whose vector state is in the registers of CPU"), "{message}");
    // SAFETY: the block of an area that is alive.
    let claimed = unsafe { Block::claim(area.block(), 7) };
    assert_eq!(claimed, Err(crate::percpu::current_cpu_number()));
    switch_to(None, &quiet);
    assert!(!area.is_live());
}

#[test]
fn state_that_is_live_cannot_be_dropped() {
    let area = Area::new().unwrap();
    let quiet = Quiet::new();
    switch_to(Some(&area), &quiet);
    let caught = catch_unwind(AssertUnwindSafe(|| drop(area))).unwrap_err();
    assert!(caught.downcast_ref::<String>().unwrap().contains("dropped while it is in the registers of CPU"));
    // The block was leaked with the panic, so the registers may still be saved there.
    switch_to(None, &quiet);
}

#[test]
fn reasons_say_what_to_do() {
    let outer = FpuGuard::begin();
    assert_eq!(FpuGuard::try_begin().unwrap_err(), Unusable::Nested);
    assert_eq!(Native::context().preempt_depth(), 1, "a refusal takes its preempt level back");
    let caught = catch_unwind(FpuGuard::begin).unwrap_err();
    assert!(caught.downcast_ref::<String>().unwrap().contains("pass the outer one's guard on"));
    drop(outer);
    assert_eq!(usable(), Ok(()));
    assert_eq!(Native::context().preempt_depth(), 0);
}
