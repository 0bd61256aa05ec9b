//! Running a function on several virtual CPUs.

use std::vec::Vec;

use super::binding::{bind, is_bound};
use super::vcpu::deliver_if_unmasked;

/// Runs `f(0)` .. `f(count - 1)` at the same time, each on a thread of its own that is bound to a virtual CPU, and
/// returns the results in order. All CPUs are online before the first call begins. (The argument counts the calls; the
/// CPU's number is [`Native::cpu`](crate::Platform::cpu)'s to tell.)
///
/// If the caller is bound it goes on taking interrupts while it waits.
///
/// # Panics
/// With the panic of the first call that panicked, after all have ended; or if fewer than `count` CPUs are left.
///
/// ```
/// use hal::{Native, Platform, hosted};
/// let mut cpus = hosted::run_cpus(4, |_| Native::cpu());
/// cpus.sort();
/// cpus.dedup();
/// assert_eq!(cpus.len(), 4);
/// ```
pub fn run_cpus<R: Send>(count: usize, f: impl Fn(usize) -> R + Sync) -> Vec<R> {
    let all_online = std::sync::Barrier::new(count);
    std::thread::scope(|scope| {
        let (f, all_online) = (&f, &all_online);
        let threads: Vec<_> = (0..count)
            .map(|call| {
                scope.spawn(move || {
                    let binding = bind();
                    all_online.wait();
                    let _binding = binding.unwrap_or_else(|error| panic!("{error}"));
                    f(call)
                })
            })
            .collect();
        while !threads.iter().all(|thread| thread.is_finished()) {
            if is_bound() {
                deliver_if_unmasked();
            }
            std::thread::park_timeout(core::time::Duration::from_micros(100));
        }
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}
