//! Memory: what is mapped and how, what all CPUs see of a change, and that nothing is handed out twice.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use hal::CpuId;
use hal::x86_64::layout::{self, DIRECT_MAP, DYNAMIC, IMAGE, PAGE_SIZE, Permissions, phys_to_virt};
use hal::x86_64::paging::{Features, MapError};
use hal::x86_64::traps::probe;
use hal::{Native, Platform};
use sync::{Irq, IrqSpinLock, Queued, RwLock, SpinLock, Ticketed};

use crate::memory::map::Kind;
use crate::memory::stacks::{self, GuardedStack, Owner};
use crate::memory::{self, shootdown};
use crate::{check, check_eq, cpus, kernel_test, sanitize, services, testing};

/// A generator of test values: a multiplicative congruential one, whose upper bits are good enough here.
struct Random(u64);

impl Random {
    fn new(cpu: CpuId) -> Random {
        Random(0x9e37_79b9_7f4a_7c15 ^ u64::from(cpu.as_u32()) << 32 | 1)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (self.0 >> 33) % bound
    }
}

kernel_test! {
    fn smoke_nothing_is_written_and_executed() {
        if !Features::detect().no_execute {
            crate::skip!("this CPU cannot forbid execution");
        }
        let view = memory::view();
        let text = layout::sections()[0].range.clone();
        let mut wrong = None;
        let mut pages = 0;
        view.visit_all(&mut |leaf| {
            pages += 1;
            let end = leaf.address + (leaf.size.bytes() - 1);
            let alias = view.leaf(DIRECT_MAP + leaf.physical);
            let bad = leaf.writable && leaf.executable
                || leaf.user
                || leaf.address < DIRECT_MAP
                || leaf.executable && !(text.contains(&leaf.address) && text.contains(&end))
                || leaf.executable && alias.is_none_or(|alias| alias.writable || alias.executable);
            if bad {
                wrong.get_or_insert(leaf);
            }
        });
        check!(wrong.is_none(), "{wrong:?}");
        check!(pages > 16, "only {pages} pages are mapped");
        Ok(())
    }
}

kernel_test! {
    fn smoke_the_image_is_mapped_as_it_is_used() {
        let view = memory::view();
        let all_executable = !Features::detect().no_execute;
        for section in layout::sections() {
            for page in section.range.clone().step_by(PAGE_SIZE as usize) {
                let (writable, executable) = match section.permissions {
                    Permissions::ReadExecute => (false, true),
                    Permissions::Read => (false, false),
                    Permissions::ReadWrite => (true, false),
                };
                for address in [page, page - IMAGE + DIRECT_MAP] {
                    let leaf = view.leaf(address);
                    check!(leaf.is_some(), "{} at {address:#x} is not mapped", section.name);
                    let executable = executable && address == page || all_executable;
                    check!(
                        leaf.is_some_and(|leaf| (leaf.writable, leaf.executable) == (writable, executable)),
                        "{} at {address:#x}: {leaf:?}", section.name
                    );
                }
            }
        }
        // And the hardware thinks so too.
        // SAFETY: the writes are refused, which is what is tested; should one be let through, it stores what is there.
        let write_back = |at: u64| unsafe { probe::write_u64(at, (at as *const u64).read_volatile()) };
        for section in layout::sections().iter().filter(|s| s.permissions != Permissions::ReadWrite && !s.range.is_empty()) {
            check!(!write_back(section.range.start), "{} can be written", section.name);
            check!(!write_back(section.range.start - IMAGE + DIRECT_MAP), "{} can be written by the direct map", section.name);
        }
        Ok(())
    }
}

kernel_test! {
    fn smoke_the_lower_half_is_empty() {
        let mut first = None;
        memory::view().visit(0..1 << 47, &mut |leaf| _ = first.get_or_insert(leaf));
        check!(first.is_none(), "{first:?}");
        check_eq!(probe::read_u64(0), None);
        check_eq!(probe::read_u64(0x1000), None);
        Ok(())
    }
}

kernel_test! {
    fn smoke_below_every_stack_is_nothing() {
        let view = memory::view();
        let all_executable = !Features::detect().no_execute;
        let mut count = 0;
        for (owner, stack) in stacks::stacks() {
            count += 1;
            for page in stack.clone().step_by(PAGE_SIZE as usize) {
                let leaf = view.leaf(page);
                check!(leaf.is_some_and(|leaf| leaf.writable && leaf.executable == all_executable), "{owner}: {leaf:?}");
            }
            let below = stack.start - 8;
            check!(view.leaf(below).is_none() && probe::read_u64(below).is_none(), "below {owner} is memory");
            check_eq!(stacks::guard_owner(below), Some(owner));
            check_eq!(stacks::guard_owner(stack.start), None);
        }
        check!(count >= cpus::online_count() * 6, "only {count} stacks");
        Ok(())
    }
}

