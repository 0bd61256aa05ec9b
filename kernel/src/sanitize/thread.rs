//! Data races, caught in the act.
//!
//! 1. The compiler calls `__tsan_read8` and its kin before each load and store, and instead of each atomic one. The call
//!    looks into a small table of *watchpoints* whether somebody is about to access the same bytes at this moment.
//! 2. Every few thousand accesses one is *sampled*: it becomes a watchpoint itself, and waits for some microseconds
//!    before it goes ahead. Who meets it meanwhile, on another CPU or in an interrupt on this one, is a race if one of
//!    the two writes and one of them is plain. Both are there then, with their stacks.
//! 3. If nobody was met, but the value is another one, somebody wrote by means that the compiler does not see, such as
//!    assembly: a race, too.
//!
//! There is nothing to be told about locks or ordering: an access that is ordered against all others never meets one. What
//! was reported is a race; what was not reported may be one that nobody met.
//!
//! *Marked* are atomic and volatile accesses. The atomic ones are in [`thread_atomics`](super::thread_atomics).
//!
//! # Invariants
//! * A slot of the table is [`FREE`], or armed (its top bit is set), or [`CLAIMED`] by the access that met it, or
//!   [`MET`]. Only who armed it makes it free again, and until then has nothing else to do.
//! * The hooks are not instrumented, and access memory by assembly only, on the way to "nothing to see". What reports is
//!   instrumented like the rest; that its own accesses are neither sampled nor looked up, [`BUSY`] sees to.
//! * Each hook has a frame of its own on the stack, so that the step above it is the access.
//!
//! Linux: KCSAN.

use core::arch::asm;
use core::cell::UnsafeCell;

use super::races::{self, Party};
use super::stack::Stack;

/// An access that writes.
pub(super) const WRITE: u64 = 1;
/// An atomic or volatile access: two of them are no race.
pub(super) const MARKED: u64 = 2;
/// A volatile access, which may be to a device: nothing else reads there.
pub(super) const VOLATILE: u64 = 4;

/// Bytes that share a slot, as a shift. No watchpoint is longer than that, or reaches over their end.
const GRANULE_SHIFT: u64 = 4;
const GRANULE: u64 = 1 << GRANULE_SHIFT;
/// Watchpoints at a time, of which a granule may have the one at its place: a power of two.
const SLOTS: u64 = 64;

/// No watchpoint.
const FREE: u64 = 0;
/// Somebody met the watchpoint and writes down who that is.
const CLAIMED: u64 = 1;
/// It is written down, in [`MET_BY`].
const MET: u64 = 2;
/// Set in an armed slot: the low 48 bits are the address, then come 5 bits of size and 3 of kind.
const ARMED: u64 = 1 << 63;
const ADDRESS: u64 = (1 << 48) - 1;

/// Accesses from one sample to the next, on one stack: this many at least, and less than three times as many.
const SKIPPED: u64 = 2000;
/// How long a sample waits at most, in nanoseconds; a quarter of it at least.
const WAIT: u64 = 80_000;
/// The same with interrupts off, where others may wait for this one.
const SHORT_WAIT: u64 = 20_000;

/// Memory that the hooks access by assembly.
#[repr(C, align(64))]
struct Raw<T>(UnsafeCell<T>);
// SAFETY: words, accessed by single instructions; records, by who owns the slot that they belong to.
unsafe impl<T> Sync for Raw<T> {}

impl<T> Raw<T> {
    #[inline(always)]
    fn at(&self) -> u64 {
        &raw const *self as u64
    }
}

static WATCHPOINTS: Raw<[u64; SLOTS as usize]> = Raw(UnsafeCell::new([FREE; SLOTS as usize]));
/// Who met the watchpoint in the slot of the same number.
static MET_BY: Raw<[Party; SLOTS as usize]> = Raw(UnsafeCell::new([Party::NONE; SLOTS as usize]));

