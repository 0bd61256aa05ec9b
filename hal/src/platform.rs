//! The contract between concurrency algorithms and whatever they run on.
//!
//! `sync`, `timers` and `rcu` name nothing below them but this trait. Its functions are associated functions, not
//! methods: a platform is a type, chosen when the program is built, and calls through it are direct and inlined.
//!
//! [`Native`] is the platform of this build: the x86_64 machine, or host threads. A kernel that is not Quiesce writes its
//! own type and implements the trait; every aspect that an implementer must get right is said at the function.

use core::fmt::{self, Write};
use core::panic::Location;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64};

use crate::CpuId;
use crate::context::{Context, Counts};

/// Everything that concurrency algorithms need from the machine and the kernel around them.
///
/// Unless said otherwise each function may be called in every context (task, softirq, hardirq, NMI), never blocks and
/// costs a few instructions.
///
/// Nothing above the platform sees interrupts begin and end, so their entry is the platform's: with the interrupt flag
/// off it adds one to the interrupt depth and one unit of the kind ([`crate::context`]) to the preempt word, runs the
/// handler, and takes the unit away. Then it serves softirqs and reschedules, if the word and the interrupted code's
/// interrupt flag allow that, and takes its one from the depth. An NMI's entry does the counting and nothing else.
///
/// # Safety
/// Locks, per-CPU data and RCU are built on these promises; code above relies on them for memory safety:
/// * Between `preempt_disable` and the matching `preempt_enable`, and between `irq_disable` and `irq_enable`, the
///   execution stays on its CPU, and `cpu` and `record` keep their results.
/// * Between `migrate_disable` and `migrate_enable` the task stays on its CPU; others may run there in between.
/// * While interrupts are disabled, nothing but NMIs interrupts the execution on its CPU.
/// * Two CPUs that run at the same time have different `cpu` numbers, and different records. `record_of` gives for the
///   number of a CPU what `record` gives there, and records live for ever.
/// * `fence_heavy` and `fence_light` order memory as they say.
/// * `current_task` is unique among live tasks.
/// * `inheritance` points to what it says, which is dropped before the task's memory is used for something else.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a platform that Quiesce's crates can run on",
    label = "this type does not implement `hal::Platform`",
    note = "use `hal::Native` (needs hal's default feature `machine`), or implement `hal::Platform` for your kernel; \
            `hal/src/platform.rs` says what each function must do"
)]
pub unsafe trait Platform: Sized + 'static {
    // ---- CPUs ----

    /// The CPU that executes this call. Stale at once unless the caller is pinned to it. Linux: `raw_smp_processor_id`.
    fn cpu() -> CpuId;

    /// How many CPUs can exist: ids are `0..cpu_count()`. Constant after boot. Linux: `nr_cpu_ids`.
    fn cpu_count() -> u32;

    /// Whether `cpu` is running and takes interrupts. May change at any time unless the caller holds hotplug off.
    fn is_online(cpu: CpuId) -> bool;

    /// Interrupts `cpu`, which may be the caller's own, soon, so that it notices what was stored for it: a due reschedule,
    /// a raised softirq. Everything that the caller stored before is visible to what runs there. Does nothing for a CPU
    /// that is not online.
    /// Linux: `smp_send_reschedule`. Cost: one IPI.
    fn kick(cpu: CpuId);

    // ---- The preempt word (layout: `hal::context`) ----

    /// This CPU's preempt word.
    fn context() -> Context;

    /// Adds to the preempt word, in one step with regard to interrupts, and is a compiler barrier: accesses that follow
    /// stay behind it.
    fn preempt_add(units: u32);

    /// Subtracts from the preempt word, likewise a compiler barrier. Does not reschedule.
    fn preempt_sub(units: u32);

    /// Forbids preemption; nests, up to 255 levels. Linux: `preempt_disable`. Cost on x86_64: one instruction.
    #[inline(always)]
    fn preempt_disable() {
        Self::preempt_add(crate::context::PREEMPT_UNIT);
    }

    /// Undoes one `preempt_disable`, and reschedules if that was the outermost one, a reschedule is due and interrupts
    /// are on. With interrupts off it never does; the outermost `irq_enable`'s caller checks. Linux: `preempt_enable`.
    /// Cost on x86_64: two instructions.
    fn preempt_enable();

    /// Records that `cpu`'s task should be replaced. On the executing CPU it takes effect at the next preemption point;
    /// another CPU is also kicked. Linux: `resched_curr`.
    fn set_need_resched(cpu: CpuId);

    /// Takes the record back, for a scheduler that has just chosen. Only for the executing CPU.
    fn clear_need_resched();

    /// Keeps the current task on this CPU, without forbidding that others run here meanwhile; nests. The default forbids
    /// preemption, which is more, and all that a kernel without a scheduler needs. Linux: `migrate_disable`.
    #[inline(always)]
    fn migrate_disable() {
        Self::preempt_disable();
    }

    /// Undoes one `migrate_disable`. The default is a preemption point. Linux: `migrate_enable`.
    #[inline(always)]
    fn migrate_enable() {
        Self::preempt_enable();
    }

    // ---- Interrupts ----

    /// Turns interrupts off on this CPU and counts it. The interrupt flag is on exactly when the count is 0.
    /// Compiler barrier.
    fn irq_disable();

    /// Undoes one `irq_disable`; the outermost one turns interrupts on and returns `true`, upon which the caller may
    /// want to `check_resched`. Compiler barrier.
    fn irq_enable() -> bool;

    /// How many `irq_disable`s (and interrupts being served) are outstanding on this CPU. A CPU starts with 1, because it
    /// starts with interrupts off.
    fn irq_depth() -> u32;

    /// [`context`](Platform::context) and [`irq_depth`](Platform::irq_depth) as one number, to be compared with a later one.
    #[inline(always)]
    fn counts() -> Counts {
        Counts::new(Self::context(), Self::irq_depth())
    }

    /// Whether the [`counts`](Platform::counts) are these.
    #[inline(always)]
    fn counts_are(counts: Counts) -> bool {
        Self::counts() == counts
    }

    // ---- Waiting, time, order ----

    /// One turn of a spin loop: `pause`, and on hosts that simulate interrupts the place where they are delivered, so
    /// that two CPUs that wait for each other's interrupts get on. Every spin loop calls it. Linux: `cpu_relax`.
    fn relax();

    /// One turn of a spin loop that has lasted long, tens of microseconds: what is waited for may be a CPU that the
    /// host, which has fewer, is not running. A guest asks its hypervisor to run others, a host thread yields. Does as
    /// much as `relax`, and returns soon. The default is `relax`.
    ///
    /// Contexts: any. It is called with interrupts off and with locks held.
    #[inline]
    fn yield_to_host() {
        Self::relax();
    }

    /// A lock, named by its address, has been found taken, and the caller is about to wait for it. What is returned is
    /// given to [`lock_waited`](Platform::lock_waited) when the wait is over, on whatever CPU that is. The default does
    /// nothing. Linux: `trace_contention_begin`.
    ///
    /// Contexts: any that may wait for the lock: with interrupts off, with other locks held. It takes no locks.
    #[inline(always)]
    fn lock_contended(_lock: usize) -> u64 {
        0
    }

    /// The wait that [`lock_contended`](Platform::lock_contended) announced is over: the lock is held, or the caller has
    /// given up. Linux: `trace_contention_end`. Contexts: as there.
    #[inline(always)]
    fn lock_waited(_lock: usize, _begun: u64) {}

    /// A place at which another schedule might show a bug. Nothing in ordinary builds; see [`crate::chaos`].
    fn chaos_point();

    /// Nanoseconds since some moment at boot. Never goes back, on or across CPUs. Linux: `ktime_get`.
    fn now_ns() -> u64;

    /// The cheap side of an asymmetric fence: at least a compiler barrier. If one side executes `fence_light` and the
    /// other `fence_heavy`, they order memory as two full fences would. A platform that cannot, or need not, interrupt
    /// the others makes both of them full fences.
    fn fence_light();

    /// The dear side: a full fence that also acts on every CPU that may be between the accesses around a `fence_light`.
    /// Not in NMI. Linux: `smp_mb` with `sys_membarrier`.
    fn fence_heavy();

    /// This CPU's record. Valid while the caller stays on this CPU.
    fn record() -> NonNull<CpuRecord>;

    /// The record of `cpu`, which is or has been online. Valid for ever: a CPU that goes off-line keeps its record, at
    /// its place. Waiters in a lock's queue so find each other.
    fn record_of(cpu: CpuId) -> NonNull<CpuRecord>;

    // ---- What a scheduler provides ----

    /// The task that executes this call; in an interrupt the one that was interrupted.
    fn current_task() -> TaskId;

    /// The task that `cpu` is executing at this moment, for waiters that spin while it makes progress. Out of date at
    /// once. A platform that cannot say answers `None`, and nobody spins.
    fn running_on(_cpu: CpuId) -> Option<TaskId> {
        None
    }

    /// Whether the current task was asked to end. Asking includes waking it, so that it asks here after
    /// [`block`](Platform::block). A platform whose tasks cannot be cancelled answers `false`.
    fn is_cancelled() -> bool {
        false
    }

    /// A preemption point: replaces the running task if a reschedule is due, nothing forbids it and interrupts are on.
    /// Returns when this task runs again. Linux: `preempt_check_resched`.
    fn check_resched();

    /// A point at which the running task offers its CPU, for kernels that do not preempt tasks elsewhere: called when a
    /// reschedule is due and allowed. The default is [`check_resched`](Platform::check_resched).
    /// Linux: `__cond_resched`, `might_resched`.
    fn voluntary_resched(_point: ReschedPoint) {
        Self::check_resched();
    }

    /// Blocks the current task until it has been woken: consumes one wake-up, waiting for it if there was none since
    /// the last `block`. So a task that publishes itself, tests its condition and then blocks loses no wake-up.
    /// With a deadline (on the clock of `now_ns`) it returns [`Wakeup::TimedOut`] no earlier than then.
    ///
    /// Task context with interrupts and preemption on only. Linux: `schedule` in `TASK_UNINTERRUPTIBLE`.
    fn block(deadline_ns: Option<u64>) -> Wakeup;

    /// As [`block`](Platform::block) without a deadline, for a task that waits to be given something to do, or that can be
    /// told to give up: however long it takes, nothing is wrong. A platform that reports tasks which are blocked for long
    /// leaves these out. The default is `block`. Linux: `TASK_IDLE`, `TASK_INTERRUPTIBLE`.
    fn block_idle() -> Wakeup {
        Self::block(None)
    }

    /// Wakes `task`, now or at its next `block`. Wake-ups do not add up. Returns whether it was blocked. Everything that
    /// the caller did before is visible to the woken task. Not in NMI. Linux: `wake_up_process`.
    ///
    /// # Safety
    /// The task must not have ended.
    unsafe fn wake(task: TaskId) -> bool;

    /// How urgent `task` is by itself, without what it inherits. A platform without priorities answers the same for all.
    /// Linux: `task->normal_prio`.
    ///
    /// # Safety
    /// The task must not have ended.
    unsafe fn priority_of(_task: TaskId) -> Priority {
        Priority::LEAST
    }

    /// From here on `task` is to be scheduled as if it were at least as urgent as `priority`, because one that is so
    /// waits for it; replaces what it inherited before. [`Priority::LEAST`] ends the inheritance. The task may be running,
    /// waiting to run or blocked, on any CPU. Linux: `rt_mutex_setprio`.
    ///
    /// Task context; spin locks are held. The calls for one task come one after the other.
    ///
    /// # Safety
    /// The task must not have ended.
    unsafe fn set_inherited_priority(_task: TaskId, _priority: Priority) {}

    /// What `sync` keeps of `task` for the inheritance of priorities: a `sync::pi::Inheritance` of this platform, which
    /// the task's structure contains and which is dropped when the task has ended, before its memory is used for something
    /// else. `None`, which is the default, for all tasks or for none: then nothing is inherited.
    ///
    /// # Safety
    /// The task must not have ended.
    unsafe fn inheritance(_task: TaskId) -> Option<NonNull<()>> {
        None
    }

    /// Marks softirq `vector` (0..10) pending on this CPU; it is served when the CPU next leaves interrupt context or
    /// enables bottom halves, and soon if it is in neither. Linux: `raise_softirq`. Not in NMI.
    fn raise_softirq(vector: u32);

    /// Whether a softirq is pending on this CPU: the look that decides on the slow path where bottom halves are enabled.
    /// `true` when there may be one is allowed, and the default.
    #[inline(always)]
    fn softirqs_pending() -> bool {
        true
    }

    /// Serves this CPU's pending softirqs, if the context allows it: no interrupt is being served, bottom halves and
    /// interrupts are on (preemption may be off). Called at the outermost enabling of bottom halves.
    fn serve_softirqs();

    /// A section without bottom halves has ended, and softirqs may be pending that it held up: serves them, if that section was
    /// the outermost one; with interrupts off has this CPU interrupted when they come on, whose end serves. The default asks
    /// the functions above.
    fn serve_held_up_softirqs() {
        if Self::irq_depth() == 0 || Self::context().in_interrupt() {
            Self::serve_softirqs();
        } else {
            Self::kick(Self::cpu());
        }
    }

    /// Reports misuse, with context and backtrace as far as the platform has them. Returns, unless it cannot go on.
    fn report(report: &Report<'_>);
}

