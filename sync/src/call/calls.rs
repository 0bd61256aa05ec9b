//! All CPUs' queues, and the ways to call.

use core::cell::Cell;
use core::fmt;
use core::marker::PhantomData;
use core::panic::Location;
use core::pin::Pin;
use core::sync::atomic::{AtomicU64, Ordering};

use hal::percpu::IrqsOff;
use hal::{CpuId, MAX_CPUS, Native, Platform};

use super::data::{CallData, Refusal, called};
use super::error::CallError;
use super::queue::CallQueue;
use super::waiting::{One, Round, Slot, Wait};
use crate::Cpu;

/// How long a CPU may take to answer before it is reported, unless said otherwise. Long, because the host may have taken
/// its core away.
const PATIENCE_NS: u64 = 10_000_000_000;

/// Calls that are under way to several CPUs at once; a round to more takes the room of those that have answered.
const WINDOW: usize = 16;

/// The calls between the CPUs of platform `P`: a value, of which a kernel has one.
///
/// It says when a CPU has to be interrupted, by the function that it was made with; the handler of that interrupt calls
/// [`serve`](Calls::serve). A CPU takes calls between [`open`](Calls::open) and [`close`](Calls::close).
///
/// The functions run in hardirq context with interrupts off, and on each CPU those of one sender in the order in which they
/// were sent. Everything that the sender did before is visible to them, and to the waiting sender everything that they did.
///
/// | | waits | context of the caller |
/// |---|---|---|
/// | [`single`](Calls::single), [`many`](Calls::many), [`others`](Calls::others), [`all`](Calls::all) | yes | task or softirq, interrupts on |
/// | [`queue`](Calls::queue), [`queue_pinned`](Calls::queue_pinned), [`queue_lazy`](Calls::queue_lazy) | no | any, NMI included |
///
/// Linux: `smp_call_function_single` and its kin. Size: 64 bytes for each possible CPU.
///
/// ```
/// use hal::{Native, Platform, hosted};
/// use sync::call::Calls;
///
/// static CALLS: Calls = Calls::new(|cpu| {
///     // On the hosted machine an interrupt is a function that the CPU's thread runs.
///     let _ = hosted::send_interrupt(cpu, || {
///         let quiet = sync::irq::disable();
///         CALLS.serve(&quiet);
///     });
/// });
///
/// hosted::run_cpus(2, |_| {
///     CALLS.open(Native::cpu());
///     let called = CALLS.all(|cpu| assert_eq!(cpu, Native::cpu())).unwrap();
///     assert!(called == 1 || called == 2); // the other CPU may not be there yet, or gone
///     CALLS.close(&sync::irq::disable());
/// });
/// ```
pub struct Calls<P: Platform = Native> {
    lines: [Line; MAX_CPUS],
    interrupt: fn(CpuId),
    patience_ns: AtomicU64,
    platform: PhantomData<fn() -> P>,
}

/// What belongs to one CPU, on a cache line of its own.
#[repr(align(64))]
struct Line {
    now: CallQueue,
    lazy: CallQueue,
    /// Functions that were called here. Written by the CPU alone.
    served: AtomicU64,
}

impl Line {
    const fn new() -> Line {
        Line { now: CallQueue::new(), lazy: CallQueue::new(), served: AtomicU64::new(0) }
    }
}

impl Calls {
    /// No CPU takes calls yet. `interrupt` makes a CPU, which may be the caller's, call [`serve`](Calls::serve) soon, in
    /// hardirq context; what was stored before is visible there. It may be called in every context.
    ///
    /// ```
    /// use hal::{Native, Platform};
    /// static CALLS: sync::call::Calls = sync::call::Calls::new(|_cpu| ());
    /// assert!(!CALLS.is_open(Native::cpu()));
    /// ```
    pub const fn new(interrupt: fn(CpuId)) -> Calls {
        Calls::new_in(interrupt)
    }
}

impl<P: Platform> Calls<P> {
    /// The same on the platform `P`. See [`new`](Calls::new).
    ///
    /// ```
    /// use hal::{Native, Platform};
    /// use sync::call::Calls;
    /// static CALLS: Calls<Native> = Calls::new_in(|_cpu| ());
    /// assert_eq!(CALLS.served(Native::cpu()), 0);
    /// ```
    pub const fn new_in(interrupt: fn(CpuId)) -> Calls<P> {
        Calls {
            lines: [const { Line::new() }; MAX_CPUS],
            interrupt,
            patience_ns: AtomicU64::new(PATIENCE_NS),
            platform: PhantomData,
        }
    }

