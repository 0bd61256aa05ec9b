//! Kernel stacks, each with nothing below it.
//!
//! A part of the address space is divided into slots of [`SLOT`] bytes. A stack takes the top pages of a slot; the rest
//! of the slot is never mapped. Running over the end of a stack so hits a page that is not there, at an address that
//! names the slot, and the slot's record names the stack: "CPU#3's interrupt stack".
//!
//! The record is looked up without a lock, because it is wanted in the report of a fault that may have hit anything.

use core::fmt;
use core::ops::Range;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

use hal::CpuId;
use hal::x86_64::layout::{DYNAMIC, PAGE_SIZE};

/// The address space for one stack and what is below it, in bytes.
pub const SLOT: u64 = 64 * 1024;
/// How many stacks there can be at a time.
pub const SLOTS: usize = 32 * 1024;
/// The addresses of all slots.
pub const REGION: Range<u64> = DYNAMIC.start..DYNAMIC.start + SLOT * SLOTS as u64;
/// The largest stack, in pages: at least one page of a slot stays unmapped.
pub const MAX_PAGES: usize = (SLOT / PAGE_SIZE) as usize - 1;

/// Whose stack it is and what for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// A task's, by its number.
    Task(u32),
    /// The stack that a CPU starts and idles on.
    Idle(CpuId),
    /// For interrupts.
    Interrupt(CpuId),
    /// For NMIs.
    Nmi(CpuId),
    /// For double faults.
    DoubleFault(CpuId),
    /// For machine checks.
    MachineCheck(CpuId),
    /// For debug exceptions.
    Debug(CpuId),
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (cpu, what) = match self {
            Owner::Task(number) => return write!(f, "task {number}'s stack"),
            Owner::Idle(cpu) => (cpu, "idle"),
            Owner::Interrupt(cpu) => (cpu, "interrupt"),
            Owner::Nmi(cpu) => (cpu, "NMI"),
            Owner::DoubleFault(cpu) => (cpu, "double fault"),
            Owner::MachineCheck(cpu) => (cpu, "machine check"),
            Owner::Debug(cpu) => (cpu, "debug"),
        };
        write!(f, "CPU#{cpu}'s {what} stack")
    }
}

/// A slot's record in one word: in use, what for, how many pages, whose.
const IN_USE: u64 = 1 << 63;

fn encode(owner: Owner, pages: usize) -> u64 {
    let (kind, number) = match owner {
        Owner::Task(number) => (0, number),
        Owner::Idle(cpu) => (1, cpu.as_u32()),
        Owner::Interrupt(cpu) => (2, cpu.as_u32()),
        Owner::Nmi(cpu) => (3, cpu.as_u32()),
        Owner::DoubleFault(cpu) => (4, cpu.as_u32()),
        Owner::MachineCheck(cpu) => (5, cpu.as_u32()),
        Owner::Debug(cpu) => (6, cpu.as_u32()),
    };
    IN_USE | kind << 40 | (pages as u64) << 32 | u64::from(number)
}

fn decode(record: u64) -> Option<(Owner, usize)> {
    if record & IN_USE == 0 {
        return None;
    }
    let number = record as u32;
    let cpu = CpuId::new(number);
    let owner = match record >> 40 & 0xff {
        0 => Owner::Task(number),
        1 => Owner::Idle(cpu?),
        2 => Owner::Interrupt(cpu?),
        3 => Owner::Nmi(cpu?),
        4 => Owner::DoubleFault(cpu?),
        5 => Owner::MachineCheck(cpu?),
        _ => Owner::Debug(cpu?),
    };
    Some((owner, (record >> 32 & 0xff) as usize))
}

/// Records in one frame.
const PER_FRAME: usize = (PAGE_SIZE / 8) as usize;
/// A frame full of records.
pub type Records = [AtomicU64; PER_FRAME];

/// Which slots are taken, by whom. Records live in frames that are added as they are needed and never taken away.
///
/// # Invariants
/// A pointer in `records` is null or leads to records that live for ever.
#[derive(Debug)]
pub struct SlotTable {
    records: [AtomicPtr<Records>; SLOTS / PER_FRAME],
    /// Below this slot all are taken, as far as is known.
    full_below: AtomicUsize,
}

/// Why there is no slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SlotError {
    /// All are taken.
    Full,
    /// No frame for the records.
    OutOfFrames,
}

impl SlotTable {
    /// A table without stacks.
    pub const fn new() -> SlotTable {
        SlotTable {
            records: [const { AtomicPtr::new(ptr::null_mut()) }; SLOTS / PER_FRAME],
            full_below: AtomicUsize::new(0),
        }
    }

