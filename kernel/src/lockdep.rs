//! The dependency checker of this kernel's locks: its one instance, and what each CPU's task holds.
//!
//! Debug builds have it, and builds with the feature `lockdep`. Each CPU installs it when it comes up, before it is
//! online, unless the boot option `lockdep=off` says not to. A CPU has one task, so the stack of what that holds is the
//! CPU's.

use core::fmt;

use hal::{Native, percpu};
use sync::lockdep::{self, Checker, HeldStack, Summary};

use crate::boot;

/// All zeros, so that it takes memory and no room in the image.
static CHECKER: Checker = Checker::new();

percpu! {
    static HELD: HeldStack = HeldStack::new();
}

/// Has the executing CPU's locks checked from now on. Once on each CPU, which holds no lock.
pub(crate) fn install_on_this_cpu() {
    if boot::options().lockdep_off {
        return;
    }
    // SAFETY: areas live for ever.
    let held = unsafe { &*HELD.local_ptr() };
    // SAFETY: a CPU has one task, which never moves, and the area is its CPU's own. Nobody else installs a checker.
    unsafe { lockdep::install::<Native>(&CHECKER, held) };
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
