//! What the kernel knows of a task.

use core::cell::UnsafeCell;
use core::fmt;
use core::mem::offset_of;
use core::num::NonZeroUsize;
use core::ops::Deref;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use hal::cpumask::CpuMask;
use hal::platform::TaskId;
use hal::x86_64::backtrace::Backtrace;
use hal::x86_64::fpu::Area;
use hal::x86_64::{reader, switch};
use hal::{CpuId, Native, Platform};
use sync::list::{Link, List, Owner};
#[cfg(any(feature = "lockdep", debug_assertions))]
use sync::lockdep::HeldStack;
use sync::pi::Inheritance;
use sync::{Completion, IrqSpinLock, RefCount, llist};

use super::life::Life;
use crate::memory::stacks::GuardedStack;
use crate::sched::Standing;
use crate::sched::policy::{Entity, Policy};
use crate::sched::sleepers::Sleeper;

/// The values of a task's state word.
pub(crate) mod state {
    /// Runs or wants to.
    pub(crate) const RUNNABLE: u32 = 0;
    /// Runs or wants to, and was woken since it last blocked.
    pub(crate) const NOTIFIED: u32 = 1;
    /// Waits to be woken.
    pub(crate) const BLOCKED: u32 = 2;
    /// Has ended.
    pub(crate) const ENDED: u32 = 3;
}

/// In the place of a CPU: the task is on its way from one to another.
pub(crate) const MOVING: u32 = u32::MAX;

/// What a task does, for people.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// On a CPU.
    Running,
    /// Waiting for a CPU.
    Ready,
    /// Waiting for something else.
    Blocked,
    /// Ended, and its record is still referred to.
    Ended,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            State::Running => "running",
            State::Ready => "ready",
            State::Blocked => "blocked",
            State::Ended => "ended",
        })
    }
}

/// A task's name, cut to [`Name::ROOM`] bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name {
    bytes: [u8; Name::ROOM],
    length: u8,
}

impl Name {
    /// How many bytes are kept.
    pub const ROOM: usize = 23;

    /// The name that `arguments` write, as much of it as there is room for.
    pub fn new(arguments: fmt::Arguments<'_>) -> Name {
        let mut name = Name { bytes: [0; Name::ROOM], length: 0 };
        // Never fails: what does not fit is left out.
        let _ = fmt::write(&mut name, arguments);
        name
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        let bytes = &self.bytes[..usize::from(self.length)];
        // A character that is cut is not there.
        match core::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => core::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or(""),
        }
    }
}

impl fmt::Write for Name {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let from = usize::from(self.length);
        let taken = text.len().min(Name::ROOM - from);
        self.bytes[from..from + taken].copy_from_slice(&text.as_bytes()[..taken]);
        self.length += taken as u8;
        Ok(())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// A task. Its address is its [`TaskId`].
///
/// # Invariants
/// * **T1**: while the task does not run, `saved` is where its registers are; it is written by the switch away from it
///   and read by the switch to it, both under the lock of the run queue of `cpu`.
/// * **T2**: who holds the lock of the run queue of a CPU and finds that CPU in `cpu` has the task's entity and sleeper for
///   itself. So `cpu` leaves a CPU under the lock of that one's queue, to [`MOVING`], and goes from there to another CPU
///   under the lock of its queue.
/// * **T3**: a task that is [`state::BLOCKED`] becomes runnable by one exchange of the state word, and who made that
///   exchange puts it into a queue.
/// * **T4**: the scheduler holds one reference of every task that has not been reaped.
#[repr(C, align(64))]
pub struct Task {
    // What a switch touches comes first.
    pub(crate) saved: UnsafeCell<u64>,
    pub(crate) state: AtomicU32,
    /// The CPU on which it runs, wants to or has run last.
    pub(crate) cpu: AtomicU32,
    pub(crate) entity: Entity,
    /// Why it is scheduled as it is.
    pub(crate) standing: IrqSpinLock<Standing>,
    /// Its place in the lists of preempted readers.
    pub(crate) reader: rcu::tree::Reader,
    /// Its word of [`hal::x86_64::reader`], while it does not run.
    pub(crate) reader_word: AtomicU32,
    /// What `sync` keeps of it for the inheritance of priorities.
    pub(crate) inheritance: Inheritance<Native>,
    pub(crate) sleeper: Sleeper,
    /// What [`block`](crate::sched::block) returns: the deadline ended the wait.
    pub(crate) timed_out: AtomicBool,
    pub(crate) cancelled: AtomicBool,
    /// It is blocked, or about to be, in a way that may take as long as it takes. Written by the task itself.
    pub(crate) excused: AtomicBool,
    /// What the watchdog for hung tasks remembers of it: a `Patience`.
    pub(crate) patience: AtomicU64,
    /// How many parties keep it on its CPU, while it does not run.
    pub(crate) migration_disabled: AtomicU32,
    /// It may run on its CPU only, so that there is nothing to choose. Belongs to whoever has the task by T2.
    pub(crate) bound: AtomicBool,
    /// It may not stay where it runs: the next switch away from it finds it another CPU.
    pub(crate) must_move: AtomicBool,
    /// Nanoseconds that it has run, up to the last switch, and when it was switched to.
    pub(crate) run_time: AtomicU64,
    pub(crate) since: AtomicU64,
    /// How often it was switched to.
    pub(crate) switches: AtomicU64,
    /// Where it may run. Belongs to whoever has the task by T2.
    pub(crate) allowed: UnsafeCell<CpuMask>,
    /// It is a part of its CPU, and comes and goes with it.
    pub(crate) is_part: bool,
    pub(super) references: RefCount,
    pub(super) number: u32,
    pub(super) name: Name,
    pub(super) done: Completion,
    pub(super) life: Life,
    pub(super) stack: IrqSpinLock<Option<GuardedStack>>,
    /// Where its vector registers are while it does not run, if it has any.
    pub(crate) vectors: Option<Area>,
    pub(super) all: Link,
    pub(super) dead: llist::Link,
    /// How to give back the memory that the record is a part of.
    pub(super) free: unsafe fn(NonNull<Task>),
    #[cfg(any(feature = "lockdep", debug_assertions))]
    pub(crate) held: HeldStack,
}

// SAFETY: `saved` is accessed as T1 says; the entity, the sleeper and the allowed CPUs as T2 says. Everything else is atomic, locked, or constant.
unsafe impl Sync for Task {}
// SAFETY: nothing in it belongs to the thread that made it.
unsafe impl Send for Task {}

sync::link_field! { pub(crate) struct AllTasks = Task => all: Link; }
sync::link_field! { pub(crate) struct DeadTasks = Task => dead: llist::Link; }

/// All tasks that have not been reaped.
type Table = IrqSpinLock<List<TaskRef, AllTasks>>;
static TABLE: Table = IrqSpinLock::new(List::new());

pub(crate) fn table() -> &'static Table {
    &TABLE
}