    /// Takes the lowest free slot for a stack of `pages`, and returns the addresses of the stack. Callers take turns
    /// (they hold a lock); look-ups go on meanwhile. `frame` gives a zeroed page for records that lives for ever.
    ///
    /// # Errors
    /// See [`SlotError`].
    ///
    /// # Panics
    /// If `pages` is 0 or more than [`MAX_PAGES`].
    pub fn take(
        &self,
        owner: Owner,
        pages: usize,
        frame: impl FnOnce() -> Option<NonNull<Records>>,
    ) -> Result<Range<u64>, SlotError> {
        assert!((1..=MAX_PAGES).contains(&pages), "a stack has 1 to {MAX_PAGES} pages, not {pages}");
        let mut frame = Some(frame);
        let full_below = self.full_below.load(Ordering::Relaxed);
        for (index, place) in self.records.iter().enumerate().skip(full_below / PER_FRAME) {
            let records = match NonNull::new(place.load(Ordering::Acquire)) {
                Some(records) => records,
                None => {
                    let Some(new) = frame.take().and_then(|frame| frame()) else {
                        return Err(SlotError::OutOfFrames);
                    };
                    // Release: pairs with the Acquire in `record`; who finds the records finds them zeroed.
                    place.store(new.as_ptr(), Ordering::Release);
                    new
                }
            };
            // SAFETY: by the invariant.
            let records = unsafe { records.as_ref() };
            let first = full_below.saturating_sub(index * PER_FRAME);
            let is_free = |slot: &usize| records[*slot].load(Ordering::Relaxed) == 0;
            if let Some(free) = (first..PER_FRAME).find(is_free) {
                // Unless one below was given back meanwhile.
                let (seen, now) = (full_below, index * PER_FRAME + free + 1);
                let _ = self.full_below.compare_exchange(seen, now, Ordering::Relaxed, Ordering::Relaxed);
                // Relaxed: a record is complete in itself; who runs on the stack was handed it in some ordered way.
                records[free].store(encode(owner, pages), Ordering::Relaxed);
                let top = REGION.start + SLOT * (index * PER_FRAME + free + 1) as u64;
                return Ok(top - pages as u64 * PAGE_SIZE..top);
            }
        }
        // One that was given back just behind the search was missed.
        match frame {
            Some(frame) if full_below != 0 => {
                self.full_below.store(0, Ordering::Relaxed);
                self.take(owner, pages, frame)
            }
            _ => Err(SlotError::Full),
        }
    }

    /// Gives back the slot of a stack that is no longer mapped anywhere.
    pub fn release(&self, stack: &Range<u64>) {
        if let Some(record) = self.record(stack.end - 1) {
            record.store(0, Ordering::Relaxed);
            let slot = ((stack.end - 1 - REGION.start) / SLOT) as usize;
            self.full_below.fetch_min(slot, Ordering::Relaxed);
        }
    }

    /// Whose stack has ended just above `address`, if the address is in the unmapped part of a slot in use. Contexts:
    /// any, NMI included. Cost: 2 loads.
    pub fn guard_owner(&self, address: u64) -> Option<Owner> {
        let (owner, pages) = decode(self.record(address)?.load(Ordering::Relaxed))?;
        let top = address / SLOT * SLOT + SLOT;
        (address < top - pages as u64 * PAGE_SIZE).then_some(owner)
    }

    /// Whose stack `address` is in, and the stack's addresses. Contexts: any, NMI included.
    pub fn stack_at(&self, address: u64) -> Option<(Owner, Range<u64>)> {
        let (owner, pages) = decode(self.record(address)?.load(Ordering::Relaxed))?;
        let top = address / SLOT * SLOT + SLOT;
        let stack = top - pages as u64 * PAGE_SIZE..top;
        stack.contains(&address).then_some((owner, stack))
    }

    /// All stacks, lowest first; those that come and go meanwhile may be missed.
    pub fn stacks(&self) -> impl Iterator<Item = (Owner, Range<u64>)> {
        (0..SLOTS as u64).filter_map(|slot| self.stack_at(REGION.start + SLOT * (slot + 1) - 1))
    }

    fn record(&self, address: u64) -> Option<&AtomicU64> {
        if !REGION.contains(&address) {
            return None;
        }
        let slot = ((address - REGION.start) / SLOT) as usize;
        // Acquire: pairs with the Release in `take`.
        let records = NonNull::new(self.records[slot / PER_FRAME].load(Ordering::Acquire))?;
        // SAFETY: by the invariant.
        Some(unsafe { &records.as_ref()[slot % PER_FRAME] })
    }
}

impl Default for SlotTable {
    fn default() -> SlotTable {
        SlotTable::new()
    }
}

#[cfg(target_os = "none")]
mod guarded;
#[cfg(target_os = "none")]
pub(crate) use guarded::{BATCH, release};
#[cfg(target_os = "none")]
pub use guarded::{GuardedStack, StackError, guard_owner, stack_at, stacks};

#[cfg(test)]
mod tests;