/// The name of a task: an address-sized number that is unique among live tasks, never 0 and a multiple of
/// [`ALIGN`](TaskId::ALIGN). The address of a task's structure is one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(transparent)]
pub struct TaskId(pub core::num::NonZeroUsize);

impl TaskId {
    /// What names are multiples of: locks keep their flags in the low bits of the owner's name.
    pub const ALIGN: usize = 8;
}

/// How urgent a task is, for scheduling: the greater comes first. What the numbers mean is the platform's choice, as long
/// as a task that inherits the number of another one runs as soon as that one would.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[repr(transparent)]
pub struct Priority(pub u32);

impl Priority {
    /// No task is less urgent. To inherit it is to inherit nothing.
    pub const LEAST: Priority = Priority(0);
}

/// Where a reschedule that is due was found. A kernel may decide by it whether the task is replaced there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReschedPoint {
    /// Preemption, bottom halves or interrupts were enabled.
    Enable,
    /// A function that may sleep was called.
    MaySleep,
    /// The task asked whether another one should run.
    Asked,
}

/// Why [`Platform::block`] returned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wakeup {
    /// Somebody called [`Platform::wake`].
    Woken,
    /// The deadline has passed.
    TimedOut,
}

/// What locks and their checker keep per CPU. The platform owns one for each CPU and hands out its address.
///
/// `held` belongs to the running task: a platform with tasks saves and restores it when it switches them.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct CpuRecord {
    /// Queue nodes of spinning lock waiters, one for each level that can interrupt the one before: task, softirq,
    /// hardirq, NMI.
    pub nodes: [QueueNode; 4],
    /// The running task's chain of held locks; the lock checker's.
    pub held: AtomicPtr<()>,
    /// Room for the lock checker's own per-CPU state.
    pub checker: AtomicPtr<()>,
    /// Since when interrupts are off, for whoever measures that.
    pub interrupts_off: Stretch,
    /// Since when bottom halves are off.
    pub bottom_halves_off: Stretch,
}

