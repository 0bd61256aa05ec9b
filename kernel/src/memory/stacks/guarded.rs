//! The kernel's stacks, mapped.

use core::fmt;
use core::ops::Range;
use core::ptr::NonNull;

use hal::x86_64::layout::{PAGE_SIZE, Permissions, phys_to_virt};
use hal::x86_64::paging::{Attributes, MapError};
use sync::IrqSpinLock;

use super::{Owner, Records, SlotError, SlotTable};
use crate::memory::instance;
use crate::memory::shootdown;

static SLOTS: SlotTable = SlotTable::new();
/// Held while a slot is taken.
static TAKING: IrqSpinLock<()> = IrqSpinLock::new(());

/// Why there is no stack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StackError {
    /// There are [`SLOTS`](super::SLOTS) stacks already.
    TooMany,
    /// No frames.
    OutOfMemory,
}

impl fmt::Display for StackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StackError::TooMany => "all places for kernel stacks are taken: end some tasks",
            StackError::OutOfMemory => "no memory is left for a kernel stack",
        })
    }
}

impl core::error::Error for StackError {}

/// A stack with an unmapped page or more below it. Dropping it unmaps it on all CPUs and gives its memory back.
///
/// # Invariants
/// The pages of `range` are mapped, writable, and nobody else's.
#[derive(Debug)]
pub struct GuardedStack {
    range: Range<u64>,
}

impl GuardedStack {
    /// A stack of `pages` times 4 KiB, zeroed.
    ///
    /// Task context, or interrupts off at boot. Linux: `CONFIG_VMAP_STACK`.
    ///
    /// # Errors
    /// See [`StackError`].
    ///
    /// # Panics
    /// If `pages` is 0 or more than [`MAX_PAGES`](super::MAX_PAGES).
    pub fn new(pages: usize, owner: Owner) -> Result<GuardedStack, StackError> {
        let range = {
            let _one_at_a_time = TAKING.lock();
            SLOTS.take(owner, pages, records).map_err(|error| match error {
                SlotError::Full => StackError::TooMany,
                SlotError::OutOfFrames => StackError::OutOfMemory,
            })?
        };
        for page in range.clone().step_by(PAGE_SIZE as usize) {
            if map_page(page).is_err() {
                unmap(range.start..page);
                SLOTS.release(&range);
                return Err(StackError::OutOfMemory);
            }
        }
        // INVARIANT: all pages were mapped above, to frames of their own, in a slot that is ours.
        Ok(GuardedStack { range })
    }

    /// The address above the stack, where its use begins; a multiple of 4096.
    pub fn top(&self) -> u64 {
        self.range.end
    }

    /// The lowest address that can be used. Below is nothing.
    pub fn bottom(&self) -> u64 {
        self.range.start
    }

    /// Keeps the stack for ever, for a CPU that always has it. Returns its top.
    pub fn leak(self) -> u64 {
        core::mem::ManuallyDrop::new(self).top()
    }
}

impl Drop for GuardedStack {
    fn drop(&mut self) {
        unmap(self.range.clone());
        SLOTS.release(&self.range);
    }
}

fn map_page(page: u64) -> Result<(), MapError> {
    let frame = instance::allocate_zeroed().ok_or(MapError::OutOfFrames)?;
    let attributes = Attributes::kernel(Permissions::ReadWrite);
    // SAFETY: the page is in a slot that nobody else uses, the frame is new.
    let mapped = unsafe { instance::map(page..page + PAGE_SIZE, frame, attributes) };
    mapped.inspect_err(|_| instance::free_frames(frame, 0))
}

/// Unmaps pages of a slot and gives their frames back.
fn unmap(range: Range<u64>) {
    let mut frames = [0; super::MAX_PAGES];
    let count = take_frames(range.clone(), &mut frames);
    shootdown::flush_everywhere(range);
    frames[..count].iter().for_each(|frame| instance::free_frames(*frame, 0));
}

/// Unmaps pages of a slot, of which CPUs may still know, and says which frames they were. Returns how many.
fn take_frames(range: Range<u64>, frames: &mut [u64]) -> usize {
    if range.is_empty() {
        return 0;
    }
    let mut count = 0;
    for page in range.clone().step_by(PAGE_SIZE as usize) {
        if let Some(frame) = instance::view().translate(page) {
            frames[count] = frame;
            count += 1;
        }
    }
    // SAFETY: nobody uses the stack any more, and the frames are freed only after all CPUs have flushed.
    let unmapped = unsafe { instance::unmap_unflushed(range) };
    if unmapped.is_err() {
        // The pages are small, so that no table was needed: they were not mapped, and are not ours to free.
        debug_assert!(false, "a stack was not mapped");
        return 0;
    }
    count
}

/// How many stacks [`release`] gives back at once.
pub(crate) const BATCH: usize = 16;

/// Gives stacks back, at most [`BATCH`], and interrupts the other CPUs once for all of them: what dropping each of them
/// does, for less. Task context.
pub(crate) fn release(stacks: impl Iterator<Item = GuardedStack>) {
    let mut frames = [0; BATCH * super::MAX_PAGES];
    let mut ranges = [const { 0..0 }; BATCH];
    let (mut count, mut lowest, mut end) = (0, u64::MAX, 0);
    for (stack, place) in stacks.zip(&mut ranges) {
        let range = core::mem::ManuallyDrop::new(stack).range.clone();
        count += take_frames(range.clone(), &mut frames[count..]);
        (lowest, end) = (lowest.min(range.start), end.max(range.end));
        *place = range;
    }
    if end == 0 {
        return;
    }
    shootdown::flush_everywhere(lowest..end);
    frames[..count].iter().for_each(|frame| instance::free_frames(*frame, 0));
    ranges.iter().filter(|range| !range.is_empty()).for_each(|range| SLOTS.release(range));
}

fn records() -> Option<NonNull<Records>> {
    NonNull::new(phys_to_virt(instance::allocate_zeroed()?).cast())
}

/// Whose stack has overflowed, if `address`, which could not be accessed, is below a stack. Contexts: any, NMI included.
pub fn guard_owner(address: u64) -> Option<Owner> {
    SLOTS.guard_owner(address)
}

/// Whose stack `address` is in, and where that stack is. Contexts: any, NMI included.
pub fn stack_at(address: u64) -> Option<(Owner, Range<u64>)> {
    SLOTS.stack_at(address)
}

/// All stacks, lowest first.
pub fn stacks() -> impl Iterator<Item = (Owner, Range<u64>)> {
    SLOTS.stacks()
}
