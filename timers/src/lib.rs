//! Timers for kernels, with Linux's semantics, as values.
//!
//! The first example of every book: a timer that says hello in three seconds and frees itself. In most kernels the
//! function must free the timer, and whoever called it must not look at it any more. Here the closure is moved out, the
//! memory is given back, and then it is called:
//!
//! ```
//! use hal::{Native, Platform};
//! use timers::{CpuTimers, HZ, Ticks, Timers};
//!
//! static TIMERS: Timers = Timers::new(); // the machine's; here it has one CPU, which is this thread
//! static MINE: CpuTimers = CpuTimers::new();
//! TIMERS.install(Native::cpu(), &MINE);
//!
//! let message = String::from("three seconds are over");
//! TIMERS.after(TIMERS.now() + Ticks(3 * HZ), move |fired| {
//!     assert!(fired.now() >= fired.expired_at(), "never early");
//!     println!("{message}");
//! });
//!
//! // What a tick does, 3 * HZ times; here time is moved by hand.
//! for tick in 1..=3 * HZ {
//!     if TIMERS.tick(Native::cpu(), Ticks(tick)) {
//!         // SAFETY: this thread serves softirqs itself; the guard goes before it goes on.
//!         let serving = unsafe { sync::context::enter_softirq() };
//!         assert_eq!((TIMERS.run(&serving), tick), (1, 3 * HZ));
//!     }
//! }
//! ```
//!
//! 1. A [`Timer`] is a function and a state. It is armed through a pointer that keeps it alive ([`Handle`]), so that neither
//!    its function nor another CPU can take it away under the machine's feet.
//! 2. [`Timers`] is the machine's coarse ones: each CPU has [`wheel`]s in [`CpuTimers`]; what time it is, is told by whoever
//!    ticks. Idle CPUs' timers are called by those that are awake.
//! 3. [`hr`] has those that count nanoseconds.
//! 4. All of them are detached, called, deleted and waited for by one piece of code, which `docs/timers.md` explains.
//!
//! Coarse timers and ticks read no clock. [`clock`] judges clocks, [`tick`] converts, [`queue`] says what keeps armed timers
//! in order.
//!
//! On host threads a driver thread plays the tick:
//!
//! ```
//! use std::sync::mpsc::channel;
//! use std::time::{Duration, Instant};
//! use hal::{Native, Platform, hosted};
//! use timers::{CpuTimers, Ticks, Timers};
//!
//! static TIMERS: Timers = Timers::new();
//! static DRIVER: CpuTimers = CpuTimers::new();
//!
//! let (done, is_done) = channel();
//! let (ready, is_ready) = channel();
//! let driver = std::thread::spawn(move || {
//!     let _cpu = hosted::bind().unwrap();
//!     TIMERS.install(Native::cpu(), &DRIVER);
//!     ready.send(Native::cpu()).unwrap();
//!     let start = Instant::now();
//!     while is_done.try_recv().is_err() {
//!         std::thread::sleep(Duration::from_millis(1));
//!         let now = Ticks::elapsed_in_ns(start.elapsed().as_nanos() as u64);
//!         if TIMERS.tick(Native::cpu(), now) {
//!             // SAFETY: this thread serves softirqs itself; the guard goes before it goes on.
//!             let serving = unsafe { sync::context::enter_softirq() };
//!             TIMERS.run(&serving);
//!         }
//!     }
//! });
//! // Other threads arm timers for the driver's CPU.
//! let cpu = is_ready.recv().unwrap();
//! let timer = timers::Owned::new(timers::Timer::new(move |_| done.send(()).unwrap()));
//! TIMERS.add_on(cpu, &timer, TIMERS.now() + Ticks(2));
//! driver.join().unwrap();
//! ```
//!
//! Read in this order: `timer/mod.rs`, `base/mod.rs` (the invariants), `base/run.rs`, `base/arm.rs`, `base/delete.rs`,
//! `cpus/idle.rs`.
#![cfg_attr(not(any(test, loom, shuttle)), no_std)]

#[cfg(feature = "alloc")]
extern crate alloc;

mod base;
pub mod clock;
mod cpus;
mod faults;
pub mod hr;
#[cfg(all(test, any(loom, shuttle)))]
mod modelled;
mod primitives;
pub mod queue;
pub mod tick;
mod timer;
pub mod wheel;

pub use base::{Base, Deletion, FunctionName, HrLook, SLOWEST, Slow, Stats, WheelLook};
pub use cpus::{CpuTimers, Timers};
pub use tick::{HZ, TICK_NS, TickSchedule, Ticks};
#[cfg(feature = "alloc")]
pub use timer::Owned;
pub use timer::{Fired, Firing, Function, Handle, Periodic, Timer, TimerFlags};

/// The README's example, as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