impl CpuRecord {
    /// A record in which nothing is held and nobody queues.
    pub const fn new() -> CpuRecord {
        CpuRecord {
            nodes: [const { QueueNode::new() }; 4],
            held: AtomicPtr::new(core::ptr::null_mut()),
            checker: AtomicPtr::new(core::ptr::null_mut()),
            interrupts_off: Stretch::new(),
            bottom_halves_off: Stretch::new(),
        }
    }
}

impl Default for CpuRecord {
    fn default() -> CpuRecord {
        CpuRecord::new()
    }
}

/// Since when something is switched off on a CPU, and who did it. Only its CPU touches it.
#[derive(Debug)]
pub struct Stretch {
    /// The moment on the clock of [`Platform::now_ns`]; 0: it is on, or nobody measures.
    pub since_ns: AtomicU64,
    /// The `Location` of who switched it off.
    pub at: AtomicPtr<Location<'static>>,
}

impl Stretch {
    /// Nothing is off.
    pub const fn new() -> Stretch {
        Stretch { since_ns: AtomicU64::new(0), at: AtomicPtr::new(core::ptr::null_mut()) }
    }
}

impl Default for Stretch {
    fn default() -> Stretch {
        Stretch::new()
    }
}

/// One waiter's place in a lock's queue. On a cache line of its own, because the waiter spins on it.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct QueueNode {
    /// The waiter behind, once it has announced itself, by the name that the lock gives to it; 0 is nobody.
    pub next: AtomicU32,
    /// Set by the waiter in front when it is this one's turn.
    pub turn: AtomicU32,
    /// Whether the node is in use, to detect a fifth level.
    pub busy: AtomicU32,
}

