//! Domains of readers that may sleep, served by the work queues.
//!
//! A domain's grace periods are driven by those who wait for them. For callbacks, and for those who only poll, an item on the
//! queue of unbound workers does it, as often as the domain asks for it.
//!
//! Linux: `srcu_struct`, whose grace periods are `srcu_gp_wq`'s.

use alloc::sync::{Arc, Weak};

use ::rcu::Srcu;
use ::rcu::srcu::{Driver, Next};
use hal::Native;
use hal::percpu::OutOfPerCpuSpace;
use spin::Once;

use crate::timer::DelayedWork;
use crate::workqueue::{self, Running};

/// A domain of this kernel. Shared by reference count: the last one to go calls the callbacks that are left.
pub type Sleepable = Arc<Srcu<Native, Attendant>>;

/// Has the work of a [`Sleepable`] done.
#[derive(Debug)]
pub struct Attendant(Once<DelayedWork>);

impl Driver for Attendant {
    fn wanted(&self) {
        // One that waits for a time does so no longer; one that is running already comes once more.
        if let Some(work) = self.0.get() {
            work.modify(0);
        }
    }
}

/// Makes a domain. `name` is for reports. Linux: `init_srcu_struct`.
///
/// Contexts: task, when the work queues have been started.
///
/// # Errors
/// If there is no room for its counters in the CPUs' areas.
#[track_caller]
pub fn sleepable(name: &'static str) -> Result<Sleepable, OutOfPerCpuSpace> {
    let domain = Arc::new(Srcu::with_driver(name, Attendant(Once::new()))?);
    let served = Arc::downgrade(&domain);
    domain.driver().0.call_once(|| {
        DelayedWork::new(workqueue::unbound(), move |running, work| serve(&served, running, work))
    });
    Ok(domain)
}

fn serve(domain: &Weak<Srcu<Native, Attendant>>, running: &mut Running<'_>, work: &DelayedWork) {
    let Some(domain) = domain.upgrade() else { return };
    match domain.work(running.cx()) {
        Next::Idle => (),
        Next::Again => _ = work.modify(0),
        // Unless somebody has wanted it sooner meanwhile.
        Next::After(ns) => _ = work.queue_in(ns),
    }
}