/// For each stack (those 64 stacks apart share one) 64 bytes: accesses to go until the next sample; whether it is
/// [`BUSY`]; samples. Stacks, and not CPUs: a stack is at hand before a CPU has anything of its own, and while a task
/// moves. An update that is lost makes a sample come a little earlier or later.
static STACKS: Raw<[u64; 64 * 8]> = Raw(UnsafeCell::new([0; 64 * 8]));
/// The stack does the sanitizer's work.
const BUSY: u64 = 8;
/// Offset of the number of samples.
const SAMPLES: u64 = 16;

/// TSC cycles in 1024 ns, or 0 before there are samples. Written once.
static CYCLES: Raw<u64> = Raw(UnsafeCell::new(0));

/// From now on accesses are sampled. `tsc_hz` is how fast the TSC counts.
///
/// On the boot CPU; others may or may not execute already.
pub(crate) fn start(tsc_hz: Option<u64>) {
    let cycles = tsc_hz.unwrap_or(1_000_000_000) / 1_000_000 * 1024 / 1000;
    store(CYCLES.at(), cycles.max(1));
    ::log::info!("accesses to memory are watched for data races: 1 of {}", 2 * SKIPPED);
}

/// How many accesses were sampled.
pub(crate) fn samples() -> u64 {
    (0..64).map(|stack| load(STACKS.at() + stack * 64 + SAMPLES)).sum()
}

#[inline(always)]
fn load(at: u64) -> u64 {
    let value;
    // SAFETY: whoever calls this names a word that is there, or one that its caller accesses next.
    unsafe { asm!("mov {}, [{}]", out(reg) value, in(reg) at, options(nostack, preserves_flags)) };
    value
}

#[inline(always)]
fn store(at: u64, value: u64) {
    // SAFETY: whoever calls this names a word of this module's.
    unsafe { asm!("mov [{}], {}", in(reg) at, in(reg) value, options(nostack, preserves_flags)) };
}

/// Makes `to` of `from` in one step, if that is there. Whatever comes before in the program is before it for others.
#[inline(always)]
fn change(at: u64, from: u64, to: u64) -> bool {
    let there: u64;
    // SAFETY: as in `store`.
    unsafe {
        asm!("lock cmpxchg [{}], {}", in(reg) at, in(reg) to, inout("rax") from => there, options(nostack));
    }
    there == from
}

#[inline(always)]
fn slot_of(granule: u64) -> u64 {
    WATCHPOINTS.at() + (granule & (SLOTS - 1)) * 8
}

#[inline(always)]
fn this_stack() -> u64 {
    let top: u64;
    // SAFETY: copies a register.
    unsafe { asm!("mov {}, rsp", out(reg) top, options(nomem, nostack, preserves_flags)) };
    STACKS.at() + ((top >> 14) & 63) * 64
}

/// Before each access: is somebody at the same place, and is it this one's turn to be sampled? Inlined into hooks.
#[inline(always)]
pub(super) fn access(address: u64, size: u64, kind: u64) {
    let first = address >> GRANULE_SHIFT;
    let last = (address.wrapping_add(size).wrapping_sub(1)) >> GRANULE_SHIFT;
    if load(slot_of(first)) != FREE
        || (first != last && load(slot_of(last)) != FREE)
        || last.wrapping_sub(first) > 1
    {
        look(address, size, kind);
    }
    let stack = this_stack();
    let left = load(stack).wrapping_sub(1);
    store(stack, left);
    if left as i64 <= 0 {
        sample(address, size, kind);
    }
    // SAFETY: no instruction. It comes after the calls, which for that are none that end the hook's frame first.
    unsafe { asm!("", options(nomem, nostack, preserves_flags)) };
}

