//! A task's save area, and the instructions that fill and load it.

use alloc::alloc::{alloc_zeroed, dealloc};
use core::alloc::Layout;
use core::arch::asm;
use core::fmt;
use core::mem::offset_of;
use core::ptr::{NonNull, addr_of};
use core::sync::atomic::{AtomicU32, Ordering};

use super::enable::{Fpu, SaveMethod, format};

/// The x87 control word with which every task and section begins: all exceptions masked, 64 bits of precision.
const X87_DEFAULT: u16 = 0x037f;
/// The same for vector instructions: all exceptions masked, round to nearest.
pub(super) static MXCSR_DEFAULT: u32 = 0x1f80;

/// Component 0 of XSTATE_BV.
const X87: u64 = 1;
/// XCOMP_BV of the compacted format has this bit set.
const IS_COMPACTED: u64 = 1 << 63;

/// The beginning of an area, which is the same in every format (Intel SDM volume 1, 10.5.1 and 13.4). The rest follows
/// it.
///
/// Bytes 464 to 511 are left to software by every instruction that saves. What is kept there makes the address of a
/// block all that saving and loading need.
#[repr(C, align(64))]
pub(super) struct Block {
    x87_control: u16,
    _x87: [u8; 22],
    mxcsr: u32,
    _registers: [u8; 436],
    /// 0 while the area is at rest, otherwise the number of the CPU in whose registers its task's state is, plus 1.
    live_on: AtomicU32,
    method: SaveMethod,
    components: u64,
    _free: [u8; 32],
    /// XSTATE_BV: components that are not at their initial values. Not there by `fxsave`, which leaves it 0.
    in_use: u64,
    /// XCOMP_BV: which format it is.
    compaction: u64,
    _header: [u8; 48],
}

const _: () = assert!(offset_of!(Block, mxcsr) == 24);
const _: () = assert!(offset_of!(Block, live_on) == 464);
const _: () = assert!(offset_of!(Block, in_use) == 512 && size_of::<Block>() == 576);

/// Room for one task's vector and floating-point registers.
///
/// A new one holds the initial state: registers zero, exceptions masked. It has the size that this machine's processors
/// need, and says so by [`size`](Area::size): 512 bytes to some 2.5 KiB.
///
/// Linux: `struct fpstate`.
///
/// ```
/// use hal::x86_64::fpu::{self, Area};
/// use hal::{Native, Platform};
/// # use hal::percpu::{IrqsOff, Pinned};
/// # struct Quiet(core::marker::PhantomData<*const ()>);
/// # unsafe impl Pinned for Quiet {}
/// # unsafe impl IrqsOff for Quiet {}
/// # let quiet = { Native::irq_disable(); Quiet(core::marker::PhantomData) };
/// let (one, other) = (Area::new()?, Area::new()?);
/// fpu::switch_to(Some(&one), &quiet); // `quiet` proves that interrupts are off
/// assert!(one.is_live() && fpu::has_owner());
/// fpu::switch_to(Some(&other), &quiet); // what `one`'s task had is in `one`
/// assert!(!one.is_live());
/// fpu::switch_to(None, &quiet);
/// # Native::irq_enable();
/// # Ok::<(), fpu::AreaError>(())
/// ```
///
/// # Invariants
/// * `block` is an allocation of `layout`, at least as long as its method may write, whose first 576 bytes are a `Block`.
/// * The registers of the CPU that `live_on` names, and of no other, belong to this area. While it is not 0 that CPU
///   alone accesses the saved registers; while it is 0, nobody.
#[must_use = "an area that is dropped holds nobody's registers"]
pub struct Area {
    block: NonNull<Block>,
    layout: Layout,
}

// SAFETY: the registers in it are accessed by the CPU alone that has claimed the area in `live_on`; everything else is
// constant or atomic.
unsafe impl Send for Area {}
// SAFETY: as above.
unsafe impl Sync for Area {}

/// Why there is no area.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AreaError {
    /// The registers are not enabled yet: call [`enable`](super::enable()) first.
    NotEnabled,
    /// There is no memory for so many bytes.
    OutOfMemory {
        /// The bytes.
        bytes: usize,
    },
}

