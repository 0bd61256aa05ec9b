//! What strikes from inside while loads run.

use alloc::string::String;
use alloc::vec::Vec;

use hal::cpumask::CpuMask;
use hal::x86_64::apic;
use hal::x86_64::layout::PAGE_SIZE;
use hal::{CpuId, Native, Platform};
use sync::TaskCx;

use super::control::{Random, Tally, error, set_paused};
use super::{MS, rcu};
use crate::hotplug::HotplugError;
use crate::memory::stacks::StackError;
use crate::memory::{self, refusals};
use crate::task::{Builder, JoinHandle, SpawnError};
use crate::testing::{comes_true_by_others, irq, nmi};
use crate::tick::{self, KeepTicks};
use crate::{cpus, hotplug};

/// Their names, and what they do.
pub(crate) const FAULTS: &[(&str, &str)] = &[
    ("hotplug", "CPUs but the boot CPU go and come back"),
    ("stutter", "everything pauses for 100 ms every second"),
    ("shuffle", "tasks are moved from CPU to CPU"),
    ("ticks", "every CPU ticks, and RCU reads and retires in each tick"),
    ("nmi", "CPUs send each other NMIs, in which RCU reads"),
    ("alloc", "one request for memory in four is refused for a while, and meanwhile tasks are started"),
];

/// What the error of a fault is told under.
pub(super) const NAME: &str = "faults";

/// Memory that is in use for nothing that the kernel could name, in bytes: neither heap nor stacks nor tables. Some bytes of
/// each block that the heap grew by are its own, and count here.
fn unnamed_bytes() -> i128 {
    let stats = memory::stats();
    let used = i128::from(stats.frames.total - stats.frames.free) * i128::from(PAGE_SIZE);
    used - i128::from(stats.heap.claimed) - i128::from(stats.stack_bytes) - i128::from(stats.table_bytes)
}

/// What was in use before a run, so that one can tell afterwards whether a refusal lost something.
pub(super) struct Accounts(i128);

impl Accounts {
    pub(super) fn begin() -> Accounts {
        Accounts(unnamed_bytes())
    }

    /// After all tasks of the run have ended.
    pub(super) fn close(self) {
        let lost_frames = || (unnamed_bytes() - self.0) / i128::from(PAGE_SIZE);
        // Stacks of tasks that have just ended are given back in parts.
        if !comes_true_by_others(|| lost_frames() == 0) {
            error(NAME, format_args!("{} frames more are in use, and for nothing", lost_frames()));
        }
    }
}

/// When the next one strikes, and how often they have.
struct Fault {
    on: bool,
    next_ns: u64,
    struck: u64,
}

impl Fault {
    fn new(on: bool) -> Fault {
        Fault { on, next_ns: Native::now_ns(), struck: 0 }
    }

    /// Whether it is time; the next time is after something below `most_ns`.
    fn is_due(&mut self, most_ns: u64, random: &mut Random) -> bool {
        let now = Native::now_ns();
        let due = self.on && now >= self.next_ns;
        if due {
            self.next_ns = now + random.next() % most_ns;
        }
        due
    }
}

/// The faults of a run.
pub(super) struct Faults {
    random: Random,
    hotplug: Fault,
    stutter: Fault,
    shuffle: Fault,
    nmi: Fault,
    alloc: Fault,
    paused: bool,
    /// The CPU that is gone.
    gone: Option<CpuId>,
    ticks: Option<KeepTicks>,
    /// How many CPUs the host had plugged in and pulled out before.
    plugged: (u64, u64),
}

impl Faults {
    pub(super) fn begin(names: &[String], seed: u64, with_rcu: bool) -> Faults {
        let is_on = |name: &str| names.iter().any(|other| other == name);
        if with_rcu {
            // NMIs may come from outside as well.
            nmi::set_hook(Some(|_| rcu::read_in_nmi()));
            if is_on("ticks") {
                irq::set_hook(irq::Source::Timer, Some(&rcu::ON_TICK));
            }
        }
        Faults {
            random: Random(seed),
            hotplug: Fault::new(is_on("hotplug")),
            stutter: Fault::new(is_on("stutter")),
            shuffle: Fault::new(is_on("shuffle")),
            nmi: Fault::new(is_on("nmi")),
            alloc: Fault::new(is_on("alloc")),
            paused: false,
            gone: None,
            ticks: is_on("ticks").then(tick::keep_all),
            plugged: hotplug::plug::counts(),
        }
    }