/// Looks at all slots that the access may have to do with.
#[cold]
#[inline(never)]
#[sanitize(thread = "off")]
fn look(address: u64, size: u64, kind: u64) {
    let stack = this_stack();
    if size == 0 || load(CYCLES.at()) == 0 || load(stack + BUSY) != 0 {
        return;
    }
    let first = address >> GRANULE_SHIFT;
    let last = (address.wrapping_add(size - 1)) >> GRANULE_SHIFT;
    let mut granule = first;
    while granule <= last && granule.wrapping_sub(first) < SLOTS {
        let slot = slot_of(granule);
        let watched = load(slot);
        if watched & ARMED != 0 {
            let its = Watched(watched);
            let here = address & ADDRESS;
            let overlap = its.address() < here.wrapping_add(size) && here < its.address() + its.size();
            let write = (its.kind() | kind) & WRITE != 0;
            let plain = its.kind() & kind & MARKED == 0;
            if overlap && write && plain {
                meet(slot, watched, address, size, kind);
            }
        }
        granule = granule.wrapping_add(1);
    }
    // SAFETY: no instruction, as in `access`.
    unsafe { asm!("", options(nomem, nostack, preserves_flags)) };
}

/// What an armed slot says.
#[derive(Clone, Copy)]
struct Watched(u64);

impl Watched {
    #[inline(always)]
    fn armed(address: u64, size: u64, kind: u64) -> u64 {
        ARMED | (kind << 53) | (size << 48) | (address & ADDRESS)
    }

    /// Its low 48 bits.
    #[inline(always)]
    fn address(self) -> u64 {
        self.0 & ADDRESS
    }

    #[inline(always)]
    fn size(self) -> u64 {
        (self.0 >> 48) & 31
    }

    #[inline(always)]
    fn kind(self) -> u64 {
        (self.0 >> 53) & 7
    }
}

/// Tells who armed the slot that this access met it, if nobody else did.
#[cold]
#[inline(never)]
#[sanitize(thread = "off")]
fn meet(slot: u64, watched: u64, address: u64, size: u64, kind: u64) {
    if !has_area() {
        return;
    }
    // The other one waits from the next step on.
    let flags = interrupts_off();
    if change(slot, watched, CLAIMED) {
        let stack = this_stack();
        store(stack + BUSY, 1);
        // Above this function are `look`, the hook, and the access.
        let party = Party { address, size, kind, stack: Stack::above(3) };
        let record = MET_BY.at() + (slot - WATCHPOINTS.at()) / 8 * size_of::<Party>() as u64;
        // SAFETY: the slot is claimed, and so its record is ours, aligned and in the table.
        unsafe { (record as *mut Party).write(party) };
        store(stack + BUSY, 0);
        store(slot, MET);
    }
    restore_interrupts(flags);
}

/// Makes a watchpoint of this access, and waits.
#[cold]
#[inline(never)]
#[sanitize(thread = "off")]
fn sample(address: u64, size: u64, kind: u64) {
    let stack = this_stack();
    let random = random();
    store(stack, SKIPPED + random % (2 * SKIPPED));
    let cycles = load(CYCLES.at());
    if cycles == 0 || size == 0 || load(stack + BUSY) != 0 {
        return;
    }
    let room = GRANULE - (address & (GRANULE - 1));
    let watched_size = if size < room { size } else { room };
    let slot = slot_of(address >> GRANULE_SHIFT);
    let watched = Watched::armed(address, watched_size, kind);
    let readable = kind & VOLATILE == 0;
    let before = if readable { value(address, watched_size) } else { 0 };
    if !change(slot, FREE, watched) {
        return;
    }
    store(stack + SAMPLES, load(stack + SAMPLES).wrapping_add(1));
    let longest = if interrupts_are_on() { WAIT } else { SHORT_WAIT };
    let wait = (longest / 4 + (random >> 16) % (longest / 4 * 3)) * cycles / 1024;
    let begun = tsc();
    while tsc().wrapping_sub(begun) < wait && load(slot) == watched {
        relax();
    }
    let after = if readable { value(address, watched_size) } else { 0 };
    let alone = change(slot, watched, FREE);
    if alone && (!has_area() || before == after || kind & MARKED != 0) {
        return;
    }
    let mut other = Party::NONE;
    if !alone {
        while load(slot) != MET {
            relax();
        }
        let record = MET_BY.at() + (slot - WATCHPOINTS.at()) / 8 * size_of::<Party>() as u64;
        // SAFETY: whoever met the watchpoint has written the record, and it is ours until the slot is free.
        other = unsafe { (record as *const Party).read() };
        store(slot, FREE);
        if !has_area() {
            return;
        }
    }
    // The task may have moved, but its stack has not.
    store(stack + BUSY, 1);
    // Above this function are the hook, and the access.
    let me = Party { address, size, kind, stack: Stack::above(2) };
    races::tell(me, if alone { None } else { Some(other) }, before, after);
    store(stack + BUSY, 0);
}

