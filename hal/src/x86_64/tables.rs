//! Descriptor tables.
//!
//! Each CPU has its own segment table and task state segment (in its area), because the segment names the stacks that
//! the CPU switches to. The interrupt table says the same on every CPU, is written once, and shared.

use core::cell::UnsafeCell;
use core::mem::{offset_of, size_of};

use x86_64::instructions::tables::{lgdt, lidt, load_tss};
use x86_64::registers::segmentation::{CS, DS, ES, SS, Segment};
use x86_64::structures::DescriptorTablePointer;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable, SegmentSelector};
use x86_64::structures::idt::{Entry, HandlerFunc};
use x86_64::structures::tss::TaskStateSegment;
use x86_64::{PrivilegeLevel, VirtAddr};

use super::traps;
use crate::{CpuId, percpu};

/// Which stack of the interrupt stack table serves what. The hardware numbers them from 1; these are indices.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub enum IstStack {
    /// The double fault: the stack before it may be the reason.
    DoubleFault = 0,
    /// NMI: arrives anywhere.
    Nmi = 1,
    /// Machine check: likewise.
    MachineCheck = 2,
    /// Debug exceptions, which may hit in an entry path.
    Debug = 3,
}

impl IstStack {
    /// All of them.
    pub const ALL: [IstStack; 4] =
        [IstStack::DoubleFault, IstStack::Nmi, IstStack::MachineCheck, IstStack::Debug];
}

/// The code segment of every CPU.
pub(crate) const KERNEL_CODE: u16 = 0x08;

/// The hardware's layout of the state segment aligns its stack pointers to 4 bytes only: the first is 4 bytes from its
/// start. `_shift` puts them on 8-byte boundaries, so that each is stored in one access.
#[repr(C, align(8))]
struct Tables {
    segments: UnsafeCell<GlobalDescriptorTable>,
    _shift: u32,
    state: UnsafeCell<TaskStateSegment>,
}

const _: () = assert!(
    (offset_of!(Tables, state) + offset_of!(TaskStateSegment, interrupt_stack_table)).is_multiple_of(8)
);

percpu! {
    /// This CPU's segment table and task state segment. Written by `set_stacks` and `load` before the CPU uses them.
    static TABLES: Tables = Tables {
        segments: UnsafeCell::new(GlobalDescriptorTable::new()),
        _shift: 0,
        state: UnsafeCell::new(TaskStateSegment::new()),
    };
}

/// The interrupt table: 256 gates, all interrupt gates, so that every handler starts with interrupts off.
struct InterruptTable(UnsafeCell<[Entry<HandlerFunc>; 256]>);

// SAFETY: written by the boot CPU before any other CPU runs and before it is loaded; read by the hardware after.
unsafe impl Sync for InterruptTable {}

static INTERRUPTS: InterruptTable = InterruptTable(UnsafeCell::new([const { Entry::missing() }; 256]));

/// A small stack for each fault that needs its own, for the boot CPU until it has guarded ones.
#[repr(C, align(16))]
struct EarlyStacks(UnsafeCell<[[u8; 8192]; 4]>);

// SAFETY: only the boot CPU's hardware uses it, as stacks.
unsafe impl Sync for EarlyStacks {}

static EARLY_STACKS: EarlyStacks = EarlyStacks(UnsafeCell::new([[0; 8192]; 4]));

/// Fills the interrupt table and loads all tables on the boot CPU.
pub(super) fn load_boot_cpu() {
    // SAFETY: the only CPU, and the table is not loaded yet.
    let gates = unsafe { &mut *INTERRUPTS.0.get() };
    for (vector, gate) in gates.iter_mut().enumerate() {
        let ist = match vector {
            1 => Some(IstStack::Debug),
            2 => Some(IstStack::Nmi),
            8 => Some(IstStack::DoubleFault),
            18 => Some(IstStack::MachineCheck),
            _ => None,
        };
        // SAFETY: each stub is entered by the hardware's gate protocol and made for exactly its vector; the stack
        // indices are filled by `set_ist_stack` before the table is loaded.
        unsafe {
            let options = gate.set_handler_addr(VirtAddr::new(traps::stub_address(vector)));
            options.set_code_selector(SegmentSelector(KERNEL_CODE));
            if let Some(ist) = ist {
                options.set_stack_index(ist as u16);
            }
        }
    }
    let stacks = EARLY_STACKS.0.get().cast::<[u8; 8192]>();
    for ist in IstStack::ALL {
        // SAFETY: within the array.
        let top = unsafe { stacks.add(ist as usize + 1) } as u64;
        set_ist_stack(CpuId::BOOT, ist, top);
    }
    load();
}

/// Sets the top of one of `cpu`'s fault stacks. For the caller's own CPU, or one that has not started.
pub fn set_ist_stack(cpu: CpuId, ist: IstStack, top: u64) {
    let state = on(cpu).state.get();
    // SAFETY: the CPU is not started, or is the caller and the hardware reads the entry only when the fault comes; an
    // aligned 8-byte store cannot be seen in part.
    unsafe { (&raw mut (*state).interrupt_stack_table[ist as usize]).write_volatile(VirtAddr::new(top)) };
}

/// The top of one of `cpu`'s fault stacks.
pub fn ist_stack(cpu: CpuId, ist: IstStack) -> u64 {
    let state = on(cpu).state.get();
    // SAFETY: a plain read of a field that is written before the CPU starts, or by the CPU itself.
    unsafe { (&raw const (*state).interrupt_stack_table[ist as usize]).read_volatile() }.as_u64()
}

fn on(cpu: CpuId) -> &'static Tables {
    let offset = TABLES.offset();
    let area = percpu::area_of(cpu).expect("the CPU has an area");
    // SAFETY: a variable of a live area; the fields are `UnsafeCell`s whose accesses are argued one by one.
    unsafe { &*((area + offset) as *const Tables) }
}

/// Loads the executing CPU's tables. Interrupts are off.
pub(super) fn load() {
    let cpu = CpuId::new(percpu::current_cpu_number()).expect("a running CPU has a valid number");
    let tables = on(cpu);
    // SAFETY: this CPU's own tables, in an area that lives for ever, not in use by the hardware until loaded below; the
    // selectors are those that the table gets here.
    unsafe {
        let segments = &mut *tables.segments.get();
        *segments = GlobalDescriptorTable::new();
        let code = segments.append(Descriptor::kernel_code_segment());
        debug_assert_eq!(code.0, KERNEL_CODE);
        let data = segments.append(Descriptor::kernel_data_segment());
        let state = segments.append(Descriptor::tss_segment_unchecked(tables.state.get()));
        let table = &*tables.segments.get();
        lgdt(&DescriptorTablePointer {
            limit: table.limit(),
            base: VirtAddr::from_ptr(table.entries().as_ptr()),
        });
        CS::set_reg(code);
        SS::set_reg(data);
        DS::set_reg(SegmentSelector::new(0, PrivilegeLevel::Ring0));
        ES::set_reg(SegmentSelector::new(0, PrivilegeLevel::Ring0));
        // FS and GS keep their null selectors: loading them would clear the GS base.
        load_tss(state);
        lidt(&DescriptorTablePointer {
            limit: (size_of::<[Entry<HandlerFunc>; 256]>() - 1) as u16,
            base: VirtAddr::from_ptr(INTERRUPTS.0.get()),
        });
    }
}
