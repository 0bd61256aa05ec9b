//! Accesses to memory that nobody owns, caught as they happen.
//!
//! 1. For every 8 bytes of physical memory there is a byte of *shadow*: 0 says that all 8 may be accessed, 1 to 7 that only
//!    so many of the first may, and anything from 0x80 on says why none may.
//! 2. The compiler calls `__asan_load8_noabort` and its kin before each load and store. They look at the shadow, and report
//!    what it forbids. The access then happens all the same, so that one run finds more than one mistake.
//! 3. Who changes owners changes the shadow: the heap in [`objects`](super::objects), the frame allocator here.
//!
//! Shadow exists for the direct map, through which the heap and all frames are used. Elsewhere the page tables say what
//! may be accessed: below a stack is nothing, and what was unmapped faults. Variables on a stack and statics have no shadow:
//! what oversteps one of those and stays in the same stack or image is not seen.
//!
//! # Invariants
//! The hooks and what they call on the way to "allowed" are not instrumented themselves, and use nothing but operators: a
//! function of the core library is instrumented, and would call the hook again. Each hook has a frame of its own on the
//! stack while it reports, so that the step above it is the access.
//!
//! Linux: KASAN, in its generic form with outlined checks.

use core::arch::asm;
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use hal::x86_64::layout::{DIRECT_MAP, PAGE_SIZE};
use hal::{MAX_CPUS, Native, Platform};
use log::{info, warn};

use super::objects::Object;
use super::stack::Stack;
use crate::machine::Lines;

/// Bytes that one byte of shadow stands for.
pub(super) const GRANULE: u64 = 8;

/// The heap's, and nobody's: between objects, or not handed out.
pub(super) const REDZONE: u8 = 0xfa;
/// The record in front of an object.
pub(super) const HEADER: u8 = 0xf1;
/// An object that was freed, and is not handed out again yet.
pub(super) const FREED: u8 = 0xfd;
/// A frame that was freed.
const FREE_FRAME: u8 = 0xff;

/// Where the shadow of physical address 0 is. Written once, before there is a second CPU.
static mut SHADOW: u64 = 0;
/// The physical addresses below this one have shadow. Written once, as above; 0 until there is shadow.
static mut LIMIT: u64 = 0;

/// Which CPUs are in the heap's allocator, which may access what is nobody else's. With interrupts off, all the while.
static AT_WORK: [AtomicBool; MAX_CPUS] = [const { AtomicBool::new(false) }; MAX_CPUS];

/// What is reported in one boot. Where one thing is wrong, much is.
const MOST_REPORTS: u32 = 16;
static REPORTS: AtomicU32 = AtomicU32::new(0);
/// Somebody reports. What the report itself touches is not reported.
static REPORTING: AtomicBool = AtomicBool::new(false);

/// Gives shadow to the physical addresses below `end`. `allocate` gives so many bytes of physical memory in one piece.
///
/// Once, on the boot CPU, before other CPUs run; the direct map shows all memory.
pub(crate) fn start(end: u64, allocate: impl FnOnce(u64) -> Option<u64>) {
    let bytes = end.div_ceil(GRANULE).next_multiple_of(PAGE_SIZE);
    let Some(block) = allocate(bytes) else {
        warn!("no {} KiB in one piece for shadow: accesses are not checked", bytes / 1024);
        return;
    };
    let shadow = block + DIRECT_MAP;
    // SAFETY: the frames are ours from now on, and the direct map shows them. No other CPU runs, and no hook looks at the
    // shadow before `LIMIT` is set, which comes last.
    unsafe {
        fill(shadow, bytes, 0);
        SHADOW = shadow;
        LIMIT = end;
    }
    info!("accesses to memory are checked: {} KiB of shadow", bytes / 1024);
}

/// How much memory the shadow takes, in bytes.
pub(crate) fn shadow_bytes() -> u64 {
    // SAFETY: written once, before others run.
    unsafe { LIMIT }.div_ceil(GRANULE).next_multiple_of(PAGE_SIZE)
}

/// `1 << order` frames from the physical address `block` have an owner. The frame allocator is locked.
pub(crate) fn frames_allocated(block: u64, order: usize) {
    mark(block + DIRECT_MAP, PAGE_SIZE << order, 0);
}

/// `1 << order` frames from the physical address `block` have none any more. The frame allocator is locked.
pub(crate) fn frames_freed(block: u64, order: usize) {
    mark(block + DIRECT_MAP, PAGE_SIZE << order, FREE_FRAME);
}

/// The frames from the physical address `start` are the heap's.
pub(crate) fn heap_grown(start: u64, bytes: u64) {
    mark(start + DIRECT_MAP, bytes, REDZONE);
}

