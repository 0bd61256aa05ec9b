//! The running machine, as the console sees it.

mod rcu;
mod tasks;
mod timers;
mod torture;
mod toys;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use hal::x86_64::layout::PAGE_SIZE;
use hal::x86_64::power::ExitStatus;
use hal::x86_64::{apic, clock, traps, vectors};
use hal::{CpuId, percpu};
use sync::TaskCx;

use crate::console::machine::{
    Cpu, Fact, Holds, Interrupt, Machine, Memory, PerCpuAreas, Softirqs, Summary, WorkPool, Works,
};
#[cfg(any(feature = "lockdep", debug_assertions))]
use crate::console::machine::{LockClass, Locks};
use crate::memory::map::Kind;
use crate::softirq::Vector;
use crate::watchdog::{holds, hung};
use crate::{
    boot, clock_watch, cpus, crash, hotplug, memory, panic, services, shutdown, snapshot, softirq, tick,
    trace, workqueue,
};

/// The machine that this kernel runs on.
#[derive(Clone, Copy, Debug)]
pub struct ThisMachine;

/// Vectors by which CPUs interrupt each other.
const FROM_CPUS: [u8; 3] = [vectors::KICK, vectors::CALL, vectors::TLB];

impl Machine for ThisMachine {
    fn summary(&self) -> Summary {
        let hypervisor = boot::features().and_then(|features| features.hypervisor);
        let host = hypervisor.map_or_else(|| String::from("no hypervisor"), |name| name.to_string());
        Summary {
            cpus: cpus::online_count(),
            memory: memory::stats().total(),
            machine: format!("x86_64 under {host}"),
        }
    }

    fn cpus(&self) -> Vec<Cpu> {
        percpu::cpus()
            .map(|cpu| {
                let area = percpu::area_of(cpu).map(|area| area as u64);
                Cpu {
                    number: cpu.as_u32(),
                    apic_id: apic::id_of(cpu),
                    state: cpus::state_name(cpu),
                    gs_base: area.map(|area| area.wrapping_sub(percpu::template_address() as u64)),
                    area,
                    frequency: clock::tsc_hz(),
                    ticks: tick::count(cpu),
                    ipis: FROM_CPUS.iter().map(|vector| traps::count(cpu, *vector)).sum(),
                }
            })
            .collect()
    }

    fn memory(&self) -> Memory {
        let stats = memory::stats();
        let image = stats.of(Kind::Kernel);
        let heap_free = stats.heap.free;
        let parts = [
            ("kernel image and records", image),
            ("heap", stats.heap.used),
            ("heap, held for later", heap_free),
            ("page tables", stats.table_bytes),
            ("stacks", stats.stack_bytes),
        ];
        let known: u64 = parts.iter().map(|(_, bytes)| bytes).sum();
        let mut used = Vec::from(parts);
        used.push(("other", stats.used().saturating_sub(known)));
        Memory {
            total: stats.total(),
            used,
            heap_free,
            largest_free: stats
                .frames
                .free_blocks
                .iter()
                .rposition(|blocks| *blocks != 0)
                .map_or(0, |order| PAGE_SIZE << order),
            map: memory::map_of_memory()
                .regions()
                .iter()
                .map(|r| (r.start, r.bytes(), r.kind.name()))
                .collect(),
        }
    }

    fn check_memory(&self, limit: u64) -> memory::check::Findings {
        memory::check::check(limit)
    }

    fn set_tracing(&self, on: bool) {
        if on { trace::start() } else { trace::stop() }
    }

    fn is_tracing(&self) -> bool {
        trace::is_on()
    }

    fn trace(&self, count: usize) -> trace::merge::Story {
        trace::tail(count)
    }

    fn interrupts(&self) -> Vec<Interrupt> {
        let online: Vec<CpuId> = cpus::online().collect();
        (0..=u8::MAX)
            .map(|vector| Interrupt {
                vector,
                name: traps::vector_name(vector),
                counts: online.iter().map(|cpu| traps::count(*cpu, vector)).collect(),
            })
            .filter(|interrupt| interrupt.counts.iter().any(|count| *count > 0))
            .collect()
    }

