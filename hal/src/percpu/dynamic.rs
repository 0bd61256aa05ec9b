//! Per-CPU variables that come and go at run time.
//!
//! Every area ends with [`DYNAMIC_BYTES`] of room. An allocation takes the same offset in all of them, so one number
//! finds the value of any CPU:
//!
//! 1. A bitmap says which granules are taken, in all areas alike.
//! 2. [`DynamicPerCpu::new`] takes a run of granules and constructs a value in the area of every CPU that has one.
//! 3. The allocation's constructor stays on record. An area that is installed later gets its values from the records
//!    before its CPU runs, so a live handle has a value for every CPU that can ask.
//!
//! Linux: `alloc_percpu` and `free_percpu`.

use core::cell::UnsafeCell;
use core::marker::PhantomData;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::area::{area_of, cpus, dynamic_offset, template_address, this_area};
use super::{AREA_ALIGN, Counters, IrqsOff, Pinned};
use crate::CpuId;
use crate::cpumask::AtomicCpuMask;

/// The room for dynamic variables in each area, in bytes.
pub const DYNAMIC_BYTES: usize = 8 * 1024;

/// The unit of allocation, in bytes.
const GRANULE: usize = 16;
const GRANULES: usize = DYNAMIC_BYTES / GRANULE;

/// The dynamic part of the areas has no gap that is long enough.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutOfPerCpuSpace {
    /// The bytes that were asked for.
    pub bytes: usize,
}

impl core::fmt::Display for OutOfPerCpuSpace {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "no {} bytes in a row are left of the {DYNAMIC_BYTES} for dynamic per-CPU variables; \
             put large data behind a pointer, or declare it with percpu!",
            self.bytes
        )
    }
}

impl core::error::Error for OutOfPerCpuSpace {}

/// A per-CPU variable that is made at run time: one `T` for each CPU, freed when the handle is dropped.
///
/// Values are made by the constructor that [`new`](Self::new) is given: at once for CPUs that have an area, and when
/// their area is installed for others. They are dropped with the handle; a handle that is leaked leaks its room.
///
/// ```
/// use core::sync::atomic::{AtomicU64, Ordering};
/// use hal::percpu::{self, DynamicPerCpu};
///
/// let _cpu = hal::hosted::bind()?;
/// let hits = DynamicPerCpu::new(|_cpu| AtomicU64::new(0))?;
/// for cpu in percpu::cpus() {
///     hits.on(cpu).fetch_add(1, Ordering::Relaxed);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Invariants
/// Granules `first..first + granules_of::<T>()` belong to this handle, and every CPU that is `READY` has a live `T`
/// there.
#[derive(Debug)]
pub struct DynamicPerCpu<T: 'static> {
    first: usize,
    values: PhantomData<T>,
}

// SAFETY: the handle owns its values, which may be dropped (so `T: Send`) by the thread that it is moved to.
unsafe impl<T: Send> Send for DynamicPerCpu<T> {}
// SAFETY: `get` and `on` share a `T` between CPUs only for `T: Sync`. `get_local` lets a CPU use its own `T`, made
// elsewhere, hence `T: Send`.
unsafe impl<T: Send> Sync for DynamicPerCpu<T> {}

impl<T: Send + 'static> DynamicPerCpu<T> {
    /// Makes a variable whose value on each CPU is `init(cpu)`.
    ///
    /// Contexts: task. Cost: O(room) for the search, and one `init` per CPU that has an area.
    ///
    /// `init` runs on the calling CPU for CPUs that have an area. For later ones it runs while their area is installed,
    /// with the book of allocations locked: it must not make or drop dynamic per-CPU variables.
    ///
    /// # Errors
    /// [`OutOfPerCpuSpace`] if no gap is long enough.
    pub fn new(init: fn(CpuId) -> T) -> Result<DynamicPerCpu<T>, OutOfPerCpuSpace> {
        const {
            assert!(
                align_of::<T>() <= AREA_ALIGN,
                "a per-CPU variable may be aligned to at most AREA_ALIGN bytes"
            )
        };
        let first = edit(|book| book.reserve(granules_of::<T>(), align_of::<T>()))
            .ok_or(OutOfPerCpuSpace { bytes: size_of::<T>() })?;
        let mut building = Building::<T> { first, built: AtomicCpuMask::new(), values: PhantomData };
        loop {
            let all_built = edit(|book| {
                let all = READY.iter().all(|cpu| building.built.test(cpu));
                if all {
                    book.records[first] = Some(Record { construct: construct::<T>, init: init as *const () });
                }
                all
            });
            if all_built {
                // INVARIANT: all ready CPUs have a value; later ones become ready under the lock, after they got one
                // from the record.
                core::mem::forget(building);
                return Ok(DynamicPerCpu { first, values: PhantomData });
            }
            for cpu in READY.iter() {
                building.build(cpu, init);
            }
        }
    }
}