    // ---- The CPUs ----

    /// Lets `cpu` be called. For the CPU itself when it goes on-line. Nothing if it takes calls already.
    ///
    /// ```
    /// # use hal::{Native, Platform};
    /// # static CALLS: sync::call::Calls = sync::call::Calls::new(|_| ());
    /// CALLS.open(Native::cpu());
    /// assert!(CALLS.is_open(Native::cpu()));
    /// # CALLS.close(&sync::irq::disable());
    /// ```
    pub fn open(&self, cpu: CpuId) {
        self.line(cpu).now.open();
        self.line(cpu).lazy.open();
    }

    /// Lets the executing CPU be called no more, and calls what was sent to it before, lazy ones included. For the CPU
    /// itself when it goes off-line.
    ///
    /// Contexts: interrupts off. The functions run here and now, in hardirq context.
    ///
    /// ```
    /// # use hal::{Native, Platform};
    /// use sync::call::{CallData, CallError, Calls};
    /// static CALLS: Calls = Calls::new(|_| ()); // an interrupt that is slow to come
    /// static NOTE: CallData = CallData::new(|| ());
    /// CALLS.open(Native::cpu());
    /// CALLS.queue(Native::cpu(), &NOTE).unwrap();
    /// CALLS.close(&sync::irq::disable());
    /// assert_eq!(CALLS.served(Native::cpu()), 1, "what was sent before");
    /// assert_eq!(CALLS.queue(Native::cpu(), &NOTE), Err(CallError::Offline(Native::cpu())));
    /// ```
    pub fn close(&self, quiet: &impl IrqsOff) {
        let line = self.line(P::cpu());
        // SAFETY: this CPU's queues, with interrupts off.
        unsafe {
            line.now.close();
            line.lazy.close();
        }
        self.serve_by_hand(quiet);
    }

    /// Whether `cpu` takes calls. Out of date at once. Any context.
    ///
    /// ```
    /// # use hal::{Native, Platform};
    /// # static CALLS: sync::call::Calls = sync::call::Calls::new(|_| ());
    /// CALLS.open(Native::cpu());
    /// assert!(CALLS.is_open(Native::cpu()));
    /// CALLS.close(&sync::irq::disable());
    /// assert!(!CALLS.is_open(Native::cpu()));
    /// ```
    pub fn is_open(&self, cpu: CpuId) -> bool {
        self.line(cpu).now.is_open()
    }

    /// How many functions `cpu` has been sent and called. Any context.
    ///
    /// ```
    /// # use hal::{Native, Platform};
    /// use sync::call::{CallData, Calls};
    /// static CALLS: Calls = Calls::new(|_| ());
    /// static NOTE: CallData = CallData::new(|| ());
    /// CALLS.open(Native::cpu());
    /// CALLS.queue(Native::cpu(), &NOTE).unwrap();
    /// assert_eq!(CALLS.served(Native::cpu()), 0);
    /// hal::hosted::send_interrupt(Native::cpu(), || CALLS.serve(&sync::irq::disable())).unwrap();
    /// assert_eq!(CALLS.served(Native::cpu()), 1);
    /// ```
    pub fn served(&self, cpu: CpuId) -> u64 {
        self.line(cpu).served.load(Ordering::Relaxed)
    }

    /// Calls what was sent to the executing CPU, in the order of sending. For the handler of the interrupt.
    ///
    /// Contexts: hardirq, not NMI. Cost: one load if there is nothing.
    ///
    /// ```
    /// # use hal::{Native, Platform};
    /// use sync::call::{CallData, Calls};
    /// static CALLS: Calls = Calls::new(|_| ());
    /// static NOTE: CallData = CallData::new(|| assert!(sync::context::in_hardirq()));
    /// CALLS.open(Native::cpu());
    /// CALLS.queue(Native::cpu(), &NOTE).unwrap();
    /// hal::hosted::send_interrupt(Native::cpu(), || CALLS.serve(&sync::irq::disable())).unwrap();
    /// assert!(!NOTE.is_pending());
    /// ```
    pub fn serve(&self, quiet: &impl IrqsOff) {
        let line = self.line(P::cpu());
        self.drain(&line.now, line, quiet);
    }