/// The first up to 8 of `size` bytes that the caller is about to access: as many as one load takes.
#[inline(always)]
fn value(address: u64, size: u64) -> u64 {
    let value: u64;
    // SAFETY: the access that is sampled comes next, and would fault as well; loads change nothing in memory.
    unsafe {
        match size {
            8.. => asm!("mov {}, [{}]", out(reg) value, in(reg) address, options(nostack, preserves_flags)),
            4.. => asm!("mov {:e}, [{}]", out(reg) value, in(reg) address, options(nostack, preserves_flags)),
            2.. => {
                asm!("movzx {:e}, word ptr [{}]", out(reg) value, in(reg) address, options(nostack, preserves_flags))
            }
            _ => {
                asm!("movzx {:e}, byte ptr [{}]", out(reg) value, in(reg) address, options(nostack, preserves_flags))
            }
        }
    }
    value
}

#[inline(always)]
fn tsc() -> u64 {
    let (low, high): (u64, u64);
    // SAFETY: reads the counter.
    unsafe { asm!("rdtsc", out("rax") low, out("rdx") high, options(nomem, nostack, preserves_flags)) };
    high << 32 | low
}

#[inline(always)]
fn random() -> u64 {
    // The low bits of a fast counter, spread over the word.
    tsc().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20
}

#[inline(always)]
fn relax() {
    // SAFETY: waits a little.
    unsafe { asm!("pause", options(nomem, nostack, preserves_flags)) };
}

#[inline(always)]
fn interrupts_are_on() -> bool {
    let flags: u64;
    // SAFETY: copies the flags.
    unsafe { asm!("pushfq", "pop {}", out(reg) flags, options(preserves_flags)) };
    flags & 0x200 != 0
}

#[inline(always)]
fn interrupts_off() -> u64 {
    let flags: u64;
    // SAFETY: the caller puts them back.
    unsafe { asm!("pushfq", "pop {}", "cli", out(reg) flags) };
    flags
}

#[inline(always)]
fn restore_interrupts(flags: u64) {
    if flags & 0x200 != 0 {
        // SAFETY: they were on.
        unsafe { asm!("sti", options(nostack)) };
    }
}

/// Whether this CPU knows which one it is: GS has been pointed to its area.
#[inline(always)]
fn has_area() -> bool {
    let (low, high): (u32, u32);
    // SAFETY: every x86_64 processor has this register (`IA32_GS_BASE`).
    unsafe {
        asm!("rdmsr", in("ecx") 0xc000_0101_u32, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags));
    }
    low | high != 0
}

macro_rules! hooks {
    ($($name:ident($size:literal, $kind:expr);)*) => {$(
        #[unsafe(no_mangle)]
        #[sanitize(thread = "off")]
        extern "C" fn $name(address: u64) {
            access(address, $size, $kind);
        }
    )*};
}