impl fmt::Display for AreaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AreaError::NotEnabled => {
                f.write_str("vector registers are not enabled yet; `fpu::enable` comes first")
            }
            AreaError::OutOfMemory { bytes } => {
                write!(f, "no memory for {bytes} bytes of vector registers; free some and try again")
            }
        }
    }
}

impl core::error::Error for AreaError {}

impl Area {
    /// An area with the initial state.
    ///
    /// Task context; whatever the allocator allows. Cost: an allocation, and zeroing it.
    ///
    /// # Errors
    /// [`AreaError`].
    pub fn new() -> Result<Area, AreaError> {
        Area::of(format().ok_or(AreaError::NotEnabled)?)
    }

    /// An area for state that is saved in that way.
    pub(super) fn of(fpu: Fpu) -> Result<Area, AreaError> {
        let bytes = size_of::<Block>().max(fpu.area_size as usize);
        let no_memory = AreaError::OutOfMemory { bytes };
        let layout = Layout::from_size_align(bytes, align_of::<Block>()).map_err(|_| no_memory)?;
        // SAFETY: the size is not 0.
        let block = NonNull::new(unsafe { alloc_zeroed(layout) }.cast::<Block>()).ok_or(no_memory)?;
        let compacted = fpu.method == SaveMethod::Compacted;
        // SAFETY: a fresh allocation that begins with room for a `Block`, all of whose bytes are initialised.
        unsafe {
            (*block.as_ptr()).x87_control = X87_DEFAULT;
            (*block.as_ptr()).mxcsr = MXCSR_DEFAULT;
            (*block.as_ptr()).method = fpu.method;
            (*block.as_ptr()).components = fpu.components;
            (*block.as_ptr()).compaction = if compacted { IS_COMPACTED | fpu.components } else { 0 };
        }
        // INVARIANT: allocated just now, of at least the size that the method needs; no CPU has claimed it.
        Ok(Area { block, layout })
    }

    /// Its bytes.
    ///
    /// Contexts: any. Cost: a load.
    pub fn size(&self) -> usize {
        self.layout.size()
    }

    /// Whether its task's state is in some CPU's registers at this moment. Out of date at once, unless it is asked for
    /// the executing CPU's own task.
    ///
    /// Contexts: any. Cost: a load.
    pub fn is_live(&self) -> bool {
        self.live_on().load(Ordering::Relaxed) != 0
    }

    pub(super) fn block(&self) -> NonNull<Block> {
        self.block
    }

    fn live_on(&self) -> &AtomicU32 {
        // SAFETY: inside the area's own block, which lives as long as `self`.
        unsafe { &(*self.block.as_ptr()).live_on }
    }
}

impl Drop for Area {
    /// # Panics
    /// If the state is in a CPU's registers, which would be saved into memory that is somebody else's by then.
    fn drop(&mut self) {
        // Acquire: pairs with the Release in `Block::release`; the CPU that had it has stored its last byte.
        let live_on = self.live_on().load(Ordering::Acquire);
        assert!(
            live_on == 0,
            "vector state is dropped while it is in the registers of CPU {}",
            live_on.wrapping_sub(1)
        );
        // SAFETY: allocated with this layout, and nobody holds its address.
        unsafe { dealloc(self.block.as_ptr().cast(), self.layout) }
    }
}

impl fmt::Debug for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Area").field("size", &self.size()).field("live", &self.is_live()).finish()
    }
}

impl Block {
    /// Makes `cpu` the one that accesses the block. Returns the CPU that has it already, if one does.
    ///
    /// # Safety
    /// `block` is an area's.
    pub(super) unsafe fn claim(block: NonNull<Block>, cpu: u32) -> Result<(), u32> {
        // SAFETY: a field of an area's block; atomics may be shared.
        let live_on = unsafe { &(*block.as_ptr()).live_on };
        // Acquire: pairs with the Release in `release`; this CPU loads what the other one saved.
        match live_on.compare_exchange(0, cpu + 1, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => Ok(()),
            Err(other) => Err(other - 1),
        }
    }