    /// Calls what was sent to the executing CPU with [`queue_lazy`](Calls::queue_lazy). For the handler of an interrupt that
    /// comes now and then by itself: the tick's.
    ///
    /// Contexts: hardirq, not NMI. Cost: one load if there is nothing.
    ///
    /// ```
    /// # use hal::{Native, Platform};
    /// use sync::call::{CallData, Calls};
    /// static CALLS: Calls = Calls::new(|_| ());
    /// static NOTE: CallData = CallData::new(|| ());
    /// CALLS.open(Native::cpu());
    /// CALLS.queue_lazy(&NOTE).unwrap();
    /// let tick = || {
    ///     let quiet = sync::irq::disable();
    ///     CALLS.serve(&quiet);
    ///     assert!(NOTE.is_pending());
    ///     CALLS.serve_lazy(&quiet);
    ///     assert!(!NOTE.is_pending());
    /// };
    /// hal::hosted::send_interrupt(Native::cpu(), tick).unwrap();
    /// ```
    pub fn serve_lazy(&self, quiet: &impl IrqsOff) {
        let line = self.line(P::cpu());
        self.drain(&line.lazy, line, quiet);
    }

    /// Whether something waits for [`serve_lazy`](Calls::serve_lazy) on the executing CPU: for a kernel whose tick stops now
    /// and then.
    ///
    /// Contexts: any. Cost: two loads. Exact in a context from which nothing is sent meanwhile, NMIs included.
    ///
    /// ```
    /// # use hal::{Native, Platform};
    /// use sync::call::{CallData, Calls};
    /// static CALLS: Calls = Calls::new(|_| ());
    /// static NOTE: CallData = CallData::new(|| ());
    /// CALLS.open(Native::cpu());
    /// assert!(!CALLS.has_lazy());
    /// CALLS.queue_lazy(&NOTE).unwrap();
    /// assert!(CALLS.has_lazy());
    /// # CALLS.close(&sync::irq::disable());
    /// ```
    pub fn has_lazy(&self) -> bool {
        self.line(P::cpu()).lazy.has_some()
    }