    fn softirqs(&self) -> Softirqs {
        let online: Vec<CpuId> = cpus::online().collect();
        let served = Vector::ALL.map(|vector| {
            let counts = online.iter().map(|cpu| softirq::served(*cpu)[vector as usize]);
            (vector.name(), counts.collect())
        });
        let left = ["rounds", "time", "other task due"]
            .into_iter()
            .enumerate()
            .map(|(reason, name)| (name, online.iter().map(|cpu| softirq::left(*cpu)[reason]).collect()));
        Softirqs { served: Vec::from(served), left: left.collect() }
    }

    fn works(&self) -> Works {
        let pools = workqueue::stats().into_iter().filter(|(_, stats)| stats.workers > 0);
        let mut works = Works::default();
        works.pools.extend(pools.map(|(cpu, stats)| WorkPool {
            cpu: cpu.map(CpuId::as_u32),
            workers: stats.workers,
            busy: stats.busy,
            waiting: stats.pending,
            executed: stats.executed,
        }));
        workqueue::for_each_queue(|queue| works.queues.push((queue.name(), workqueue::is_per_cpu(queue))));
        works
    }

    fn interrupt_digest(&self) -> u64 {
        tick::digest()
    }

    fn acpi(&self) -> Vec<Fact> {
        let Some(topology) = boot::topology() else {
            return Vec::from([("tables", String::from("none that can be believed; see dmesg"))]);
        };
        let mut facts = Vec::new();
        for table in &topology.tables {
            facts.push((
                "table",
                format!("{} at {:#x}, {} bytes", table.signature, table.address, table.length),
            ));
        }
        for processor in &topology.processors {
            facts.push(("processor", format!("APIC id {}, {:?}", processor.apic_id, processor.state)));
        }
        for info in &topology.io_apics {
            facts.push((
                "I/O APIC",
                format!("id {} at {:#x}, inputs from {}", info.id, info.address, info.gsi_base),
            ));
        }
        for route in &topology.overrides {
            facts.push((
                "override",
                format!(
                    "ISA {} is input {}, {:?}, {:?}",
                    route.irq, route.gsi, route.polarity, route.trigger
                ),
            ));
        }
        if let Some(hpet) = topology.hpet {
            facts.push(("HPET", format!("at {:#x}", hpet.address)));
        }
        facts
    }

    fn clock(&self) -> Vec<Fact> {
        let mut facts = Vec::from([
            ("clock", format!("{} at {}", clock::source(), clock::Mhz(clock::source_hz()))),
            ("time since boot", format!("{} ns", clock::now_ns())),
            ("TSC disagreement", format!("{} cycles", clock::tsc_warp())),
        ]);
        if let Some(info) = clock::info() {
            if let Some(tsc) = info.tsc {
                facts.push(("TSC", format!("{}, {}; {}", clock::Mhz(tsc.hz), tsc.origin, tsc.check)));
            }
            facts
                .push(("TSC invariant", String::from(if info.invariant_tsc { "yes" } else { "not stated" })));
            for reference in &info.references {
                facts.push(("reference", format!("{} at {}", reference.kind(), clock::Mhz(reference.hz()))));
            }
        }
        facts.extend(clock_watch::describe().into_iter().map(|source| ("source", source)));
        if let Some((timer, rate)) = apic::timer::get() {
            let known = match rate {
                apic::timer::Rate::Stated => "stated by the hypervisor",
                apic::timer::Rate::Measured(_) => "measured",
            };
            facts.push(("APIC timer", format!("{}, {}, {known}", clock::Mhz(timer.hz()), timer.mode())));
        }
        facts.push(("ticks a second", ::timers::HZ.to_string()));
        facts
    }

    fn per_cpu(&self) -> PerCpuAreas {
        PerCpuAreas {
            template: percpu::template_address() as u64,
            template_size: percpu::template_size() as u64,
            area_size: percpu::area_size() as u64,
            dynamic: percpu::DYNAMIC_BYTES as u64,
            dynamic_used: percpu::dynamic_used() as u64,
            areas: percpu::cpus()
                .filter_map(|cpu| Some((cpu.as_u32(), percpu::area_of(cpu)? as u64)))
                .collect(),
        }
    }