impl QueueNode {
    /// A node in no queue.
    pub const fn new() -> QueueNode {
        QueueNode { next: AtomicU32::new(0), turn: AtomicU32::new(0), busy: AtomicU32::new(0) }
    }
}

impl Default for QueueNode {
    fn default() -> QueueNode {
        QueueNode::new()
    }
}

/// How bad a [`Report`] is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Severity {
    /// A rule was broken and the operation was mended or refused; the system goes on. Printed as `WARNING:`.
    Warning,
    /// A rule was broken and the state may be wrong; the system goes on as well as it can. Printed as `BUG:`.
    Bug,
    /// Going on could corrupt memory: [`Platform::report`] does not return.
    Fatal,
}

/// One diagnostic: what is wrong and which line asked for it.
#[derive(Clone, Copy)]
pub struct Report<'a> {
    /// How bad it is.
    pub severity: Severity,
    /// Without `BUG:` in front. The first line says what is wrong, in words that can be searched for; the place is
    /// printed behind it. More lines may follow.
    pub message: fmt::Arguments<'a>,
    /// The user's line, from `#[track_caller]`.
    pub location: &'static Location<'static>,
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.severity {
            Severity::Warning => "WARNING",
            Severity::Bug | Severity::Fatal => "BUG",
        };
        let mut headline = Headline { out: f, location: Some(self.location) };
        write!(headline, "{word}: {}", self.message)?;
        match headline.location {
            Some(location) => write!(f, " at {location}"),
            None => Ok(()),
        }
    }
}

/// Passes text on, and puts the place at the end of the first line if there are several.
struct Headline<'a, 'b> {
    out: &'a mut fmt::Formatter<'b>,
    /// The place, until it was written.
    location: Option<&'static Location<'static>>,
}

impl Write for Headline<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.location.is_some()
            && let Some((first, rest)) = text.split_once('\n')
            && let Some(location) = self.location.take()
        {
            return write!(self.out, "{first} at {location}\n{rest}");
        }
        self.out.write_str(text)
    }
}

/// The platform of this build: the x86_64 machine when compiled for bare metal, host threads otherwise.
///
/// It can always be named. It implements [`Platform`] when the feature `machine` is on, which it is by default.
#[derive(Clone, Copy, Debug)]
pub enum Native {}
