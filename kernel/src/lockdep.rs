//! The dependency checker of this kernel's locks: its one instance, and what each CPU's task holds.
//!
//! Debug builds have it, and builds with the feature `lockdep`. Each CPU installs it when it comes up, before it is
//! online, unless the boot option `lockdep=off` says not to. What a task holds is a part of its record, and the scheduler
//! tells the CPU whose it is.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use hal::Native;
use sync::lockdep::{self, Checker, LockTimes, OnLong, Summary};

use crate::boot;
use crate::task::Task;

/// All zeros, so that it takes memory and no room in the image.
static CHECKER: Checker = Checker::new();

/// Has the executing CPU's locks checked from now on. Once on each CPU, which holds no lock.
pub(crate) fn install_on_this_cpu(idle: &'static Task) {
    if boot::options().lockdep_off {
        return;
    }
    // SAFETY: the idle task is the one that executes this, and the stack is a part of its record. Nobody else installs a
    // checker, and only the scheduler, which exchanges the stack with the task, writes the record.
    unsafe { lockdep::install::<Native>(&CHECKER, &idle.held) };
}

/// How much the checker knows.
pub fn summary() -> Summary {
    lockdep::summary::<Native>(&CHECKER)
}

/// Writes the summary; with `classes`, all classes as well, each with how it is used.
pub(crate) fn write(classes: bool, out: &mut dyn fmt::Write) -> fmt::Result {
    if boot::options().lockdep_off {
        return writeln!(out, "lock dependencies are not checked: booted with lockdep=off");
    }
    write!(out, "{}", summary())?;
    if classes {
        writeln!(
            out,
            "classes: hardirq and softirq: `-` neither, `H` a handler waits for it, `O` held with them on"
        )?;
        let known = (1..).map_while(|number| lockdep::class::<Native>(&CHECKER, number));
        known.into_iter().try_for_each(|(label, usage)| writeln!(out, "  {usage}  {label}"))?;
    }
    Ok(())
}

/// Has `tell` called for what lasts `limit_ns` or longer; see [`lockdep::tell_long`].
pub(crate) fn tell_long(limit_ns: u64, tell: OnLong) {
    lockdep::tell_long(&CHECKER, limit_ns, tell);
}

/// Measures how long locks are held, or stops that; see [`lockdep::set_timing`].
pub fn set_timing(on: bool) {
    lockdep::set_timing(&CHECKER, on);
}

/// Whether that is measured.
pub fn is_timing() -> bool {
    lockdep::is_timing(&CHECKER)
}

/// How long the locks of each class were waited for and held, with the classes' names. Contexts: task.
pub fn times() -> Vec<(String, LockTimes)> {
    let known = (1..).map_while(|number| {
        let (label, _) = lockdep::class::<Native>(&CHECKER, number)?;
        Some((label.to_string(), lockdep::times::<Native>(&CHECKER, number)?))
    });
    known.collect()
}

/// Forgets these figures. Contexts: any but NMI.
pub fn reset_times() {
    lockdep::reset_times::<Native>(&CHECKER);
}
