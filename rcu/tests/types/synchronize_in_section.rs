//! Waiting for a grace period inside of a section that it would wait for.

use rcu::Domain;
use sync::TaskCx;

rcu::hosted_domain! { struct Routes; }

fn main() {
    // SAFETY: this thread's only token.
    let mut cx = unsafe { TaskCx::new() };
    let reader = rcu::read_in::<Routes>(&cx);
    Routes::synchronize(&mut cx);
    drop(reader);
}