/// Runs the heap's allocator, with the right to access what is nobody's. Interrupts are off.
pub(super) fn as_allocator<R>(work: impl FnOnce() -> R) -> R {
    let _off = sync::irq::disable();
    let mine = &AT_WORK[Native::cpu().index()];
    mine.store(true, Ordering::Relaxed);
    let result = work();
    mine.store(false, Ordering::Relaxed);
    result
}

/// Sets the shadow of `bytes` bytes from `address`, a multiple of 8. A last granule that is not full becomes accessible
/// as far as it goes if `code` is 0, and gets `code` otherwise.
#[sanitize(kernel_address = "off")]
pub(super) fn mark(address: u64, bytes: u64, code: u8) {
    let offset = address.wrapping_sub(DIRECT_MAP);
    // SAFETY: the shadow, written once before others run, has a byte for each granule below `LIMIT`; whoever calls this
    // owns the memory, and so its shadow.
    unsafe {
        if offset >= LIMIT {
            return;
        }
        fill(SHADOW + offset / GRANULE, bytes / GRANULE, code);
        let rest = bytes & (GRANULE - 1);
        if rest != 0 {
            let part = if code == 0 { rest as u8 } else { code };
            fill(SHADOW + (offset + bytes) / GRANULE, 1, part);
        }
    }
}

/// The shadow of an address, or 0 where there is none. Always inlined: it is instrumented where its caller is, which may
/// see to it with hooks of its own, and not in hooks.
#[inline(always)]
pub(super) fn shadow_of(address: u64) -> u8 {
    let offset = address.wrapping_sub(DIRECT_MAP);
    let code: u32;
    // SAFETY: as in `mark`; a byte that its owner changes at this moment is one or the other.
    unsafe {
        if offset >= LIMIT {
            return 0;
        }
        asm!("movzx {:e}, byte ptr [{}]", out(reg) code, in(reg) SHADOW + offset / GRANULE, options(nostack, readonly, preserves_flags));
    }
    code as u8
}

/// Stores `count` bytes, without a hook.
///
/// # Safety
/// The memory is the caller's.
#[sanitize(kernel_address = "off")]
unsafe fn fill(at: u64, count: u64, byte: u8) {
    let words = count / 8;
    let word = byte as u64 * 0x0101_0101_0101_0101;
    // SAFETY: the caller's promise; the direction flag is clear in all of the kernel.
    unsafe {
        asm!(
            // Emulators take a step for each store.
            "rep stosq",
            "mov ecx, {rest:e}",
            "rep stosb",
            rest = in(reg) (count % 8) as u32,
            inout("rcx") words => _,
            inout("rdi") at => _,
            in("rax") word,
            options(nostack, preserves_flags),
        );
    }
}

/// Copies `count` bytes, a multiple of 8, without a hook.
///
/// # Safety
/// `to` is the caller's, `from` can be read, and they do not overlap.
#[sanitize(kernel_address = "off")]
pub(super) unsafe fn copy(to: u64, from: u64, count: u64) {
    // SAFETY: the caller's promise; the direction flag is clear in all of the kernel.
    unsafe {
        asm!("rep movsq", inout("rcx") count / 8 => _, inout("rdi") to => _, inout("rsi") from => _, options(nostack, preserves_flags));
    }
}

/// Looks whether `size` bytes from `address` may be accessed. Inlined into hooks, and instrumented no more than
/// they are.
#[inline(always)]
fn check(address: u64, size: u64, write: bool) {
    // SAFETY: written once, before others run.
    let limit = unsafe { LIMIT };
    if address.wrapping_sub(DIRECT_MAP) >= limit || size == 0 {
        return;
    }
    let last = address + (size - 1);
    let mut granule = address & !(GRANULE - 1);
    while granule <= last {
        let code = shadow_of(granule);
        // Below 8, `code` is how many bytes may be accessed; of this granule the access goes up to `last`.
        let forbidden = code != 0 && (code >= 8 || last - granule >= code as u64);
        if forbidden {
            let first = if address > granule { address } else { granule };
            bad(Access { address, size, write, first, code });
            // SAFETY: no instruction. It comes after the call, which for that is none that ends the hook's frame first.
            unsafe { asm!("", options(nomem, nostack, preserves_flags)) };
            return;
        }
        granule += GRANULE;
    }
}

/// An access that the shadow forbids.
struct Access {
    address: u64,
    size: u64,
    write: bool,
    /// In the granule that says no.
    first: u64,
    code: u8,
}

