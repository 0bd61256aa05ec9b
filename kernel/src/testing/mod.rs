//! The kernel's own tests, run in the kernel.
//!
//! [`kernel_test!`](crate::kernel_test!) registers a function in a linker section; [`run_all`] runs what a filter
//! selects, one after the other, and prints a line for each. A test that takes longer than its limit is reported with
//! all CPUs' backtraces by [`watchdog`], from the timer interrupt.
//!
//! The lines are for programs as well as for people:
//! ```text
//! TESTS run 2
//! TEST start name
//! TEST ok name 1234us
//! TEST start other
//! TEST fail other: what was wrong
//! TESTS done 1 1 0
//! ```

pub mod irq;
pub mod nmi;
pub mod watchdog;

use alloc::borrow::ToOwned;
use alloc::string::{String, ToString};
use core::fmt;

use hal::{CpuId, Native, Platform};
use sync::TaskCx;

use crate::{log, sanitize, services, trace};

/// How a test ends: well, or else.
pub type Outcome = Result<(), Verdict>;

/// Why a test did not pass.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// What was wrong.
    Failed(String),
    /// Why it cannot be run on this machine.
    Skipped(String),
}

/// For [`check!`](crate::check!).
#[doc(hidden)]
pub fn failed(why: fmt::Arguments<'_>) -> Verdict {
    Verdict::Failed(why.to_string())
}

/// For [`skip!`](crate::skip!).
#[doc(hidden)]
pub fn skipped(why: fmt::Arguments<'_>) -> Verdict {
    Verdict::Skipped(why.to_string())
}

/// A test, and where it runs.
#[derive(Clone, Copy, Debug)]
pub enum Body {
    /// Once, on the boot CPU, which it is given.
    Boot(fn(CpuId) -> Outcome),
    /// On all CPUs at the same time, each of which it is given; it fails if it fails on one.
    Everywhere(fn(CpuId) -> Outcome),
    /// Once, on the boot CPU, with a task's right to sleep.
    Task(fn(&mut TaskCx) -> Outcome),
}

/// A registered test.
pub struct KernelTest {
    /// Its name, with the module it is in.
    pub name: &'static str,
    /// How long it may take, in milliseconds of the guest's time.
    pub limit_ms: u64,
    /// The test, and where it runs.
    pub body: Body,
}

/// How long a test may take unless it says otherwise. It is long because many virtual CPUs may share few.
pub const DEFAULT_LIMIT_MS: u64 = 20_000;

/// Registers a test: `kernel_test! { fn name() { .. Ok(()) } }`; with `everywhere` in front it has the CPU as its argument,
/// with `task` the token of its right to sleep; `limit_ms = N` comes behind these where it is needed:
///
/// ```ignore
/// kernel_test! { everywhere, limit_ms = 60_000, fn counts_are_exact(cpu) { check!(cpu.index() < 512); Ok(()) } }
/// ```
#[macro_export]
macro_rules! kernel_test {
    (everywhere, limit_ms = $limit:expr, fn $name:ident($cpu:pat) $body:block) => {
        $crate::kernel_test!(@register $name, $cpu, ::hal::CpuId, Everywhere, $limit, $body);
    };
    (everywhere, fn $name:ident($cpu:pat) $body:block) => {
        $crate::kernel_test!(everywhere, limit_ms = $crate::testing::DEFAULT_LIMIT_MS, fn $name($cpu) $body);
    };
    (task, limit_ms = $limit:expr, fn $name:ident($cx:ident) $body:block) => {
        $crate::kernel_test!(@register $name, $cx, &mut ::sync::TaskCx, Task, $limit, $body);
    };
    (task, fn $name:ident($cx:ident) $body:block) => {
        $crate::kernel_test!(task, limit_ms = $crate::testing::DEFAULT_LIMIT_MS, fn $name($cx) $body);
    };
    (limit_ms = $limit:expr, fn $name:ident() $body:block) => {
        $crate::kernel_test!(@register $name, _, ::hal::CpuId, Boot, $limit, $body);
    };
    (fn $name:ident() $body:block) => {
        $crate::kernel_test!(limit_ms = $crate::testing::DEFAULT_LIMIT_MS, fn $name() $body);
    };
    (@register $name:ident, $argument:pat, $Argument:ty, $Body:ident, $limit:expr, $body:block) => {
        fn $name($argument: $Argument) -> $crate::testing::Outcome $body

        const _: () = {
            #[used]
            #[unsafe(link_section = "kernel_tests")]
            static TEST: $crate::testing::KernelTest = $crate::testing::KernelTest {
                name: concat!(module_path!(), "::", stringify!($name)),
                limit_ms: $limit,
                body: $crate::testing::Body::$Body($name),
            };
        };
    };
}

/// Fails the test if the condition does not hold; more arguments say what was found.
#[macro_export]
macro_rules! check {
    ($condition:expr) => {
        if !$condition {
            return Err($crate::testing::failed(::core::format_args!(
                "{}:{}: {}", file!(), line!(), stringify!($condition))));
        }
    };
    ($condition:expr, $($found:tt)+) => {
        if !$condition {
            return Err($crate::testing::failed(::core::format_args!(
                "{}:{}: {}: {}", file!(), line!(), stringify!($condition), ::core::format_args!($($found)+))));
        }
    };
}

/// Fails the test if the two values differ.
#[macro_export]
macro_rules! check_eq {
    ($left:expr, $right:expr) => {{
        let (left, right) = (&$left, &$right);
        if left != right {
            return Err($crate::testing::failed(::core::format_args!(
                "{}:{}: {} is {:?}, {} is {:?}",
                file!(),
                line!(),
                stringify!($left),
                left,
                stringify!($right),
                right
            )));
        }
    }};
}