impl<T: 'static> DynamicPerCpu<T> {
    /// This CPU's value. As [`PerCpu::get`](super::PerCpu::get).
    #[inline]
    pub fn get<'a>(&'a self, _proof: &'a (impl Pinned + ?Sized)) -> &'a T
    where
        T: Sync,
    {
        // SAFETY: the proof keeps us on this CPU, which runs and so was ready before; by the invariant it has a live
        // value, until the handle goes, which `'a` excludes. `T: Sync` allows sharing.
        unsafe { &*at::<T>(this_area(), self.first) }
    }

    /// This CPU's value, of a type that may not be shared. As [`PerCpu::get_local`](super::PerCpu::get_local).
    #[inline]
    pub fn get_local<'a>(&'a self, _proof: &'a (impl IrqsOff + ?Sized)) -> &'a T {
        // SAFETY: as in `get`; instead of `T: Sync`, interrupts are off, so no other access to this CPU's value, which
        // needs the same proof or `T: Sync`, happens meanwhile.
        unsafe { &*at::<T>(this_area(), self.first) }
    }

    /// The value of `cpu`. Cost: two loads more than [`get`](Self::get).
    ///
    /// # Panics
    /// If `cpu` has no area.
    #[inline]
    #[track_caller]
    pub fn on(&self, cpu: CpuId) -> &T
    where
        T: Sync,
    {
        match area_of(cpu).filter(|_| READY.test(cpu)) {
            // SAFETY: by the invariant a ready CPU has a live value while `self` is borrowed; `T: Sync`.
            Some(area) => unsafe { &*at::<T>(area, self.first) },
            None => panic!("CPU {cpu} has no per-CPU area"),
        }
    }

    /// The values of all CPUs that have one, in the order of their numbers. A CPU whose area is installed meanwhile may
    /// be left out. Linux: `for_each_possible_cpu` and `per_cpu_ptr`.
    pub fn iter(&self) -> impl Iterator<Item = (CpuId, &T)>
    where
        T: Sync,
    {
        READY.iter().map(|cpu| (cpu, self.on(cpu)))
    }
}

impl<const N: usize> DynamicPerCpu<[AtomicUsize; N]> {
    /// The variable, as [counters](Counters) that each CPU changes by one instruction.
    #[inline]
    pub fn counters(&self) -> Counters<'_, N> {
        // What leads to a CPU's array when its base is added.
        let link = at::<[AtomicUsize; N]>(template_address(), self.first);
        // INVARIANT: a CPU that runs was ready before, and ready CPUs have an array as long as the handle is borrowed.
        Counters { link, is_made: Some(|cpu| READY.test(cpu)), _values: PhantomData }
    }
}

impl<T: 'static> Drop for DynamicPerCpu<T> {
    fn drop(&mut self) {
        // With the record gone, no CPU that becomes ready from now on gets a value.
        let mut building =
            Building::<T> { first: self.first, built: AtomicCpuMask::new(), values: PhantomData };
        edit(|book| {
            book.records[self.first] = None;
            for cpu in READY.iter() {
                building.built.set(cpu);
            }
        });
        building.tear_down();
        core::mem::forget(building);
    }
}

/// An allocation with values for some CPUs; gives everything back when dropped.
///
/// # Invariants
/// The CPUs in `built` have a live `T`, which this value owns; so it does the granules.
struct Building<T> {
    first: usize,
    built: AtomicCpuMask,
    values: PhantomData<T>,
}

impl<T> Building<T> {
    fn build(&mut self, cpu: CpuId, init: fn(CpuId) -> T) {
        if self.built.test(cpu) {
            return;
        }
        let value = init(cpu);
        let area = area_of(cpu).expect("a ready CPU has an area");
        // SAFETY: the granules are ours by the invariant, large enough and aligned, and hold no value for `cpu` yet.
        unsafe { at::<T>(area, self.first).write(value) };
        self.built.set(cpu);
    }

    fn tear_down(&mut self) {
        for cpu in cpus() {
            if self.built.clear(cpu) {
                let area = area_of(cpu).expect("a ready CPU has an area");
                // SAFETY: the value is live and ours, and with its bit cleared nobody drops it again.
                unsafe { at::<T>(area, self.first).drop_in_place() };
            }
        }
        edit(|book| book.release(self.first, granules_of::<T>()));
    }
}

/// Runs when an `init` panics in the middle.
impl<T> Drop for Building<T> {
    fn drop(&mut self) {
        self.tear_down();
    }
}

const fn granules_of<T>() -> usize {
    if size_of::<T>() == 0 { 1 } else { size_of::<T>().div_ceil(GRANULE) }
}

/// Where the value that begins at granule `first` is in an area.
fn at<T>(area: usize, first: usize) -> *mut T {
    (area + dynamic_offset() + first * GRANULE) as *mut T
}

/// How to make one CPU's value of a live allocation.
#[derive(Clone, Copy)]
struct Record {
    construct: unsafe fn(*const (), CpuId, usize, usize),
    init: *const (),
}

/// # Safety
/// `init` is a `fn(CpuId) -> T`; the place is in `cpu`'s area, allocated for a `T`, and holds none.
unsafe fn construct<T>(init: *const (), cpu: CpuId, area: usize, first: usize) {
    // SAFETY: the caller passes what `new` stored.
    let init = unsafe { core::mem::transmute::<*const (), fn(CpuId) -> T>(init) };
    let value = init(cpu);
    // SAFETY: the caller says that the place is free and fits.
    unsafe { at::<T>(area, first).write(value) };
}