    #[cfg(any(feature = "lockdep", debug_assertions))]
    fn lock_dependencies(&self, classes: bool, out: &mut dyn fmt::Write) -> fmt::Result {
        crate::lockdep::write(classes, out)
    }

    #[cfg(any(feature = "lockdep", debug_assertions))]
    fn locks(&self) -> Option<Locks> {
        let place = |at: Option<&core::panic::Location<'_>>| at.map(|at| at.to_string());
        let classes = crate::lockdep::times().into_iter().map(|(name, times)| LockClass {
            name,
            contended: times.contended,
            waited_ns: times.waited_ns,
            longest_wait_ns: times.longest_wait_ns,
            longest_wait_at: place(times.longest_wait_at),
            holds: times.holds,
            held_ns: times.held_ns,
            longest_hold_ns: times.longest_hold_ns,
            longest_hold_at: place(times.longest_hold_at),
        });
        let checked = !boot::options().lockdep_off;
        checked.then(|| Locks { timing: crate::lockdep::is_timing(), classes: classes.collect() })
    }

    #[cfg(any(feature = "lockdep", debug_assertions))]
    fn set_lock_timing(&self, on: bool) {
        crate::lockdep::set_timing(on);
    }

    #[cfg(any(feature = "lockdep", debug_assertions))]
    fn reset_locks(&self) {
        crate::lockdep::reset_times();
    }

    fn holds(&self) -> Holds {
        let seen = holds::Kind::ALL.map(|kind| {
            let (count, longest) = holds::seen(kind);
            (kind.name(), count, longest)
        });
        Holds {
            limit_us: holds::limit_ns().map(|ns| ns / 1_000),
            locks: sync::lockdep::ENABLED && !boot::options().lockdep_off,
            seen: Vec::from(seen),
        }
    }

    fn set_holds_limit(&self, us: Option<u64>) {
        holds::set_limit_ns(us.map(|us| us * 1_000));
    }

    fn hung_limit(&self) -> Option<u64> {
        hung::hung_limit_ms().map(|ms| ms.div_ceil(1_000))
    }

    fn set_hung_limit(&self, seconds: Option<u64>) {
        hung::set_hung_limit_ms(seconds.map(|s| s * 1_000));
    }

    fn stuck_tasks(&self) -> Vec<(u32, String, u32, u64)> {
        let stuck = hung::stuck_tasks().into_iter();
        stuck.map(|(task, ms)| (task.number(), task.name().to_string(), task.cpu().as_u32(), ms)).collect()
    }

    fn backtrace(&self, cpu: Option<u32>, out: &mut dyn fmt::Write) -> fmt::Result {
        match cpu {
            Some(number) => match CpuId::new(number) {
                Some(cpu) => snapshot::print_cpu(out, cpu),
                None => writeln!(out, "there is no CPU {number}"),
            },
            None => {
                for cpu in cpus::online() {
                    snapshot::print_cpu(out, cpu)?;
                }
                Ok(())
            }
        }
    }

    fn crashes(&self) -> Vec<(&'static str, &'static str)> {
        crash::KINDS.iter().map(|kind| (kind.name, kind.help)).collect()
    }

    fn crash(&self, kind: &str) {
        crash::crash(kind);
    }

    fn set_cpu_online(&self, cpu: u32, online: bool, cx: &mut TaskCx) -> Result<(), String> {
        let Some(id) = CpuId::new(cpu) else { return Err(format!("there is no CPU {cpu}")) };
        let change = if online { hotplug::bring_online } else { hotplug::take_offline };
        change(id, cx).map_err(|error| error.to_string())
    }

    fn on_all_cpus(&self, work: &(dyn Fn(u32) + Sync)) {
        services::run_on_all(&|cpu| work(cpu.as_u32()));
    }

    fn power_off(&self, success: bool) {
        crate::log::drain();
        panic::end(if success { ExitStatus::Success } else { ExitStatus::Failure });
    }

    fn reboot(&self) {
        crate::log::drain();
        shutdown::reboot();
    }
}