kernel_test! {
    fn smoke_memory_used_stays_small() {
        let stats = memory::stats();
        // Records of frames, and shadow, grow with the machine, not with what is done on it.
        let used = stats.used() - stats.frames.metadata_bytes - sanitize::shadow_bytes();
        let allowed = (8 << 20) + cpus::online_count().saturating_sub(4) as u64 * (256 << 10);
        check!(used < allowed, "{} KiB are in use", used / 1024);
        Ok(())
    }
}

kernel_test! {
    limit_ms = 60_000,
    fn a_narrowed_permission_holds_on_every_cpu_at_once() {
        let Some(frame) = memory::allocate_frames(0) else { crate::skip!("no memory") };
        let page = phys_to_virt(frame) as u64;
        let narrowed = AtomicBool::new(false);
        let (early, late) = (AtomicU64::new(0), AtomicU64::new(0));
        let rounds = 8;
        let mut result = Ok(());
        for _ in 0..rounds {
            narrowed.store(false, Ordering::Relaxed);
            let changer = Native::cpu();
            let change = IrqSpinLock::<Result<(), MapError>>::new(Ok(()));
            services::run_on_all(&|cpu| {
                // Each CPU has its own word, and writes it all the time, so that its TLB says "may be written".
                let mine = page + (u64::from(cpu.as_u32()) % 512) * 8;
                if cpu == changer {
                    while early.load(Ordering::Relaxed) == 0 && cpus::online_count() > 1 {
                        Native::relax();
                    }
                    // SAFETY: the frame is this test's; nobody relies on being able to write to it.
                    let changed = unsafe { memory::protect(page..page + PAGE_SIZE, Permissions::Read) };
                    *change.lock() = changed;
                    // Release: pairs with the Acquire below.
                    narrowed.store(true, Ordering::Release);
                    // SAFETY: the word is this CPU's.
                    late.fetch_add(unsafe { probe::write_u64(mine, 1) }.into(), Ordering::Relaxed);
                    return;
                }
                for _ in 0..64 {
                    // Acquire: pairs with the Release above; a write after it must be refused.
                    let after = narrowed.load(Ordering::Acquire);
                    // SAFETY: the word is this CPU's.
                    let written = unsafe { probe::write_u64(mine, 1) };
                    early.fetch_add(u64::from(written && !after), Ordering::Relaxed);
                    late.fetch_add(u64::from(written && after), Ordering::Relaxed);
                    if !after {
                        Native::relax();
                    }
                }
                while !narrowed.load(Ordering::Acquire) {
                    Native::relax();
                }
                // SAFETY: the word is this CPU's.
                late.fetch_add(unsafe { probe::write_u64(mine, 1) }.into(), Ordering::Relaxed);
            });
            result = change.into_inner();
            if result.is_err() {
                break;
            }
            // SAFETY: as above; and only data is written.
            result = unsafe { memory::protect(page..page + PAGE_SIZE, Permissions::ReadWrite) };
            if result.is_err() {
                break;
            }
        }
        memory::free_frames(frame, 0);
        check_eq!(result, Ok(()));
        check_eq!(late.load(Ordering::Relaxed), 0);
        check!(early.load(Ordering::Relaxed) > 0 || cpus::online_count() == 1, "nobody wrote before");
        Ok(())
    }
}

kernel_test! {
    everywhere,
    limit_ms = 60_000,
    fn cpus_that_flush_each_other_with_interrupts_off_get_on(cpu) {
        let at = DYNAMIC.end - PAGE_SIZE * (1 + u64::from(cpu.as_u32()));
        for round in 0..20 {
            if round % 2 == 0 {
                let _off = sync::irq::disable();
                shootdown::flush_everywhere(at..at + PAGE_SIZE);
            } else {
                shootdown::flush_everywhere(at..at + PAGE_SIZE);
            }
        }
        Ok(())
    }
}

/// Whoever spins for the lock does so with interrupts off, and must answer all the same.
fn flush_under<G>(lock: impl Fn() -> G, cpu: CpuId) {
    let at = DYNAMIC.end - PAGE_SIZE * (1 + u64::from(cpu.as_u32()));
    for _ in 0..10 {
        let held = lock();
        shootdown::flush_everywhere(at..at + PAGE_SIZE);
        drop(held);
    }
}

kernel_test! {
    everywhere,
    limit_ms = 60_000,
    fn a_cpu_that_spins_with_interrupts_off_flushes_for_who_holds_the_lock(cpu) {
        static ADAPTIVE: IrqSpinLock<()> = IrqSpinLock::new(());
        static TICKETS: SpinLock<(), Ticketed<Irq>> = SpinLock::new(());
        static QUEUE: SpinLock<(), Queued<Irq>> = SpinLock::new(());
        static READERS: RwLock<(), Irq> = RwLock::new(());
        flush_under(|| ADAPTIVE.lock(), cpu);
        flush_under(|| TICKETS.lock(), cpu);
        flush_under(|| QUEUE.lock(), cpu);
        flush_under(|| READERS.write(), cpu);
        Ok(())
    }
}