/// Ends the test as one that this machine cannot run.
#[macro_export]
macro_rules! skip {
    ($($why:tt)+) => {
        return Err($crate::testing::skipped(::core::format_args!($($why)+)))
    };
}

fn all() -> &'static [KernelTest] {
    unsafe extern "C" {
        #[link_name = "__start_kernel_tests"]
        static START: u8;
        #[link_name = "__stop_kernel_tests"]
        static END: u8;
    }
    let (start, end) = ((&raw const START).cast::<KernelTest>(), (&raw const END).cast::<KernelTest>());
    // SAFETY: link.ld puts these symbols around the section, into which only `kernel_test!` puts statics, all of this
    // type.
    unsafe { core::slice::from_raw_parts(start, end.offset_from_unsigned(start)) }
}

/// A test's name as it is printed and filtered: without the crate's name and the tests' folder.
fn short_name(test: &KernelTest) -> &'static str {
    test.name.strip_prefix("kernel::tests::").unwrap_or(test.name)
}

/// Says that the running test is about to provoke a report that contains `text`, which is therefore no failure.
pub fn expect_report(text: &str) {
    log::raw_line(format_args!("TEST expects {text}"));
}

/// What the log has after the last place where `text` is; nothing if it is not there.
pub fn told_after(text: &str) -> String {
    log::history().rsplit_once(text).map_or_else(String::new, |(_, told)| told.to_owned())
}

/// Whether the first steps of a backtrace in `told` lead through the function that begins at `function`. That must be
/// shorter than 256 bytes, and not inlined.
pub fn leads_through(told: &str, function: *const ()) -> bool {
    let begins = function as u64;
    let steps = told.split("[<").skip(1).filter_map(|rest| u64::from_str_radix(rest.get(..16)?, 16).ok());
    steps.take(16).any(|step| (begins..begins + 256).contains(&step))
}

/// How many records of the trace a failing test prints.
const TRACED: usize = 40;

/// Runs all tests whose name contains `filter` (`smoke` selects the quick ones, those named so). Returns whether none
/// failed.
///
/// Task context.
pub fn run_all(filter: &str, cx: &mut TaskCx) -> bool {
    let mut selected: alloc::vec::Vec<_> =
        all().iter().filter(|test| short_name(test).contains(filter)).collect();
    selected.sort_by_key(|test| short_name(test));
    log::raw_line(format_args!("TESTS run {}", selected.len()));
    trace::start();
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for test in selected {
        match run_and_tell(test, cx) {
            Ok(()) => passed += 1,
            Err(Verdict::Failed(_)) => failed += 1,
            Err(Verdict::Skipped(_)) => skipped += 1,
        }
    }
    log::raw_line(format_args!("TESTS done {passed} {failed} {skipped}"));
    failed == 0
}

/// Runs one test and prints what became of it; with the end of the trace, if it failed.
pub(crate) fn run_and_tell(test: &KernelTest, cx: &mut TaskCx) -> Outcome {
    let name = short_name(test);
    log::raw_line(format_args!("TEST start {name}"));
    let begun = Native::now_ns();
    watchdog::arm(name, test.limit_ms * sanitize::SLOWER);
    let outcome = run(test, cx);
    watchdog::disarm();
    // No interrupt does one test's work in another one.
    irq::remove_hooks();
    nmi::set_hook(None);
    let took = (Native::now_ns() - begun) / 1_000;
    log::drain();
    match &outcome {
        Ok(()) => log::raw_line(format_args!("TEST ok {name} {took}us")),
        Err(Verdict::Failed(why)) => {
            log::raw_line(format_args!("the end of the trace:\n{}", trace::tail(TRACED)));
            log::raw_line(format_args!("TEST fail {name}: {why}"));
        }
        Err(Verdict::Skipped(why)) => log::raw_line(format_args!("TEST skip {name}: {why}")),
    }
    outcome
}

fn run(test: &KernelTest, cx: &mut TaskCx) -> Outcome {
    match test.body {
        Body::Boot(run) => run(Native::cpu()),
        Body::Task(run) => run(cx),
        Body::Everywhere(run) => {
            let first = sync::IrqSpinLock::new(Ok(()));
            services::run_on_all(&|cpu| {
                if let Err(verdict) = run(cpu) {
                    let verdict = match verdict {
                        Verdict::Failed(why) => Verdict::Failed(alloc::format!("CPU {cpu}: {why}")),
                        skipped => skipped,
                    };
                    let mut first = first.lock();
                    if first.is_ok() {
                        *first = Err(verdict);
                    }
                }
            });
            first.into_inner()
        }
    }
}

/// How long a test waits for what must happen, in nanoseconds. Long, because virtual CPUs may be more than the host's.
pub const PATIENCE_NS: u64 = 10_000_000_000 * sanitize::SLOWER;

/// Waits until `condition` holds, and says whether it did in time. Contexts: any; it spins.
pub fn comes_true(condition: impl Fn() -> bool) -> bool {
    let end = Native::now_ns() + PATIENCE_NS;
    while !condition() {
        if Native::now_ns() > end {
            return false;
        }
        Native::relax();
    }
    true
}

/// Waits likewise, and lets other tasks run. Contexts: task.
pub fn comes_true_by_others(condition: impl Fn() -> bool) -> bool {
    let end = Native::now_ns() + PATIENCE_NS;
    while !condition() {
        if Native::now_ns() > end {
            return false;
        }
        Native::block(Some(Native::now_ns() + 1_000_000));
    }
    true
}