hooks! {
    __tsan_read1(1, 0);
    __tsan_read2(2, 0);
    __tsan_read4(4, 0);
    __tsan_read8(8, 0);
    __tsan_read16(16, 0);
    __tsan_write1(1, WRITE);
    __tsan_write2(2, WRITE);
    __tsan_write4(4, WRITE);
    __tsan_write8(8, WRITE);
    __tsan_write16(16, WRITE);
    __tsan_unaligned_read2(2, 0);
    __tsan_unaligned_read4(4, 0);
    __tsan_unaligned_read8(8, 0);
    __tsan_unaligned_read16(16, 0);
    __tsan_unaligned_write2(2, WRITE);
    __tsan_unaligned_write4(4, WRITE);
    __tsan_unaligned_write8(8, WRITE);
    __tsan_unaligned_write16(16, WRITE);
    __tsan_volatile_read1(1, MARKED | VOLATILE);
    __tsan_volatile_read2(2, MARKED | VOLATILE);
    __tsan_volatile_read4(4, MARKED | VOLATILE);
    __tsan_volatile_read8(8, MARKED | VOLATILE);
    __tsan_volatile_read16(16, MARKED | VOLATILE);
    __tsan_volatile_write1(1, MARKED | VOLATILE | WRITE);
    __tsan_volatile_write2(2, MARKED | VOLATILE | WRITE);
    __tsan_volatile_write4(4, MARKED | VOLATILE | WRITE);
    __tsan_volatile_write8(8, MARKED | VOLATILE | WRITE);
    __tsan_volatile_write16(16, MARKED | VOLATILE | WRITE);
    __tsan_unaligned_volatile_read2(2, MARKED | VOLATILE);
    __tsan_unaligned_volatile_read4(4, MARKED | VOLATILE);
    __tsan_unaligned_volatile_read8(8, MARKED | VOLATILE);
    __tsan_unaligned_volatile_read16(16, MARKED | VOLATILE);
    __tsan_unaligned_volatile_write2(2, MARKED | VOLATILE | WRITE);
    __tsan_unaligned_volatile_write4(4, MARKED | VOLATILE | WRITE);
    __tsan_unaligned_volatile_write8(8, MARKED | VOLATILE | WRITE);
    __tsan_unaligned_volatile_write16(16, MARKED | VOLATILE | WRITE);
    __tsan_vptr_read(8, 0);
}

#[unsafe(no_mangle)]
#[sanitize(thread = "off")]
extern "C" fn __tsan_vptr_update(address: u64, _new: u64) {
    access(address, 8, WRITE);
}

#[unsafe(no_mangle)]
#[sanitize(thread = "off")]
extern "C" fn __tsan_read_range(address: u64, size: u64) {
    access(address, size, 0);
}

#[unsafe(no_mangle)]
#[sanitize(thread = "off")]
extern "C" fn __tsan_write_range(address: u64, size: u64) {
    access(address, size, WRITE);
}

/// What a program's constructors would call. There are none here.
#[unsafe(no_mangle)]
extern "C" fn __tsan_init() {}

unsafe extern "C" {
    fn memcpy(to: u64, from: u64, count: u64) -> u64;
    fn memmove(to: u64, from: u64, count: u64) -> u64;
    fn memset(to: u64, byte: u32, count: u64) -> u64;
}

#[unsafe(no_mangle)]
#[sanitize(thread = "off")]
extern "C" fn __tsan_memcpy(to: u64, from: u64, count: u64) -> u64 {
    access(from, count, 0);
    access(to, count, WRITE);
    // SAFETY: what the caller asked for.
    unsafe { memcpy(to, from, count) }
}

#[unsafe(no_mangle)]
#[sanitize(thread = "off")]
extern "C" fn __tsan_memmove(to: u64, from: u64, count: u64) -> u64 {
    access(from, count, 0);
    access(to, count, WRITE);
    // SAFETY: what the caller asked for.
    unsafe { memmove(to, from, count) }
}

#[unsafe(no_mangle)]
#[sanitize(thread = "off")]
extern "C" fn __tsan_memset(to: u64, byte: u32, count: u64) -> u64 {
    access(to, count, WRITE);
    // SAFETY: what the caller asked for.
    unsafe { memset(to, byte, count) }
}