/// What is said when a task is made.
pub(super) struct Origin {
    pub(super) number: u32,
    pub(super) name: Name,
    pub(super) policy: Policy,
    pub(super) allowed: CpuMask,
    pub(super) cpu: CpuId,
    pub(super) stack: Option<GuardedStack>,
    pub(super) saved: u64,
    pub(super) vectors: Option<Area>,
    pub(super) life: Life,
    pub(super) is_part: bool,
    pub(super) free: unsafe fn(NonNull<Task>),
}

impl Task {
    /// A task that has one reference, the scheduler's, and is in no queue.
    pub(super) fn new(origin: Origin) -> Task {
        let Origin { number, name, policy, allowed, cpu, stack, saved, vectors, life, is_part, free } =
            origin;
        Task {
            saved: UnsafeCell::new(saved),
            state: AtomicU32::new(state::RUNNABLE),
            cpu: AtomicU32::new(cpu.as_u32()),
            entity: Entity::new(policy),
            standing: Standing::new(policy),
            reader: rcu::tree::Reader::new(),
            reader_word: AtomicU32::new(reader::AT_REST),
            inheritance: Inheritance::new(),
            sleeper: Sleeper::new(0, ()),
            timed_out: AtomicBool::new(false),
            cancelled: AtomicBool::new(false),
            excused: AtomicBool::new(false),
            patience: AtomicU64::new(0),
            migration_disabled: AtomicU32::new(0),
            bound: AtomicBool::new(allowed.weight() == 1),
            must_move: AtomicBool::new(false),
            run_time: AtomicU64::new(0),
            since: AtomicU64::new(0),
            switches: AtomicU64::new(0),
            allowed: UnsafeCell::new(allowed),
            is_part,
            references: RefCount::new(),
            number,
            name,
            done: Completion::new(),
            life,
            stack: IrqSpinLock::new(stack),
            vectors,
            all: Link::new(),
            dead: llist::Link::new(),
            free,
            #[cfg(any(feature = "lockdep", debug_assertions))]
            held: HeldStack::new(),
        }
    }

    /// The running task.
    ///
    /// The reference is good for as long as the task runs, which is longer than its own code can use it.
    #[inline(always)]
    pub(crate) fn current<'a>() -> &'a Task {
        // SAFETY: once a CPU has tasks the name of the running one is its address, and it is there while it runs.
        unsafe { &*(Native::current_task().0.get() as *const Task) }
    }

    /// # Safety
    /// `id` names a task whose record is still referred to.
    #[inline(always)]
    pub(crate) unsafe fn from_id<'a>(id: TaskId) -> &'a Task {
        // SAFETY: by the contract.
        unsafe { &*(id.0.get() as *const Task) }
    }

    /// # Safety
    /// `entity` is a task's.
    #[inline(always)]
    pub(crate) unsafe fn from_entity<'a>(entity: NonNull<Entity>) -> &'a Task {
        // SAFETY: by the contract it lies at its offset inside of a task.
        unsafe { entity.byte_sub(offset_of!(Task, entity)).cast().as_ref() }
    }

    #[inline(always)]
    pub(crate) fn entity(&self) -> NonNull<Entity> {
        NonNull::from(&self.entity)
    }

