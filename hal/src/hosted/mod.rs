//! The hosted machine: threads that play CPUs.
//!
//! 1. A thread [binds](bind) to a virtual CPU. The CPU's number is unique in the process, and its per-CPU area is real:
//!    aligned, and copied from the same template that the x86_64 machine copies.
//! 2. Interrupts are functions that are [queued](send_interrupt) for a CPU and run by its thread, in hardirq context, at
//!    *delivery points*: where interrupts are unmasked, at preemption points, in `relax()` (two CPUs that wait for each
//!    other's interrupts would deadlock otherwise), and while the CPU is blocked, for then it is idle.
//! 3. Everything else that [`Platform`](crate::Platform) asks for follows: a kick is an interrupt without a function,
//!    blocking is parking the thread, and a reschedule gives the processor to the host's scheduler.
//!
//! Code that runs here is the code that runs on the machine. What differs: an interrupt comes only at a delivery point,
//! never between two arbitrary instructions; a CPU that computes without one, or blocks in a function of the standard
//! library, takes no interrupts meanwhile; and there are no NMIs.
//!
//! A CPU runs one task, its thread, so the hosted machine has no scheduler. What a scheduler, a softirq engine or a
//! report printer would do is done by [`Hooks`].
//!
//! ```
//! use std::sync::Arc;
//! use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
//! use hal::{Native, Platform, hosted};
//!
//! let _cpu = hosted::bind()?;
//! let rang = Arc::new(AtomicBool::new(false));
//!
//! Native::irq_disable();
//! let ring = Arc::clone(&rang);
//! hosted::send_interrupt(Native::cpu(), move || {
//!     assert!(Native::context().in_hardirq());
//!     ring.store(true, SeqCst);
//! })?;
//! assert!(!rang.load(SeqCst), "interrupts are off");
//! Native::irq_enable();
//! assert!(rang.load(SeqCst));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Read in this order: [`binding`](bind), then the virtual CPU (`vcpu`), then `machine`, which implements `Platform`.

mod binding;
mod clock;
mod fence;
mod hooks;
mod machine;
mod run;
mod vcpu;

pub(crate) use binding::bind_on_first_use;
pub use binding::{Binding, NoCpuLeft, bind};
pub use clock::TestClock;
pub use hooks::{
    CapturedReport, Hooks, HooksGuard, ProcessHooks, ReportCapture, set_hooks, set_process_hooks,
};
pub use run::run_cpus;
pub use vcpu::{NotOnline, send_interrupt};
