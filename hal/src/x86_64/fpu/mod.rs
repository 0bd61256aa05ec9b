//! Vector and floating-point registers: who owns them, and how code borrows them.
//!
//! The kernel is compiled without them, so an interrupt or a call changes none of them. They are for tasks that ask for
//! vector state, and for short stretches of `asm!` anywhere else.
//!
//! 1. [`enable()`] switches the same components on on every CPU, and finds out how they are saved and how many bytes that
//!    takes.
//! 2. A task that uses them has an [`Area`]. At every context switch [`switch_to`] saves the registers into the area of
//!    the task that goes and loads those of the task that comes. A task whose area is loaded is the CPU's **owner**; the
//!    registers are its own until the next switch. Tasks without an area cost a load and a branch.
//! 3. Everybody else opens a section: [`FpuGuard`]. It keeps preemption off, sets the owner's registers aside in the
//!    owner's area if there is an owner, and puts them back at its end. One section a CPU: what interrupts one finds the
//!    registers in use ([`Unusable`]) and does its work another way.
//!
//! Nothing is lazy: a register that holds another task's value is never reachable, and there is no trap whose timing
//! shows who used them last.
//!
//! Saving and loading happen in this module alone; callers hand over areas and proofs.

mod area;
mod enable;
mod live;
mod section;
#[cfg(test)]
mod tests;

#[cfg(target_os = "none")]
pub(super) use area::x87_is_reset;
pub use area::{Area, AreaError};
pub use enable::{Component, Fpu, SaveMethod, area_size, components, enable, format};
pub use live::{has_owner, switch_to};
#[doc(hidden)]
pub use section::broken;
pub use section::{FpuGuard, Unusable, usable};