    /// The task's name in the contract.
    #[inline(always)]
    pub fn id(&self) -> TaskId {
        let address = core::ptr::from_ref(self) as usize;
        TaskId(NonZeroUsize::new(address).expect("a reference is not null"))
    }

    /// A counted reference.
    pub fn reference(&self) -> TaskRef {
        self.references.get();
        // INVARIANT: counted just now.
        TaskRef(NonNull::from(self))
    }

    /// Its number, which no other task has had or will have. `ps` shows it.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// The CPU on which it runs, waits to run, or ran last; out of date at once.
    pub fn cpu(&self) -> CpuId {
        CpuId::new(self.cpu.load(Ordering::Relaxed)).unwrap_or(CpuId::BOOT)
    }

    /// What it does; out of date at once.
    pub fn state(&self) -> State {
        match self.state.load(Ordering::Relaxed) {
            state::BLOCKED => State::Blocked,
            state::ENDED => State::Ended,
            _ if Native::running_on(self.cpu()) == Some(self.id()) => State::Running,
            _ => State::Ready,
        }
    }

    /// How it is scheduled at present, with what it may have inherited.
    pub fn policy(&self) -> Policy {
        self.entity.policy()
    }

    /// Changes how it is scheduled, from now on, unless it has inherited something more urgent; then from when that ends.
    /// Linux: `sched_setattr_nocheck`, `set_user_nice`. Contexts: task.
    pub fn set_policy(&self, policy: Policy) {
        crate::sched::set_policy(self, policy);
    }

    /// Changes where it may run. If it runs elsewhere it moves, at the latest at its next preemption point; if it does not
    /// run it is not on another CPU again. Linux: `set_cpus_allowed_ptr`. Contexts: task.
    ///
    /// # Errors
    /// [`SpawnError::NoCpu`](super::SpawnError::NoCpu) if none of these CPUs is online. Then nothing changes.
    pub fn set_affinity(&self, cpus: &CpuMask) -> Result<(), super::SpawnError> {
        crate::sched::set_affinity(self, cpus)
    }

    /// How long it has run, in nanoseconds, the present turn included. Contexts: any but NMI.
    pub fn run_time_ns(&self) -> u64 {
        crate::sched::run_time_ns(self)
    }

    /// How often it was given a CPU.
    pub fn switches(&self) -> u64 {
        self.switches.load(Ordering::Relaxed)
    }

    /// Where it may run. Contexts: task.
    pub fn affinity(&self) -> CpuMask {
        crate::sched::affinity(self)
    }

    /// Wakes it from [`park`](super::park), or lets its next `park` return at once. Contexts: any but NMI.
    pub fn unpark(&self) {
        crate::sched::wake(self);
    }

    /// Asks it to end: its cancellable waits end with an error, and [`is_cancelled`](super::is_cancelled) tells it so.
    /// Contexts: any but NMI. Linux: `kthread_stop`, which also waits; use [`join`](super::JoinHandle::join) for that.
    pub fn cancel(&self) {
        // Release: pairs with the Acquire in `is_cancelled`.
        self.cancelled.store(true, Ordering::Release);
        crate::sched::wake(self);
    }

    /// Whether it was asked to end.
    pub fn is_cancelled(&self) -> bool {
        // Acquire: pairs with the Release in `cancel`.
        self.cancelled.load(Ordering::Acquire)
    }

    /// Where it is, if it does not run; wrong, but harmless, if it starts to meanwhile.
    pub fn backtrace(&self) -> Backtrace {
        // SAFETY: a racy read of a word that is either where the registers are or was; the walk believes nothing.
        switch::backtrace(unsafe { self.saved.get().read_volatile() })
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task {} `{}`", self.number, self.name)
    }
}

/// A counted reference to the record of a task, running or ended.
///
/// # Invariants
/// The task's count of references counts this one.
pub struct TaskRef(NonNull<Task>);

// SAFETY: it gives `&Task`, and `Task` is `Sync`; the last one frees the record, which is nobody's thread's.
unsafe impl Send for TaskRef {}
// SAFETY: as above.
unsafe impl Sync for TaskRef {}

impl Deref for TaskRef {
    type Target = Task;

    fn deref(&self) -> &Task {
        // SAFETY: by the invariant the record is there.
        unsafe { self.0.as_ref() }
    }
}

impl Clone for TaskRef {
    fn clone(&self) -> TaskRef {
        self.reference()
    }
}

impl Drop for TaskRef {
    fn drop(&mut self) {
        if self.references.put() {
            let free = self.free;
            // SAFETY: by the invariant this was the last reference.
            unsafe { free(self.0) }
        }
    }
}

impl fmt::Debug for TaskRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

// SAFETY: a counted reference keeps the record in place and alive; the one that was taken apart keeps its count.
unsafe impl Owner for TaskRef {
    type Object = Task;
    const SHARED: bool = true;

    fn into_raw(self) -> NonNull<Task> {
        core::mem::ManuallyDrop::new(self).0
    }

    unsafe fn from_raw(task: NonNull<Task>) -> TaskRef {
        // INVARIANT: by the contract the count is that of the reference which was taken apart.
        TaskRef(task)
    }
}
