//! RCU on two CPUs: what `rcu` asks of a kernel, and an exercise.
//!
//! This kernel's readers are regions without preemption, so that a CPU which reaches a preemption point is in none. Four
//! calls bind the tree: [`start_on_this_cpu`], [`quiescent`] at preemption points, [`on_tick`], and [`serve`], which calls
//! callbacks where softirqs are served. There is no task to spare for the grace periods: who waits for one takes its
//! steps, and so does the boot CPU's tick while callbacks wait.

use core::mem::MaybeUninit;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};

use hal::{CpuId, Platform};
use rcu::domain::check_may_wait;
use rcu::tree::{Action, Driver, Due, Geometry, Interrupted, Next, Node, PerCpu, Readers, Tree};
use rcu::{AtomicReaders, Callback, Cookie, Domain, Head};
use sync::context::{HardirqGuard, SoftirqGuard};
use sync::{Cpu, Irq, SpinLock, TaskCx};

use crate::exercises::Exercise;
use crate::platform::{CPUS, Own};

/// The softirq that calls callbacks, by its number.
const RCU_SOFTIRQ: u32 = 2;

// Two CPUs are one node.
static mut NODES: [Node<Own>; 1] = [Node::new()];
static mut PARTS: [PerCpu<Own>; CPUS] = [const { PerCpu::new() }; CPUS];
static mut TREE: MaybeUninit<Tree<'static, Own>> = MaybeUninit::uninit();
/// What takes grace periods from their beginning to their end. Callbacks' timer interrupts take steps too.
static DRIVER: SpinLock<Option<Driver<'static, 'static, Own>>, Irq<Own>> = SpinLock::new(None);

/// Makes the tree. On the boot CPU, before any other CPU runs.
pub(crate) fn prepare() {
    let (nodes, parts, tree) = (&raw mut NODES, &raw mut PARTS, &raw mut TREE);
    // SAFETY: the boot CPU is alone, and this is called once: nobody else refers to these statics, now or, but for the
    // tree, later.
    let (nodes, parts, tree) = unsafe { (&mut *nodes, &mut *parts, &mut *tree) };
    let shape = Geometry::new(CPUS as u32);
    let tree = tree.write(Tree::new(shape, Readers::NonPreemptible, nodes, parts));
    *DRIVER.lock() = Some(Driver::new(tree));
}

fn tree() -> &'static Tree<'static, Own> {
    let tree = &raw const TREE;
    // SAFETY: written by `prepare`, before other CPUs run and before interrupts come; only read since.
    unsafe { (*tree).assume_init_ref() }
}

/// The executing CPU may have readers from now on. Before its interrupts come.
pub(crate) fn start_on_this_cpu() {
    tree().cpu_up(Own::cpu().as_u32());
}

/// Does what the tree wants done. A driver that is wanted is found by who waits, or by the tick; so are ends.
fn act(due: Due) {
    if due.process {
        Own::raise_softirq(RCU_SOFTIRQ);
    }
    if due.reschedule {
        Own::set_need_resched(Own::cpu());
    }
}

/// A preemption point: preemption, bottom halves and interrupts are on, so that nobody reads here.
pub(crate) fn quiescent() {
    Own::preempt_add(1);
    act(tree().quiescent(Own::cpu().as_u32()));
    Own::preempt_sub(1);
}

/// The timer interrupt.
pub(crate) fn on_tick(_serving: &HardirqGuard<Own>) {
    // Whatever was interrupted may be a reader: no tick is a quiescent state here, and one that is waited for asks for
    // a preemption point.
    let interrupted = Interrupted::Kernel { preemptible: false, in_reader: false };
    act(tree().check_tick(Own::cpu().as_u32(), Own::now_ns(), interrupted));
}