    /// Undoes `claim`. The owner may free the block from here on.
    ///
    /// # Safety
    /// `block` is an area's, claimed by this CPU.
    pub(super) unsafe fn release(block: NonNull<Block>) {
        // SAFETY: as in `claim`.
        // Release: pairs with the Acquire in `claim` and in the area's drop.
        unsafe { (*block.as_ptr()).live_on.store(0, Ordering::Release) };
    }

    /// Stores the registers. They keep their values.
    ///
    /// # Safety
    /// `block` is an area's, claimed by this CPU, on which nothing else uses the registers or the block until this
    /// returns.
    pub(super) unsafe fn save(block: NonNull<Block>) {
        let block = block.as_ptr();
        // SAFETY: the block is alive and these fields are constant. Each method is chosen only where the processor has
        // the instruction, and writes at most the bytes that the area was allocated for.
        unsafe {
            let (method, low, high) = request(block);
            match method {
                SaveMethod::Compacted => {
                    asm!("xsavec64 [{}]", in(reg) block, in("eax") low, in("edx") high, options(nostack, preserves_flags))
                }
                SaveMethod::Optimised => {
                    asm!("xsaveopt64 [{}]", in(reg) block, in("eax") low, in("edx") high, options(nostack, preserves_flags))
                }
                SaveMethod::Standard => {
                    asm!("xsave64 [{}]", in(reg) block, in("eax") low, in("edx") high, options(nostack, preserves_flags))
                }
                SaveMethod::Legacy => asm!("fxsave64 [{}]", in(reg) block, options(nostack, preserves_flags)),
            }
        }
    }

    /// Loads the registers.
    ///
    /// # Safety
    /// As for [`save`](Block::save); and nothing on this CPU has a value in the registers that it still needs.
    pub(super) unsafe fn load(block: NonNull<Block>) {
        let block = block.as_ptr();
        // SAFETY: as in `save`. What is loaded is what was saved by the same method, or the initial state, which both have
        // no reserved bit set. The registers are declared as changed; the code around has no use for the x87 stack.
        unsafe {
            let (method, low, high) = request(block);
            match method {
                SaveMethod::Legacy => {
                    asm!("fxrstor64 [{}]", in(reg) block, clobber_abi("C"), options(nostack))
                }
                _ => {
                    asm!("xrstor64 [{}]", in(reg) block, in("eax") low, in("edx") high, clobber_abi("C"), options(nostack))
                }
            }
        }
    }

    /// Whether the x87 part was in use when the registers were saved last. `true` where the format does not tell.
    ///
    /// # Safety
    /// As for [`save`](Block::save).
    pub(super) unsafe fn x87_was_in_use(block: NonNull<Block>) -> bool {
        let block = block.as_ptr();
        // SAFETY: the block is this CPU's. Saving writes the field behind the compiler's back, so it is read as such.
        unsafe {
            request(block).0 == SaveMethod::Legacy || addr_of!((*block).in_use).read_volatile() & X87 != 0
        }
    }
}

/// How to save, and what: the operand in EDX:EAX.
///
/// # Safety
/// `block` is an area's.
unsafe fn request(block: *const Block) -> (SaveMethod, u32, u32) {
    // SAFETY: fields that are constant from the area's creation on.
    let (method, components) = unsafe { ((*block).method, (*block).components) };
    (method, components as u32, (components >> 32) as u32)
}

/// Empties the x87 stack and sets its control word to the default. Nobody's x87 state is in the registers.
pub(super) fn reset_x87() {
    // SAFETY: the code around has no use for x87 registers, and the default is what it expects.
    unsafe { asm!("fninit", options(nostack, preserves_flags, nomem)) };
}

/// Whether the x87 part is as [`reset_x87`] leaves it: empty, with the default control word.
pub(in crate::x86_64) fn x87_is_reset() -> bool {
    // Control word, status word, tag word, each followed by two bytes, and the rest of the environment (Intel SDM volume
    // 1, 8.1.10).
    let mut environment = [0_u16; 14];
    // SAFETY: writes 28 bytes of the array. It masks exceptions as a side effect; loading the control word undoes that.
    unsafe {
        asm!("fnstenv [{0}]", "fldcw [{0}]", in(reg) &mut environment, options(nostack, preserves_flags));
    }
    environment[0] == X87_DEFAULT && environment[4] == 0xffff
}
