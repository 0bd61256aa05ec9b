//! How much a test explores: as much as it says in an ordinary run, more when told to, and counted either way.
//!
//! 1. Whoever explores says how much when it is done, in a line of its own: `explored: 5120 executions`. The test harness
//!    keeps what a test prints; `cargo xtask verify` asks for it, and adds the lines up.
//! 2. `QUIESCE_CASES_FACTOR` multiplies random cases and random schedules.
//! 3. `QUIESCE_FUZZ_SECONDS` is how long tests go on that could go on for ever. Without it they are not begun.

#[cfg(any(loom, shuttle))]
use std::sync::Arc;
#[cfg(any(loom, shuttle))]
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, UNIX_EPOCH};

/// How many cases a property takes that takes `ordinary` by itself; `proptest`'s own default is 256.
///
/// For `#![proptest_config(ProptestConfig::with_cases(cases(256)))]`, which is evaluated once for each property.
///
/// # Panics
/// If `QUIESCE_CASES_FACTOR` is set, and is not a number.
pub fn cases(ordinary: u32) -> u32 {
    // An interpreter takes thousands of times as long for each.
    let ordinary = if cfg!(miri) { ordinary.min(3) } else { ordinary };
    let cases =
        ordinary.saturating_mul(number("QUIESCE_CASES_FACTOR").unwrap_or(1).try_into().unwrap_or(u32::MAX));
    println!("explored: {cases} cases");
    cases
}

/// Calls `once` with one seed after the other for as long as `QUIESCE_FUZZ_SECONDS` says; it returns how much of `what` it
/// did. Does nothing if there is no such time.
///
/// Every run begins with another seed. `once` is called at least once, and says which seed it had if it panics.
///
/// # Panics
/// If `QUIESCE_FUZZ_SECONDS` is set, and is not a number.
pub fn fuzz(what: &str, mut once: impl FnMut(u64) -> u64) {
    let Some(seconds) = number("QUIESCE_FUZZ_SECONDS") else { return };
    let begun = Instant::now();
    let first = UNIX_EPOCH.elapsed().expect("a clock after 1970").as_nanos() as u64;
    let (mut seed, mut done) = (first, 0);
    while seed == first || begun.elapsed() < Duration::from_secs(seconds) {
        let named = Named(seed);
        done += once(seed);
        drop(named);
        seed += 1;
    }
    println!("explored: {} seeds\nexplored: {done} {what}", seed - first);
}

/// Names a seed whose run panics.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("found by seed {}", self.0);
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} must be a number, and not `{text}`")))
}

/// Says how often the model ran, if it ends by a panic too: a broken twin explores until it is found.
#[cfg(any(loom, shuttle))]
struct Executions(Arc<AtomicU64>);

#[cfg(any(loom, shuttle))]
impl Executions {
    /// The counter, and `f` that counts.
    fn of(f: impl Fn() + Send + Sync + 'static) -> (Self, impl Fn() + Send + Sync + 'static) {
        let count = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&count);
        let counting = move || {
            counter.fetch_add(1, Ordering::Relaxed);
            f();
        };
        (Self(count), counting)
    }
}

#[cfg(any(loom, shuttle))]
impl Drop for Executions {
    fn drop(&mut self) {
        println!("explored: {} executions", self.0.load(Ordering::Relaxed));
    }
}

/// `builder.check(f)`, counted.
#[cfg(loom)]
pub fn check(builder: &loom::model::Builder, f: impl Fn() + Send + Sync + 'static) {
    let (_says, f) = Executions::of(f);
    builder.check(f);
}

/// `loom::model(f)`, counted.
#[cfg(loom)]
pub fn model(f: impl Fn() + Send + Sync + 'static) {
    let (_says, f) = Executions::of(f);
    loom::model(f);
}

/// So many random schedules of `f`, and so many by priorities that change at three places; counted, and multiplied by
/// `QUIESCE_CASES_FACTOR`.
///
/// With a fault planted, so many up to a hundred times: schedules differ from run to run, and a fault that most runs find
/// is one that some run does not. It costs what it takes to find the fault.
///
/// # Panics
/// If a schedule panics, or `QUIESCE_CASES_FACTOR` is set, and is not a number.
#[cfg(shuttle)]
pub fn schedules(f: impl Fn() + Send + Sync + 'static, random: usize, by_priority: usize) {
    let factor = number("QUIESCE_CASES_FACTOR").unwrap_or(1) as usize;
    let rounds = if crate::faults::is_any_planted() { 100 } else { 1 };
    let (_says, f) = Executions::of(f);
    let f = Arc::new(f);
    for _ in 0..rounds {
        let [f, again] = [Arc::clone(&f), Arc::clone(&f)];
        shuttle::check_random(move || f(), random * factor);
        shuttle::check_pct(move || again(), by_priority * factor, 3);
    }
}