#[cold]
#[inline(never)]
fn bad(access: Access) {
    let allocating = AT_WORK[Native::cpu().index()].load(Ordering::Relaxed);
    if allocating {
        return;
    }
    let Access { address, size, write, first, code } = access;
    let object = Object::near(first);
    let what = match (code, &object) {
        (FREE_FRAME, _) => "use of a freed frame",
        (FREED, _) => "use after free",
        (HEADER, _) => "underflow of a heap object",
        (_, Some(_)) => "overflow of a heap object",
        _ => "use of memory that the heap has not handed out",
    };
    let how = if write { "write" } else { "read" };
    // Above this function is the hook, and above that the access.
    Mistake { what: format_args!("{what}: {how} of {size} bytes"), address, object, made: Stack::above(2) }
        .tell();
}

/// What was done wrong.
pub(super) struct Mistake<'a> {
    pub(super) what: fmt::Arguments<'a>,
    pub(super) address: u64,
    /// What it was done to, as far as one can tell.
    pub(super) object: Option<Object>,
    pub(super) made: Stack,
}

impl Mistake<'_> {
    /// Reports it, unless there were too many reports or this is a part of one.
    pub(super) fn tell(&self) {
        if REPORTING.swap(true, Ordering::Relaxed) {
            return;
        }
        if REPORTS.fetch_add(1, Ordering::Relaxed) < MOST_REPORTS {
            // Not by `Native::report`, which ends the line with a place in the source: that would be one in here.
            let mut lines = Lines::new();
            // Never fails.
            let _ = writeln!(lines, "{self}");
        }
        REPORTING.store(false, Ordering::Relaxed);
    }
}

impl fmt::Display for Mistake<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BUG: {} in {}", self.what, self.made.place())?;
        if let Some(object) = &self.object {
            write!(f, "{}", object.seen_from(self.address))?;
        }
        write!(f, "\n  access to {:#018x}{}", self.address, self.made)?;
        self.object.as_ref().map_or(Ok(()), |object| write!(f, "{}", object.history()))
    }
}

macro_rules! hooks {
    ($($name:ident($size:literal, $write:literal);)*) => {$(
        #[unsafe(no_mangle)]
        #[sanitize(kernel_address = "off")]
        extern "C" fn $name(address: u64) {
            check(address, $size, $write);
        }
    )*};
}

hooks! {
    __asan_load1_noabort(1, false);
    __asan_load2_noabort(2, false);
    __asan_load4_noabort(4, false);
    __asan_load8_noabort(8, false);
    __asan_load16_noabort(16, false);
    __asan_store1_noabort(1, true);
    __asan_store2_noabort(2, true);
    __asan_store4_noabort(4, true);
    __asan_store8_noabort(8, true);
    __asan_store16_noabort(16, true);
}

#[unsafe(no_mangle)]
#[sanitize(kernel_address = "off")]
extern "C" fn __asan_loadN_noabort(address: u64, size: u64) {
    check(address, size, false);
}

#[unsafe(no_mangle)]
#[sanitize(kernel_address = "off")]
extern "C" fn __asan_storeN_noabort(address: u64, size: u64) {
    check(address, size, true);
}

/// Before a call that does not return. Stacks have no shadow that would have to be cleared.
#[unsafe(no_mangle)]
extern "C" fn __asan_handle_no_return() {}

// The linker sends what calls `memcpy` and its kin here (`--wrap`, see `build.rs`); the compiler checks no copies itself.
unsafe extern "C" {
    fn __real_memmove(to: u64, from: u64, count: u64) -> u64;
    fn __real_memcpy(to: u64, from: u64, count: u64) -> u64;
}

#[unsafe(no_mangle)]
#[sanitize(kernel_address = "off")]
extern "C" fn __wrap_memcpy(to: u64, from: u64, count: u64) -> u64 {
    check(from, count, false);
    check(to, count, true);
    // SAFETY: what the caller asked for.
    unsafe { __real_memcpy(to, from, count) }
}

#[unsafe(no_mangle)]
#[sanitize(kernel_address = "off")]
extern "C" fn __wrap_memmove(to: u64, from: u64, count: u64) -> u64 {
    check(from, count, false);
    check(to, count, true);
    // SAFETY: what the caller asked for.
    unsafe { __real_memmove(to, from, count) }
}

#[unsafe(no_mangle)]
#[sanitize(kernel_address = "off")]
extern "C" fn __wrap_memset(to: u64, byte: u32, count: u64) -> u64 {
    check(to, count, true);
    // SAFETY: what the caller asked for.
    unsafe { fill(to, count, byte as u8) };
    to
}
