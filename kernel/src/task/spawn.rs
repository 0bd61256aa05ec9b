//! Making tasks.

use core::alloc::Layout;
use core::cell::UnsafeCell;
use core::fmt;
use core::mem::ManuallyDrop;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering};

use hal::cpumask::CpuMask;
use hal::x86_64::fpu::Area;
use hal::x86_64::switch;
use hal::{CpuId, Native, Platform, percpu};
use sync::TaskCx;

use super::life::Life;
use super::record::{Origin, table};
use super::{JoinHandle, Name, Task, TaskRef};
use crate::memory::stacks::{GuardedStack, Owner, StackError};
use crate::sched;
use crate::sched::policy::Policy;

/// Why there is no new task. Nothing of it is left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SpawnError {
    /// No memory for its record.
    OutOfMemory,
    /// No stack.
    Stack(StackError),
    /// None of the CPUs that it may run on is online.
    NoCpu,
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SpawnError::OutOfMemory => f.write_str("no memory is left for another task"),
            SpawnError::Stack(error) => error.fmt(f),
            SpawnError::NoCpu => f.write_str("none of the CPUs that the task may run on is online"),
        }
    }
}

impl core::error::Error for SpawnError {}

/// Makes a task of `body`: of the fair class, on any CPU. It runs at once. Linux: `kthread_run`.
///
/// Contexts: task.
///
/// # Errors
/// See [`SpawnError`].
#[track_caller]
pub fn spawn<R, F>(name: &str, body: F) -> Result<JoinHandle<R>, SpawnError>
where
    R: Send + 'static,
    F: FnOnce(&mut TaskCx) -> R + Send + 'static,
{
    Builder::new(name).spawn(body)
}

/// What is to be special about a new task.
#[derive(Clone, Debug)]
#[must_use = "a builder makes no task before `spawn`"]
pub struct Builder {
    name: Name,
    policy: Policy,
    allowed: Option<CpuMask>,
    part_of: Option<CpuId>,
    pages: usize,
    vectors: bool,
}

/// Pages of a task's stack, unless it asks for others.
const STACK_PAGES: usize = 4;

impl Builder {
    /// A task with this name, of which the first [`Name::ROOM`] bytes are kept, and nothing special.
    pub fn new(name: &str) -> Builder {
        Builder::named(format_args!("{name}"))
    }

    /// As [`new`](Builder::new), with `format_args!`.
    pub fn named(name: fmt::Arguments<'_>) -> Builder {
        Builder {
            name: Name::new(name),
            policy: Policy::default(),
            allowed: None,
            part_of: None,
            pages: STACK_PAGES,
            vectors: false,
        }
    }

    /// It runs on `cpu` and nowhere else. Linux: `kthread_bind`.
    pub fn on(self, cpu: CpuId) -> Builder {
        self.affinity(CpuMask::of(cpu))
    }

    /// It is a part of `cpu`: it runs there and nowhere else, and waits while the CPU is not online.
    pub(crate) fn part_of(self, cpu: CpuId) -> Builder {
        Builder { part_of: Some(cpu), ..self.on(cpu) }
    }

    /// It runs on these CPUs. Linux: `set_cpus_allowed_ptr`.
    pub fn affinity(self, cpus: CpuMask) -> Builder {
        Builder { allowed: Some(cpus), ..self }
    }

    /// How it is scheduled.
    pub fn policy(self, policy: Policy) -> Builder {
        Builder { policy, ..self }
    }

    /// Its stack has this many pages of 4 KiB, instead of 4; at most [`MAX_PAGES`](crate::memory::stacks::MAX_PAGES).
    pub fn stack_pages(self, pages: usize) -> Builder {
        Builder { pages, ..self }
    }

    /// Whether it has vector registers of its own, which survive its being preempted and moved. Others reach them in
    /// sections ([`FpuGuard`](hal::x86_64::fpu::FpuGuard)) only. They begin as zero. Costs an [`Area`] of memory, and
    /// saving and loading at its switches.
    pub fn vector_state(self, vectors: bool) -> Builder {
        Builder { vectors, ..self }
    }