/// CPUs that have a value of every live allocation. Set under the book's lock.
static READY: AtomicCpuMask = AtomicCpuMask::new();

static BOOK: Locked = Locked { held: AtomicBool::new(false), book: UnsafeCell::new(Book::new()) };

/// Changes the book from a task. Not preempted meanwhile, or tasks that want the book would spin until it runs again.
fn edit<R>(f: impl FnOnce(&mut Book) -> R) -> R {
    #[cfg(feature = "machine")]
    let _pinned = {
        use crate::{Native, Platform};
        struct Unpin;
        impl Drop for Unpin {
            fn drop(&mut self) {
                Native::preempt_enable();
            }
        }
        Native::preempt_disable();
        Unpin
    };
    BOOK.lock(f)
}

crate::percpu_init!(supply);

/// Gives a new area its values.
fn supply(cpu: CpuId) {
    let area = area_of(cpu).expect("initializers run after the area was registered");
    BOOK.lock(|book| {
        for (first, record) in book.records.iter().enumerate() {
            if let Some(record) = record {
                // SAFETY: the record was stored for this place by `new`, and this CPU, not ready, has no value yet.
                unsafe { (record.construct)(record.init, cpu, area, first) };
            }
        }
        READY.set(cpu);
    });
}

/// How many of the [`DYNAMIC_BYTES`] are taken. Task context.
pub fn dynamic_used() -> usize {
    edit(|book| book.taken.iter().filter(|taken| **taken).count()) * GRANULE
}

/// Which granules are taken, and how to make values for the allocations that begin at them.
struct Book {
    taken: [bool; GRANULES],
    records: [Option<Record>; GRANULES],
}

impl Book {
    const fn new() -> Book {
        Book { taken: [false; GRANULES], records: [None; GRANULES] }
    }

    /// Takes the first gap of `count` granules that starts aligned.
    fn reserve(&mut self, count: usize, align: usize) -> Option<usize> {
        let step = align.div_ceil(GRANULE);
        let first = (0..GRANULES).step_by(step).find(|first| {
            self.taken.get(*first..first + count).is_some_and(|gap| gap.iter().all(|taken| !taken))
        })?;
        self.taken[first..first + count].fill(true);
        Some(first)
    }

    fn release(&mut self, first: usize, count: usize) {
        self.taken[first..first + count].fill(false);
    }
}

/// The book behind a lock of its own.
///
/// It cannot be one of the `Platform`'s making: area initializers take it for a CPU that does not run yet, so the lock
/// touches nothing per-CPU.
struct Locked {
    held: AtomicBool,
    book: UnsafeCell<Book>,
}

// SAFETY: `lock` hands the book to one caller at a time; records are plain function pointers.
unsafe impl Sync for Locked {}

impl Locked {
    fn lock<R>(&self, f: impl FnOnce(&mut Book) -> R) -> R {
        struct Unlock<'a>(&'a AtomicBool);
        impl Drop for Unlock<'_> {
            fn drop(&mut self) {
                // Release: pairs with the Acquire of the next holder.
                self.0.store(false, Ordering::Release);
            }
        }
        // Acquire: pairs with the Release of the former holder.
        while self.held.swap(true, Ordering::Acquire) {
            core::hint::spin_loop();
            #[cfg(not(target_os = "none"))]
            std::thread::yield_now();
        }
        let _unlock = Unlock(&self.held);
        // SAFETY: we hold the lock, and the reference ends with `f`.
        f(unsafe { &mut *self.book.get() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(test_support::cases(256)))]

        #[test]
        fn gaps_never_overlap_and_are_aligned(steps in prop::collection::vec((0..3u8, 1..40usize, 0..7u32), 1..60)) {
            let mut book = Book::new();
            let mut live: Vec<(usize, usize)> = Vec::new();
            for (kind, count, align_log) in steps {
                let align = 1 << align_log;
                if kind == 0 && !live.is_empty() {
                    let (first, count) = live.swap_remove(count % live.len());
                    book.release(first, count);
                } else if let Some(first) = book.reserve(count, align) {
                    prop_assert!(first + count <= GRANULES);
                    prop_assert_eq!(first * GRANULE % align, 0);
                    prop_assert!(live.iter().all(|(f, c)| first + count <= *f || f + c <= first));
                    live.push((first, count));
                } else {
                    // Refused only if no aligned gap is long enough.
                    let free = |i: usize| live.iter().all(|(f, c)| i < *f || f + c <= i);
                    let aligned = |f: &usize| (f * GRANULE).is_multiple_of(align);
                    let fits = (0..=GRANULES - count).filter(aligned).any(|f| (f..f + count).all(free));
                    prop_assert!(!fits);
                }
            }
            let taken: usize = live.iter().map(|(_, count)| count).sum();
            prop_assert_eq!(book.taken.iter().filter(|taken| **taken).count(), taken);
        }
    }
}
