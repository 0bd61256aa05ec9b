//! Domains of sleeping readers that are types.

use crate::domain::Domain;
use crate::srcu::{Driver, Srcu};

/// A domain made by [`srcu_domain!`](crate::srcu_domain).
///
/// # Safety
/// Implemented by the macro alone: the value is the one that the type's [`Domain`] functions go to.
pub unsafe trait SrcuDomain: Domain {
    /// Who does its work.
    type Driver: Driver;

    /// The domain as a value: for its statistics, for [`work`](Srcu::work), for its stall limit.
    ///
    /// ```
    /// use rcu::srcu::SrcuDomain;
    /// rcu::srcu_domain! { struct Filters; }
    /// let reader = rcu::read::<Filters>();
    /// assert_eq!(Filters::srcu().readers(), 1);
    /// ```
    fn srcu() -> &'static Srcu<Self::Platform, Self::Driver>;
}

/// Makes domains of readers that may sleep: `srcu_domain! { pub struct Name; }`.
///
/// The type has no values. It implements [`Domain`] and [`SrcuDomain`]: its counters are per-CPU variables, and nothing has
/// to be initialised. [`is_reading`](Domain::is_reading) is always `false`: readers leave no trace in their task.
///
/// The platform is [`hal::Native`], and nobody comes to do the work ([`Visitors`](crate::srcu::Visitors)), unless it is
/// said: `struct Name: Platform => Driver = value;`.
///
/// Linux: `DEFINE_SRCU`.
///
/// ```
/// use rcu::{Domain, RcuBox, RcuOption};
///
/// rcu::srcu_domain! {
///     /// Protects the filters; they may read files.
///     pub struct Filters;
/// }
/// static FILTER: RcuOption<RcuBox<u32>, Filters> = RcuOption::none();
///
/// drop(FILTER.replace(Some(RcuBox::new(1))));
/// let reader = rcu::read();
/// assert_eq!(FILTER.load(&reader), Some(&1));
/// ```
///
/// With a driver:
///
/// ```
/// use rcu::srcu::Driver;
/// struct Attendant;
/// impl Driver for Attendant {
///     fn wanted(&self) {
///         // queue a work item
///     }
/// }
/// rcu::srcu_domain! { struct Filters: hal::Native => Attendant = Attendant; }
/// # drop(rcu::read::<Filters>());
/// ```
#[macro_export]
macro_rules! srcu_domain {
    ($($(#[$meta:meta])* $vis:vis struct $Name:ident $(: $P:ty => $D:ty = $driver:expr)?;)+) => {$(
        $(#[$meta])*
        $vis struct $Name($crate::macros::Infallible);

        const _: () = {
            use $crate::macros::{AtomicUsize, Callback, Cookie, Head, NonNull, TaskCx, srcu};

            type Platform = $crate::__srcu_or!([$($P)?] $crate::macros::Native);
            type Driver = $crate::__srcu_or!([$($D)?] srcu::Visitors);

            $crate::macros::percpu! {
                static COUNTERS: [AtomicUsize; 4] = [const { AtomicUsize::new(0) }; 4];
            }
            // SAFETY: nobody else knows of the counters.
            static SRCU: srcu::Srcu<Platform, Driver> = unsafe {
                srcu::Srcu::in_static(
                    ::core::stringify!($Name),
                    $crate::__srcu_or!([$($driver)?] srcu::Visitors),
                    COUNTERS.counters(),
                )
            };

            // SAFETY: one `Srcu` for one type; `srcu` argues for the guarantee.
            unsafe impl $crate::Domain for $Name {
                type Platform = Platform;
                type Section = srcu::Rank;
                type State = Cookie;
                const NAME: &'static str = ::core::stringify!($Name);

                #[inline(always)]
                fn read_lock() -> srcu::Rank {
                    SRCU.read_lock()
                }
                #[inline(always)]
                unsafe fn read_unlock(section: srcu::Rank) {
                    // SAFETY: the same contract; there is one domain.
                    unsafe { SRCU.read_unlock(section) };
                }
                fn is_reading() -> bool {
                    false
                }
                #[track_caller]
                unsafe fn call(head: NonNull<Head>, function: Callback) {
                    // SAFETY: the same contract.
                    unsafe { SRCU.call(head, function) };
                }
                #[track_caller]
                fn synchronize(cx: &mut TaskCx<Platform>) {
                    SRCU.synchronize(cx);
                }
                #[track_caller]
                fn synchronize_expedited(cx: &mut TaskCx<Platform>) {
                    SRCU.synchronize_expedited(cx);
                }
                #[track_caller]
                fn barrier(cx: &mut TaskCx<Platform>) {
                    SRCU.barrier(cx);
                }
                fn get_state() -> Cookie {
                    SRCU.get_state()
                }
                fn start_poll() -> Cookie {
                    SRCU.start_poll()
                }
                fn poll(state: Cookie) -> bool {
                    SRCU.poll(state)
                }
            }

            // SAFETY: the value of the functions above.
            unsafe impl srcu::SrcuDomain for $Name {
                type Driver = Driver;
                fn srcu() -> &'static srcu::Srcu<Platform, Driver> {
                    &SRCU
                }
            }
        };
    )+};
}

/// What is in the brackets, or what follows if they are empty.
#[doc(hidden)]
#[macro_export]
macro_rules! __srcu_or {
    ([] $($otherwise:tt)+) => { $($otherwise)+ };
    ([$($said:tt)+] $($otherwise:tt)+) => { $($said)+ };
}