kernel_test! {
    limit_ms = 60_000,
    fn frames_are_handed_out_once_however_many_ask() {
        let before = memory::stats().frames;
        let wrong = AtomicU64::new(0);
        services::run_on_all(&|cpu| {
            let mut random = Random::new(cpu);
            let mut held = [None; 12];
            for _ in 0..600 {
                let slot = random.below(held.len() as u64) as usize;
                match held[slot].take() {
                    Some((block, order, tag)) => {
                        for frame in 0..1_u64 << order {
                            let word = phys_to_virt(block + frame * PAGE_SIZE).cast::<u64>();
                            // SAFETY: the frame is this CPU's.
                            wrong.fetch_add(u64::from(unsafe { word.read_volatile() } != tag + frame), Ordering::Relaxed);
                        }
                        memory::free_frames(block, order);
                    }
                    None => {
                        let order = random.below(4) as usize;
                        let Some(block) = memory::allocate_frames(order) else { continue };
                        let tag = random.below(1 << 30) << 32 | u64::from(cpu.as_u32()) << 16;
                        for frame in 0..1_u64 << order {
                            let word = phys_to_virt(block + frame * PAGE_SIZE).cast::<u64>();
                            // SAFETY: the frame is this CPU's.
                            unsafe { word.write_volatile(tag + frame) };
                        }
                        held[slot] = Some((block, order, tag));
                    }
                }
            }
            for (block, order, _) in held.into_iter().flatten() {
                memory::free_frames(block, order);
            }
        });
        let after = memory::stats().frames;
        check_eq!(wrong.load(Ordering::Relaxed), 0);
        check_eq!(after.free, before.free);
        check!(after.allocations > before.allocations + 100, "{after:?}");
        Ok(())
    }
}

kernel_test! {
    everywhere,
    limit_ms = 60_000,
    fn the_heap_keeps_what_all_cpus_put_there(cpu) {
        let mut random = Random::new(cpu);
        let mut kept: Vec<Vec<u8>> = Vec::new();
        for step in 0..300_u64 {
            let fill = (step ^ u64::from(cpu.as_u32())) as u8;
            if kept.len() > 16 {
                let gone = kept.swap_remove(random.below(kept.len() as u64) as usize);
                check!(gone.iter().all(|byte| *byte == gone[0]), "somebody wrote into {} bytes", gone.len());
            }
            let mut new = Vec::new();
            new.resize(1 + random.below(3000) as usize, fill);
            new.resize(1 + random.below(3000) as usize, fill);
            kept.push(new);
        }
        check!(kept.iter().all(|block| block.iter().all(|byte| *byte == block[0])));
        Ok(())
    }
}

kernel_test! {
    limit_ms = 60_000,
    fn a_dropped_stack_is_gone_for_every_cpu() {
        // The first stack in a slot may need page tables and records, which stay.
        drop(GuardedStack::new(2, Owner::Task(1)));
        let before = memory::stats();
        let stack = match GuardedStack::new(2, Owner::Task(1)) {
            Ok(stack) => stack,
            Err(error) => crate::skip!("{error}"),
        };
        let last = stack.top() - 8;
        let read = |wanted: Option<u64>| {
            let wrong = AtomicU64::new(0);
            services::run_on_all(&|_| _ = wrong.fetch_add((probe::read_u64(last) != wanted).into(), Ordering::Relaxed));
            wrong.into_inner()
        };
        check_eq!(read(Some(0)), 0);
        drop(stack);
        check_eq!(read(None), 0);
        let after = memory::stats();
        check_eq!((after.frames.free, after.stacks), (before.frames.free, before.stacks));
        Ok(())
    }
}

kernel_test! {
    fn freeing_twice_is_reported_and_harmless() {
        let Some(frame) = memory::allocate_frames(0) else { crate::skip!("no memory") };
        memory::free_frames(frame, 0);
        let free = memory::stats().frames.free;
        testing::expect_report("is free already");
        memory::free_frames(frame, 0);
        check_eq!(memory::stats().frames.free, free);
        Ok(())
    }
}

kernel_test! {
    fn device_registers_are_uncached_and_memory_is_refused() {
        let ram = memory::map_of_memory().usable().next_back().map(|region| region.start);
        check_eq!(ram.map(|start| memory::map_mmio(start, 16)), Some(Err(MapError::BadRange)));
        check_eq!(memory::map_mmio(u64::MAX, 16), Err(MapError::BadRange));
        // An address at which the PC's firmware ends: never memory.
        check_eq!(memory::map_of_memory().kind_of(0xffff_f000).filter(|kind| *kind == Kind::Usable), None);
        let mapped = memory::map_mmio(0xffff_f010, 16);
        check!(mapped.is_ok(), "{mapped:?}");
        let leaf = mapped.ok().and_then(|at| memory::view().leaf(at.as_ptr() as u64));
        check!(leaf.is_some_and(|leaf| leaf.uncached && leaf.writable && leaf.physical == 0xffff_f000), "{leaf:?}");
        Ok(())
    }
}