/// Takes the steps of the grace period as far as they go, if nobody else does. In a task, outside of readers.
fn drive() {
    let here = Cpu::<Own>::disable_preemption();
    if let Some(mut driver) = DRIVER.try_lock()
        && let Some(driver) = driver.as_mut()
    {
        let act = |action| match action {
            Action::Nudge(cpu) | Action::Interrupt(cpu) => {
                CpuId::new(cpu).into_iter().for_each(Own::set_need_resched);
            }
            // Ticks do the rest, and who waits looks by himself.
            _ => (),
        };
        while driver.step(here.cpu().as_u32(), Own::now_ns(), act) == Next::Again {}
    }
}

/// The softirqs of this CPU whose bits are set.
pub(crate) fn serve(pending: u32, _serving: &SoftirqGuard<Own>) {
    if pending & 1 << RCU_SOFTIRQ != 0 {
        let cpu = Own::cpu().as_u32();
        act(tree().process(cpu));
        // SAFETY: a softirq, where callbacks of this kernel may be called.
        let ran = unsafe { tree().run_ready(cpu, |_| false) };
        act(ran.due);
        if ran.more {
            Own::raise_softirq(RCU_SOFTIRQ);
        }
    }
}

/// Drives until `done`, and lets what waits for a preemption point have one.
fn wait(mut done: impl FnMut() -> bool) {
    while !done() {
        drive();
        quiescent();
        Own::serve_softirqs();
        Own::relax();
    }
}

/// This kernel's readers and grace periods.
pub(crate) enum Grace {}

// SAFETY: readers are regions without preemption, and CPUs report at preemption points only, where no such region is. The
// rest is the tree's.
unsafe impl Domain for Grace {
    type Platform = Own;
    type Section = ();
    type State = Cookie;
    const NAME: &'static str = "other-kernel";

    fn read_lock() {
        Own::preempt_disable();
    }
    unsafe fn read_unlock((): ()) {
        Own::preempt_enable();
    }
    fn is_reading() -> bool {
        Own::context().preempt_depth() != 0
    }
    unsafe fn call(head: NonNull<Head>, function: Callback) {
        let here = Cpu::<Own>::disable_interrupts();
        // SAFETY: passed on.
        act(unsafe { tree().call(here.cpu().as_u32(), head, function) });
    }
    fn synchronize(cx: &mut TaskCx<Own>) {
        check_may_wait::<Grace>("synchronize");
        let state = Grace::start_poll();
        wait(|| Grace::poll(state));
        cx.cond_resched();
    }
    fn barrier(cx: &mut TaskCx<Own>) {
        check_may_wait::<Grace>("barrier");
        let state = tree().barrier_state();
        wait(|| {
            // Each CPU looks after its own callbacks, at its next tick at the latest.
            tree().barrier_done(state) || (tree().try_barrier(|_| ()), tree().barrier_done(state)).1
        });
        cx.cond_resched();
    }
    fn get_state() -> Cookie {
        tree().get_state()
    }
    fn start_poll() -> Cookie {
        let here = Cpu::<Own>::disable_interrupts();
        let (state, due) = tree().start_poll(here.cpu().as_u32());
        act(due);
        state
    }
    fn poll(state: Cookie) -> bool {
        tree().poll(state)
    }
}

// SAFETY: as above: a CPU does not report where preemption, bottom halves or interrupts are off.
unsafe impl AtomicReaders for Grace {}

// ---- The exercise ----

/// What is published: a number, until it is given up.
struct Object {
    value: AtomicU64,
    head: Head,
}

/// The value of an object that no reader may see.
const GIVEN_UP: u64 = u64::MAX;

// SAFETY: the head is used by who has taken the object out, and then by the tree.
unsafe impl Sync for Object {}