    fn drain(&self, queue: &CallQueue, line: &Line, _quiet: &impl IrqsOff) {
        // SAFETY: this CPU's queue, with interrupts off; what is taken is run.
        while let Some(entry) = unsafe { queue.pop::<P>() } {
            // Relaxed: only this CPU writes, with interrupts off.
            line.served.store(line.served.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
            P::chaos_point();
            // SAFETY: it came out of the queue just now.
            unsafe { (entry.as_ref().run)(entry) };
        }
    }

    /// Serves where no interrupt handler does.
    pub(super) fn serve_by_hand(&self, quiet: &impl IrqsOff) {
        {
            // SAFETY: interrupts are off, counted, for as long as the proof is borrowed.
            let _serving = unsafe { Cpu::<P>::enter_hardirq() };
            self.serve(quiet);
            if !self.is_open(P::cpu()) {
                self.serve_lazy(quiet);
            }
        }
        softirqs_after_by_hand::<P>();
    }

    fn line(&self, cpu: CpuId) -> &Line {
        &self.lines[cpu.index()]
    }

    // ---- Waiting for the answer ----

    /// Calls `function` on `cpu`, waits until it is done, and returns its result. On the executing CPU it is called
    /// directly.
    ///
    /// Linux: `smp_call_function_single` with `wait`. Contexts: task or softirq, with interrupts on; otherwise it is
    /// reported. May be called with preemption off and spin locks held that the function does not take. Does not sleep. Cost:
    /// an interrupt and its way there and back.
    ///
    /// # Errors
    /// [`CallError::Offline`], [`CallError::InNmi`].
    ///
    /// # Panics
    /// On a machine that unwinds: if the function panicked.
    ///
    /// ```
    /// # use hal::{Native, Platform};
    /// # use sync::call::{CallError, Calls};
    /// # static CALLS: Calls = Calls::new(|_| ());
    /// let here = Native::cpu();
    /// assert_eq!(CALLS.single(here, || sync::context::in_hardirq()), Ok(true));
    /// let other = hal::CpuId::new(here.as_u32() + 1).unwrap();
    /// assert_eq!(CALLS.single(other, || ()), Err(CallError::Offline(other)));
    /// ```
    #[doc(alias = "smp_call_function_single")]
    #[track_caller]
    pub fn single<R: Send>(&self, cpu: CpuId, function: impl FnOnce() -> R + Send) -> Result<R, CallError> {
        let at = Location::caller();
        let _here = Cpu::<P>::disable_preemption();
        if cpu == P::cpu() {
            return match P::context().in_nmi() {
                true => Err(CallError::InNmi),
                false => Ok(self.run_here(function, at)),
            };
        }
        One::call(self, cpu, function, at)
    }

    /// Calls `function` on each of `cpus`, the executing one included if it is among them, with the CPU's number, and waits
    /// until all are done. It runs on several at the same time.
    ///
    /// Linux: `smp_call_function_many`, `on_each_cpu_mask`. Contexts: as for [`single`](Calls::single). Cost: an interrupt for
    /// each other CPU, and the time of the slowest.
    ///
    /// # Errors
    /// [`CallError::Offline`] names the first that was not called; all others were. [`CallError::InNmi`].
    ///
    /// # Panics
    /// As for [`single`](Calls::single).
    ///
    /// ```
    /// # use hal::{Native, Platform, cpumask::CpuMask};
    /// # use sync::call::{CallError, Calls};
    /// # static CALLS: Calls = Calls::new(|_| ());
    /// let here = Native::cpu();
    /// assert_eq!(CALLS.many(&CpuMask::of(here), |cpu| assert_eq!(cpu, here)), Ok(()));
    /// let other = hal::CpuId::new(here.as_u32() + 1).unwrap();
    /// assert_eq!(CALLS.many(&CpuMask::of(other), |_| ()), Err(CallError::Offline(other)));
    /// ```
    #[doc(alias("smp_call_function_many", "on_each_cpu_mask"))]
    #[track_caller]
    pub fn many(
        &self,
        cpus: impl IntoIterator<Item = CpuId>,
        function: impl Fn(CpuId) + Sync,
    ) -> Result<(), CallError> {
        let at = Location::caller();
        let _here = Cpu::<P>::disable_preemption();
        match self.round(cpus.into_iter(), &function, at)? {
            (_, None) => Ok(()),
            (_, Some(offline)) => Err(CallError::Offline(offline)),
        }
    }

    /// Calls `function` on every CPU that takes calls but the executing one, waits until all are done, and returns how many
    /// they were. A CPU that comes or goes at this moment may have been called or not.
    ///
    /// Linux: `smp_call_function`. Contexts, cost and panics: as for [`many`](Calls::many).
    ///
    /// # Errors
    /// [`CallError::InNmi`].
    ///
    /// ```
    /// # use hal::{Native, Platform};
    /// # static CALLS: sync::call::Calls = sync::call::Calls::new(|_| ());
    /// CALLS.open(Native::cpu());
    /// assert_eq!(CALLS.others(|_| unreachable!("no other CPU takes calls")), Ok(0));
    /// ```
    #[doc(alias = "smp_call_function")]
    #[track_caller]
    pub fn others(&self, function: impl Fn(CpuId) + Sync) -> Result<u32, CallError> {
        let at = Location::caller();
        let _here = Cpu::<P>::disable_preemption();
        let me = P::cpu();
        self.round(self.open_cpus().filter(|cpu| *cpu != me), &function, at).map(|(count, _)| count)
    }

    /// Calls `function` on every CPU that takes calls, and on the executing one in any case, waits until all are done, and
    /// returns how many they were. A CPU that comes or goes at this moment may have been called or not.
    ///
    /// Linux: `on_each_cpu`. Contexts, cost and panics: as for [`many`](Calls::many).
    ///
    /// # Errors
    /// [`CallError::InNmi`].
    ///
    /// ```
    /// # use hal::{Native, Platform};
    /// # static CALLS: sync::call::Calls = sync::call::Calls::new(|_| ());
    /// let seen = sync::SpinLock::<Vec<hal::CpuId>>::new(Vec::new());
    /// assert_eq!(CALLS.all(|cpu| seen.lock().push(cpu)), Ok(1));
    /// assert_eq!(seen.into_inner(), [Native::cpu()]);
    /// ```
    #[doc(alias = "on_each_cpu")]
    #[track_caller]
    pub fn all(&self, function: impl Fn(CpuId) + Sync) -> Result<u32, CallError> {
        let at = Location::caller();
        let _here = Cpu::<P>::disable_preemption();
        let me = P::cpu();
        let cpus = self.open_cpus().filter(|cpu| *cpu != me).chain([me]);
        self.round(cpus, &function, at).map(|(count, _)| count)
    }

    fn open_cpus(&self) -> impl Iterator<Item = CpuId> {
        (0..P::cpu_count()).filter_map(CpuId::new).filter(|cpu| self.is_open(*cpu))
    }

    /// One function on several CPUs, the executing one last. Returns how many ran it and the first that is off-line.
    fn round<F: Fn(CpuId) + Sync>(
        &self,
        cpus: impl Iterator<Item = CpuId>,
        function: &F,
        at: &'static Location<'static>,
    ) -> Result<(u32, Option<CpuId>), CallError> {
        let wait = Wait::begin(self, core::any::type_name::<F>(), at)?;
        let me = P::cpu();
        let round = Round::new(function, at);
        // Used in turn, so that the next one is the one that has been under way for longest.
        let slots: [Slot<'_, F, P>; WINDOW] = core::array::from_fn(|_| Slot::new(&round));
        let (mut count, mut offline, mut here) = (0, None, false);
        for cpu in cpus {
            if cpu == me {
                here = true;
                continue;
            }
            let slot = &slots[count as usize % WINDOW];
            slot.wait(&wait);
            // SAFETY: the slots stay in place until they are dropped, which waits.
            match unsafe { slot.send(&self.line(cpu).now, cpu) } {
                Ok(true) => (self.interrupt)(cpu),
                Ok(false) => {}
                Err(_) => {
                    offline = offline.or(Some(cpu));
                    continue;
                }
            }
            count += 1;
        }
        if here {
            self.run_here(|| function(me), at);
            count += 1;
        }
        slots.iter().for_each(|slot| slot.wait(&wait));
        Ok((count, offline))
    }

    /// Calls on the executing CPU, in the context in which it would be called on others.
    fn run_here<R>(&self, function: impl FnOnce() -> R, at: &'static Location<'static>) -> R {
        let name = core::any::type_name_of_val(&function);
        let result = {
            let _quiet = Cpu::<P>::disable_interrupts();
            // SAFETY: interrupts are off, counted, and the guard goes before they come on.
            let _serving = unsafe { Cpu::<P>::enter_hardirq() };
            called::<P, _>(function, name, at)
        };
        softirqs_after_by_hand::<P>();
        result
    }

    /// Sends a descriptor that the caller keeps in place until it has run, and waits for nothing.
    ///
    /// # Safety
    /// `entry` was claimed, and stays valid and in place until its `run` was called.
    pub(super) unsafe fn send(
        &self,
        cpu: CpuId,
        entry: core::ptr::NonNull<super::queue::Entry>,
    ) -> Result<(), CallError> {
        // SAFETY: by the contract.
        match unsafe { self.line(cpu).now.push::<P>(entry) } {
            Ok(first) => {
                if first {
                    (self.interrupt)(cpu);
                }
                Ok(())
            }
            Err(_) => Err(CallError::Offline(cpu)),
        }
    }

    pub(super) fn interrupt(&self, cpu: CpuId) {
        (self.interrupt)(cpu);
    }

    // ---- Not waiting ----

    /// Has `cpu`, which may be the executing one, call the descriptor's function soon, and does not wait for it.
    ///
    /// Linux: `smp_call_function_single_async`, `irq_work_queue`, `irq_work_queue_on`. Contexts: any, NMI included. Cost: two
    /// atomic operations, and an interrupt if nothing was waiting for the CPU.
    ///
    /// # Errors
    /// [`CallError::Pending`]: nothing was done, and a run that begins later sees what the caller did before.
    /// [`CallError::Offline`].
    ///
    /// ```
    /// # use hal::{Native, Platform, hosted};
    /// use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
    /// use sync::call::{CallData, CallError, Calls};
    /// # static CALLS: Calls = Calls::new(|cpu| { let _ = hosted::send_interrupt(cpu, || CALLS.serve(&sync::irq::disable())); });
    ///
    /// static SEEN: AtomicU32 = AtomicU32::new(0);
    /// static LOOK: CallData = CallData::new(|| { SEEN.fetch_add(1, Relaxed); });
    ///
    /// CALLS.open(Native::cpu());
    /// let quiet = sync::irq::disable();
    /// assert_eq!(CALLS.queue(Native::cpu(), &LOOK), Ok(()));
    /// assert_eq!(CALLS.queue(Native::cpu(), &LOOK), Err(CallError::Pending));
    /// drop(quiet); // here the interrupt comes
    /// assert_eq!(SEEN.load(Relaxed), 1);
    /// ```
    #[doc(alias("smp_call_function_single_async", "irq_work_queue", "irq_work_queue_on"))]
    pub fn queue<F: Fn() + Sync + 'static>(
        &self,
        cpu: CpuId,
        data: &'static CallData<F, P>,
    ) -> Result<(), CallError> {
        // SAFETY: what is borrowed for ever does not move or end.
        unsafe { self.queue_in_place(cpu, data, &self.line(cpu).now, |cpu| (self.interrupt)(cpu)) }
    }

    /// As [`queue`](Calls::queue) to the executing CPU, for a kernel that has a shorter way to interrupt that: by `interrupt`,
    /// which is called on it, if it has to be, and may be called in every context.
    ///
    /// Linux: `irq_work_queue`. Contexts: any, NMI included. Cost: two atomic operations and the interrupt.
    ///
    /// # Errors
    /// As for [`queue`](Calls::queue).
    ///
    /// ```
    /// # use hal::{Native, Platform};
    /// use sync::call::{CallData, CallError, Calls};
    /// # fn interrupt_this_cpu() {}
    /// static CALLS: Calls = Calls::new(|_| unreachable!("no other CPU is interrupted"));
    /// static NOTE: CallData = CallData::new(|| ());
    /// CALLS.open(Native::cpu());
    /// assert_eq!(CALLS.queue_here(&NOTE, || interrupt_this_cpu()), Ok(()));
    /// assert_eq!(CALLS.queue_here(&NOTE, || interrupt_this_cpu()), Err(CallError::Pending));
    /// hal::hosted::send_interrupt(Native::cpu(), || CALLS.serve(&sync::irq::disable())).unwrap();
    /// assert!(!NOTE.is_busy());
    /// ```
    #[inline]
    pub fn queue_here<F: Fn() + Sync + 'static>(
        &self,
        data: &'static CallData<F, P>,
        interrupt: impl FnOnce(),
    ) -> Result<(), CallError> {
        let _here = Cpu::<P>::disable_preemption();
        let cpu = P::cpu();
        // SAFETY: as in `queue`.
        unsafe { self.queue_in_place(cpu, data, &self.line(cpu).now, |_| interrupt()) }
    }

