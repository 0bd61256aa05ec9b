//! The running machine's grace periods, as the console sees them.

#[cfg(feature = "rcu-tiny")]
#[path = "rcu/tiny.rs"]
mod flavour;
#[cfg(not(feature = "rcu-tiny"))]
#[path = "rcu/tree.rs"]
mod flavour;

use alloc::string::{String, ToString};

use ::rcu::Domain;
use sync::TaskCx;

use super::ThisMachine;
use crate::console::rcu::{Body, Grace, GracePeriods, Wait};
use crate::rcu::Kernel;
use crate::task::Builder;

impl GracePeriods for ThisMachine {
    fn grace_periods(&self) -> Grace {
        flavour::grace_periods()
    }

    fn wait_for(&self, what: Wait, cx: &mut TaskCx) {
        match what {
            Wait::GracePeriod => Kernel::synchronize(cx),
            Wait::Expedited => Kernel::synchronize_expedited(cx),
            Wait::Barrier => Kernel::barrier(cx),
        }
    }

    fn set_offloaded(&self, cpu: u32, on: bool, cx: &mut TaskCx) -> Result<(), String> {
        flavour::set_offloaded(cpu, on, cx)
    }

    fn set_stall_limit(&self, ns: u64) -> u64 {
        flavour::set_stall_limit(ns)
    }

    fn stalls(&self) -> u64 {
        flavour::stalls()
    }

    fn start(&self, name: &'static str, body: Body) -> Result<(), String> {
        match Builder::new(name).spawn(body) {
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }
}