    /// Makes the task, which runs at once.
    ///
    /// Contexts: task.
    ///
    /// # Errors
    /// See [`SpawnError`].
    #[track_caller]
    pub fn spawn<R, F>(self, body: F) -> Result<JoinHandle<R>, SpawnError>
    where
        R: Send + 'static,
        F: FnOnce(&mut TaskCx) -> R + Send + 'static,
    {
        let allowed = self.allowed.unwrap_or_else(|| percpu::cpus().collect());
        let first = || sched::first_cpu(self.policy, &allowed);
        let cpu = self.part_of.or_else(first).ok_or(SpawnError::NoCpu)?;
        let vectors = self.vectors.then(Area::new).transpose().map_err(|_| SpawnError::OutOfMemory)?;
        let number = next_number();
        // SAFETY: the layout is not of size 0.
        let memory = unsafe { alloc::alloc::alloc(Whole::<F, R>::LAYOUT) };
        let Some(whole) = NonNull::new(memory.cast::<Whole<F, R>>()) else {
            return Err(SpawnError::OutOfMemory);
        };
        let stack = GuardedStack::new(self.pages, Owner::Task(number)).inspect_err(|_| {
            // SAFETY: allocated above with this layout, and nothing was written to it.
            unsafe { alloc::alloc::dealloc(memory, Whole::<F, R>::LAYOUT) }
        });
        let stack = stack.map_err(SpawnError::Stack)?;
        // SAFETY: the top of a fresh stack, which has more than a page.
        let saved = unsafe { switch::prepare(stack.top(), first_steps::<F, R>, whole.as_ptr() as usize) };
        let origin = Origin {
            number,
            name: self.name,
            policy: self.policy,
            allowed,
            cpu,
            stack: Some(stack),
            saved,
            vectors,
            life: Life::new(),
            is_part: self.part_of.is_some(),
            free: free::<F, R>,
        };
        // SAFETY: fresh memory of the type's layout, of which each part is written. One by one, because a task takes up much
        // of the stack of a CPU that makes its first ones.
        unsafe {
            let parts = whole.as_ptr();
            (&raw mut (*parts).task).write(Task::new(origin));
            (&raw mut (*parts).body).write(UnsafeCell::new(ManuallyDrop::new(body)));
            (&raw mut (*parts).result).write(UnsafeCell::new(None));
        }
        // SAFETY: written above. INVARIANT: the count that a new task begins with is the scheduler's, and goes to it.
        let task: &'static Task = unsafe { &whole.as_ref().task };
        let handle = JoinHandle {
            task: task.reference(),
            // SAFETY: a field of what was written above.
            result: unsafe { NonNull::new_unchecked((*whole.as_ptr()).result.get()) },
        };
        table().lock().push_back(task.reference());
        sched::admit(task);
        Ok(handle)
    }
}

fn next_number() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// All that a task is, in one piece of memory: whoever has its `Task` can reach the rest by its type.
#[repr(C)]
struct Whole<F, R> {
    task: Task,
    /// Taken when the task begins.
    body: UnsafeCell<ManuallyDrop<F>>,
    /// Written by the task when it ends, taken by its handle.
    result: UnsafeCell<Option<R>>,
}

impl<F, R> Whole<F, R> {
    const LAYOUT: Layout = Layout::new::<Whole<F, R>>();
}

/// # Safety
/// `task` is the first field of a `Whole<F, R>` from [`Builder::spawn`] to which nobody refers any more, and which has
/// run.
unsafe fn free<F, R>(task: NonNull<Task>) {
    let whole = task.cast::<Whole<F, R>>();
    // SAFETY: by the contract it is complete, and nobody has it. The body was taken when the task began.
    unsafe {
        whole.drop_in_place();
        alloc::alloc::dealloc(whole.as_ptr().cast(), Whole::<F, R>::LAYOUT);
    }
}

/// The first function on a task's stack: interrupts are off, and the run queue is locked.
extern "C" fn first_steps<F, R>(whole: usize) -> !
where
    F: FnOnce(&mut TaskCx) -> R,
{
    sched::finish_first_switch();
    // SAFETY: the argument that `spawn` prepared; the task runs, so that its memory is there.
    let whole = unsafe { &*(whole as *const Whole<F, R>) };
    // SAFETY: taken once, here.
    let body = unsafe { ManuallyDrop::take(&mut *whole.body.get()) };
    // SAFETY: this is where the task starts, and nothing is switched off.
    let mut cx = unsafe { TaskCx::new() };
    whole.task.life.begin();
    let result = body(&mut cx);
    whole.task.life.end();
    sync::context::might_sleep();
    // SAFETY: nobody else touches it before the completion below.
    unsafe { *whole.result.get() = Some(result) };
    whole.task.done.complete_all();
    sched::end()
}

/// Makes a task of the execution that runs on this CPU since its start: its idle task.
///
/// # Panics
/// If there is no memory.
pub(crate) fn adopt_boot_context() -> &'static Task {
    let cpu = Native::cpu();
    let task = Task::new(Origin {
        number: next_number(),
        name: Name::new(format_args!("idle/{cpu}")),
        policy: Policy::default(),
        allowed: CpuMask::of(cpu),
        cpu,
        stack: None,
        saved: 0,
        vectors: None,
        life: Life::new(),
        is_part: true,
        free: never_freed,
    });
    let task: &'static Task = alloc::boxed::Box::leak(alloc::boxed::Box::new(task));
    table().lock().push_back(task.reference());
    task
}

/// Idle tasks stay for ever, and so does the scheduler's reference to them.
unsafe fn never_freed(_: NonNull<Task>) {}

/// For messages: the task's number and name.
impl fmt::Display for TaskRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &**self)
    }
}