    /// What is due strikes.
    pub(super) fn step(&mut self, tasks: &[JoinHandle<()>], cx: &mut TaskCx) {
        if self.hotplug.is_due(60 * MS, &mut self.random) {
            self.change_cpus(cx);
        }
        if self.paused || self.stutter.is_due(2_000 * MS, &mut self.random) {
            self.stutter.struck += u64::from(!self.paused);
            self.paused = !self.paused;
            set_paused(self.paused);
            if self.paused {
                cx.block(Some(Native::now_ns() + 100 * MS));
            }
        }
        if self.shuffle.is_due(50 * MS, &mut self.random) {
            self.move_tasks(tasks);
        }
        if self.alloc.is_due(50 * MS, &mut self.random) {
            self.refuse(cx);
        }
        if self.nmi.is_due(20 * MS, &mut self.random) {
            let all: Vec<CpuId> = cpus::online().collect();
            apic::send_nmi_to_cpu(all[self.random.below(all.len())]);
            self.nmi.struck += 1;
        }
    }

    /// Starts tasks while memory is refused, also to the load. Each task is there, or there is an error that says why not.
    fn refuse(&mut self, cx: &mut TaskCx) {
        let before = refusals::refused();
        refusals::refuse_one_in(4, self.random.next());
        for number in 0..4_u64 {
            match Builder::new("wanted").spawn(move |_| number) {
                Ok(child) => {
                    let result = child.join(cx);
                    if result != number {
                        error(NAME, format_args!("a task returned {number}, and {result} came"));
                    }
                }
                Err(SpawnError::OutOfMemory | SpawnError::Stack(StackError::OutOfMemory)) => (),
                Err(other) => error(NAME, format_args!("memory was refused, and this is told: {other}")),
            }
        }
        refusals::refuse_one_in(0, 0);
        self.alloc.struck += refusals::refused() - before;
    }

    fn change_cpus(&mut self, cx: &mut TaskCx) {
        let changed = match self.gone.take() {
            Some(cpu) => hotplug::bring_online(cpu, cx).inspect_err(|error| {
                // The host may have pulled it out meanwhile, and may have plugged another one in.
                if !matches!(error, HotplugError::Absent(_) | HotplugError::Unchanged(..)) {
                    self.gone = Some(cpu);
                }
            }),
            None => {
                let others: Vec<CpuId> = cpus::online().filter(|cpu| *cpu != CpuId::BOOT).collect();
                let Some(cpu) = others.get(self.random.below(others.len())) else { return };
                hotplug::take_offline(*cpu, cx).inspect(|()| self.gone = Some(*cpu))
            }
        };
        self.hotplug.struck += u64::from(changed.is_ok());
    }

    /// Each may run on one of two CPUs, or anywhere. Those that were pinned when they started stay.
    fn move_tasks(&mut self, tasks: &[JoinHandle<()>]) {
        let all: Vec<CpuId> = cpus::online().collect();
        for handle in tasks {
            let task = handle.task();
            if task.affinity().iter().count() == 1 {
                continue;
            }
            let mask = match self.random.one_in(2) {
                true => all.iter().copied().collect(),
                false => {
                    let (a, b) = (self.random.below(all.len()), self.random.below(all.len()));
                    let other = if a == b { CpuId::BOOT } else { all[b] };
                    CpuMask::from_iter([all[a], other, CpuId::BOOT])
                }
            };
            // One that has just ended, or whose CPU has just gone, stays as it is.
            self.shuffle.struck += u64::from(task.set_affinity(&mask).is_ok());
        }
    }

    /// Undoes what is left of them. Returns how often they struck.
    pub(super) fn end(mut self, cx: &mut TaskCx) -> Vec<Tally> {
        irq::set_hook(irq::Source::Timer, None);
        nmi::set_hook(None);
        drop(self.ticks.take());
        if let Some(cpu) = self.gone.take() {
            let _ = hotplug::bring_online(cpu, cx);
        }
        let all = [
            ("hotplug", &self.hotplug),
            ("stutter", &self.stutter),
            ("shuffle", &self.shuffle),
            ("nmi", &self.nmi),
            ("alloc", &self.alloc),
        ];
        let alone = cpus::online_count() == 1;
        // The host's doing; whether it is enough, the host knows.
        let (plugged, unplugged) = hotplug::plug::counts();
        let outside = [("plugged", plugged - self.plugged.0), ("unplugged", unplugged - self.plugged.1)]
            .map(|(what, count)| Tally { what, count, least: 0 });
        all.into_iter()
            .filter(|(_, fault)| fault.on)
            .map(|(what, fault)| {
                // With one CPU nobody can go or be moved.
                let least = u64::from(!(alone && matches!(what, "hotplug" | "shuffle")));
                Tally { what, count: fault.struck, least }
            })
            .chain(outside.into_iter().filter(|tally| tally.count > 0))
            .collect()
    }
}