static OBJECTS: [Object; 8] = [const { Object { value: AtomicU64::new(GIVEN_UP), head: Head::new() } }; 8];
/// The objects that nobody has, a bit each.
static FREE: AtomicU32 = AtomicU32::new(0xff);
static PUBLISHED: AtomicPtr<Object> = AtomicPtr::new(core::ptr::null_mut());
static STOP: AtomicBool = AtomicBool::new(false);
static READS: AtomicU32 = AtomicU32::new(0);
static TOO_LATE: AtomicU32 = AtomicU32::new(0);
static FREED: AtomicU32 = AtomicU32::new(0);
static REPLACED: AtomicU32 = AtomicU32::new(0);

pub(crate) const EXERCISE: Exercise = Exercise { name: "grace periods", work, on_timer: None, judge };

fn work(cpu: CpuId) {
    if cpu == CpuId::BOOT { write() } else { read() }
}

/// # Safety
/// The head is an object's.
unsafe fn free(head: NonNull<Head>) {
    // SAFETY: by the contract; objects are static.
    give_back(unsafe { sync::container_of!(head, Object, head).as_ref() });
}

fn give_back(object: &Object) {
    object.value.store(GIVEN_UP, Ordering::Relaxed);
    FREED.fetch_add(1, Ordering::Relaxed);
    let bit = OBJECTS.iter().position(|other| core::ptr::eq(other, object)).unwrap_or(0);
    // Release: pairs with the Acquire in `write`.
    FREE.fetch_or(1 << bit, Ordering::Release);
}

fn write() {
    // SAFETY: a task in which nothing forbids waiting.
    let mut cx = unsafe { TaskCx::<Own>::new_in() };
    for turn in 0..400 {
        let mut free_ones = FREE.load(Ordering::Acquire);
        wait(|| {
            free_ones = FREE.load(Ordering::Acquire);
            free_ones != 0
        });
        let next = &OBJECTS[free_ones.trailing_zeros() as usize];
        FREE.fetch_and(free_ones & free_ones.wrapping_neg() ^ u32::MAX, Ordering::Relaxed);
        next.value.store(turn, Ordering::Relaxed);
        // Release: pairs with the Acquire in `read`.
        let former = PUBLISHED.swap(core::ptr::from_ref(next).cast_mut(), Ordering::AcqRel);
        // SAFETY: null, or one of the objects, which are static.
        let Some(former) = (unsafe { former.as_ref() }) else { continue };
        REPLACED.fetch_add(1, Ordering::Relaxed);
        if turn % 2 == 0 {
            Grace::synchronize(&mut cx);
            give_back(former);
        } else {
            // SAFETY: no reader finds it any more, it is static, and in no queue.
            unsafe { Grace::call(NonNull::from(&former.head), free) };
        }
    }
    Grace::barrier(&mut cx);
    STOP.store(true, Ordering::Relaxed);
}

fn read() {
    while !STOP.load(Ordering::Relaxed) {
        let section = rcu::read::<Grace>();
        // SAFETY: null, or one of the objects. Acquire: pairs with the Release in `write`.
        if let Some(object) = unsafe { PUBLISHED.load(Ordering::Acquire).as_ref() } {
            // Now and then for long, so that the writer comes round meanwhile.
            let looks = if READS.load(Ordering::Relaxed).is_multiple_of(16) { 20_000 } else { 50 };
            for _ in 0..looks {
                TOO_LATE
                    .fetch_add((object.value.load(Ordering::Relaxed) == GIVEN_UP).into(), Ordering::Relaxed);
                Own::relax();
            }
            READS.fetch_add(1, Ordering::Relaxed);
        }
        drop(section);
    }
}

fn judge() -> Result<u32, &'static str> {
    let count = |counter: &AtomicU32| counter.load(Ordering::Relaxed);
    if count(&TOO_LATE) != 0 {
        Err("a reader saw an object that had been given up")
    } else if count(&FREED) != count(&REPLACED) {
        Err("an object was not given up, or twice")
    } else if count(&READS) < 100 || count(&REPLACED) < 100 {
        Err("nothing was read, or nothing replaced")
    } else {
        Ok(0)
    }
}