    /// The same for a descriptor that is pinned: in a `Pin<Arc<_>>`, or a part of something pinned. See
    /// [`queue`](Calls::queue).
    ///
    /// # Errors
    /// As for [`queue`](Calls::queue).
    ///
    /// ```
    /// # use hal::{Native, Platform};
    /// use std::sync::Arc;
    /// use sync::call::{CallData, Calls};
    /// # static CALLS: Calls = Calls::new(|_| ());
    /// CALLS.open(Native::cpu());
    /// let note = Arc::pin(CallData::new(|| ()));
    /// CALLS.queue_pinned(Native::cpu(), note.as_ref()).unwrap();
    /// assert!(note.is_pending());
    /// hal::hosted::send_interrupt(Native::cpu(), || CALLS.serve(&sync::irq::disable())).unwrap();
    /// assert!(!note.is_busy());
    /// ```
    pub fn queue_pinned<F: Fn() + Sync + 'static>(
        &self,
        cpu: CpuId,
        data: Pin<&CallData<F, P>>,
    ) -> Result<(), CallError> {
        // SAFETY: what is pinned stays in place until it is dropped.
        unsafe { self.queue_in_place(cpu, data.get_ref(), &self.line(cpu).now, |cpu| (self.interrupt)(cpu)) }
    }

    /// Has the executing CPU call the descriptor's function at its next tick: for what is not urgent and not worth an
    /// interrupt of its own.
    ///
    /// Linux: `IRQ_WORK_LAZY`. Contexts: any, NMI included. Cost: two atomic operations.
    ///
    /// # Errors
    /// As for [`queue`](Calls::queue).
    ///
    /// ```
    /// # use hal::{Native, Platform};
    /// use sync::call::{CallData, CallError, Calls};
    /// static CALLS: Calls = Calls::new(|_| unreachable!("nobody is interrupted"));
    /// static NOTE: CallData = CallData::new(|| ());
    /// CALLS.open(Native::cpu());
    /// assert_eq!(CALLS.queue_lazy(&NOTE), Ok(()));
    /// assert_eq!(CALLS.queue_lazy(&NOTE), Err(CallError::Pending));
    /// // The tick:
    /// hal::hosted::send_interrupt(Native::cpu(), || CALLS.serve_lazy(&sync::irq::disable())).unwrap();
    /// assert_eq!(CALLS.queue_lazy(&NOTE), Ok(()));
    /// ```
    #[doc(alias = "IRQ_WORK_LAZY")]
    pub fn queue_lazy<F: Fn() + Sync + 'static>(
        &self,
        data: &'static CallData<F, P>,
    ) -> Result<(), CallError> {
        let cpu = P::cpu();
        // SAFETY: as in `queue`.
        unsafe { self.queue_in_place(cpu, data, &self.line(cpu).lazy, |_| ()) }
    }

    /// `interrupt`s the CPU if the entry is the first.
    ///
    /// # Safety
    /// The descriptor stays in place until it is dropped.
    #[inline]
    unsafe fn queue_in_place<F>(
        &self,
        cpu: CpuId,
        data: &CallData<F, P>,
        queue: &CallQueue,
        interrupt: impl FnOnce(CpuId),
    ) -> Result<(), CallError> {
        // SAFETY: by the contract.
        match unsafe { data.push(queue) } {
            Ok(first) => {
                if first {
                    interrupt(cpu);
                }
                Ok(())
            }
            Err(Refusal::Pending) => Err(CallError::Pending),
            Err(Refusal::Closed) => Err(CallError::Offline(cpu)),
        }
    }

    /// Waits until the descriptor is neither pending nor running. For who is about to free what the function uses.
    ///
    /// Linux: `irq_work_sync`. Contexts: as for [`single`](Calls::single), and not the function itself. If the descriptor is
    /// sent again and again it may take as long.
    ///
    /// # Errors
    /// [`CallError::InNmi`].
    ///
    /// ```
    /// # use hal::{Native, Platform, hosted};
    /// use sync::call::{CallData, Calls};
    /// # static CALLS: Calls = Calls::new(|cpu| { let _ = hosted::send_interrupt(cpu, || CALLS.serve(&sync::irq::disable())); });
    /// static NOTE: CallData = CallData::new(|| ());
    /// CALLS.open(Native::cpu());
    /// CALLS.queue(Native::cpu(), &NOTE).unwrap();
    /// CALLS.wait_for(&NOTE).unwrap();
    /// assert!(!NOTE.is_busy());
    /// ```
    #[doc(alias = "irq_work_sync")]
    #[track_caller]
    pub fn wait_for<F>(&self, data: &CallData<F, P>) -> Result<(), CallError> {
        if data.is_busy() {
            let wait = Wait::begin(self, data.name(), Location::caller())?;
            wait.until(None, || !data.is_busy());
        }
        Ok(())
    }

    // ---- Patience ----

    /// How long a CPU may take to answer before that is reported, in nanoseconds: 10 s unless it was set. Each time that the
    /// span passes is reported.
    ///
    /// ```
    /// let calls: sync::call::Calls = sync::call::Calls::new(|_| ());
    /// assert_eq!(calls.patience_ns(), 10_000_000_000);
    /// ```
    pub fn patience_ns(&self) -> u64 {
        self.patience_ns.load(Ordering::Relaxed)
    }

    /// Sets it.
    ///
    /// ```
    /// let calls: sync::call::Calls = sync::call::Calls::new(|_| ());
    /// calls.set_patience_ns(60_000_000_000);
    /// assert_eq!(calls.patience_ns(), 60_000_000_000);
    /// ```
    pub fn set_patience_ns(&self, ns: u64) {
        self.patience_ns.store(ns, Ordering::Relaxed);
    }
}

/// What the end of an interrupt does for softirqs that were raised in it, where there was no interrupt.
fn softirqs_after_by_hand<P: Platform>() {
    if !P::softirqs_pending() || P::context().in_interrupt() {
        // Whoever is inside of an interrupt or keeps bottom halves off serves them on the way out.
        return;
    }
    if P::irq_depth() == 0 {
        P::serve_softirqs();
    } else {
        P::kick(P::cpu());
    }
}

impl<P: Platform> fmt::Debug for Calls<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let open = Cell::new(0_u32);
        self.open_cpus().for_each(|_| open.set(open.get() + 1));
        f.debug_struct("Calls").field("open", &open.get()).finish_non_exhaustive()
    }
}
