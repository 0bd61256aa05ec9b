//! The places in a queue: where they are, and what a name in the lock's word means.
//!
//! The algorithm asks for them through a trait, because in models the nodes' atomics are the model checker's.

use hal::{CpuId, MAX_CPUS};

#[cfg(not(any(loom, shuttle)))]
pub(super) use machine::OfPlatform;
#[cfg(any(loom, shuttle))]
pub(super) use modelled::OfPlatform;

/// The name of a node, as the lock's word holds it: the CPU's number plus one in the upper 14 bits, and the level.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Name(pub(super) u16);

/// How many nodes a CPU has: task, softirq, hardirq, NMI.
const LEVELS: usize = 4;

const _: () = assert!((MAX_CPUS + 1) * LEVELS <= 1 << 16, "a queued lock's word cannot name so many CPUs");

impl Name {
    /// Nobody's.
    pub(super) const NOBODY: Name = Name(0);

    pub(super) const fn new(cpu: CpuId, level: usize) -> Name {
        debug_assert!(level < LEVELS);
        Name(((cpu.as_u32() + 1) << 2) as u16 | level as u16)
    }

    /// The CPU and the level, unless it is nobody's.
    pub(super) const fn place(self) -> Option<(CpuId, usize)> {
        match (self.0 >> 2).checked_sub(1) {
            Some(number) => match CpuId::new(number as u32) {
                Some(cpu) => Some((cpu, (self.0 & 3) as usize)),
                None => None,
            },
            None => None,
        }
    }
}

/// Where nodes come from.
pub(super) trait Nodes {
    /// Takes the node of the executing level of this CPU, as one that has nobody behind it and is not head. `None` if it
    /// is in use.
    fn take() -> Option<Name>;

    /// Gives a node back that was taken here.
    fn give_back(name: Name);

    /// Tells the waiter `before` that `name` stands behind it.
    fn announce(before: Name, name: Name);

    /// Who announced itself to this waiter.
    fn behind(name: Name) -> Option<Name>;

    /// Tells a waiter that it is head.
    fn make_head(name: Name);

    /// Whether this waiter was told so.
    fn is_head(name: Name) -> bool;

    /// A place at which another schedule might show a bug.
    fn chaos_point();
}

#[cfg(not(any(loom, shuttle)))]
mod machine {
    use core::marker::PhantomData;

    use hal::Platform;
    use hal::platform::QueueNode;

    use super::{Name, Nodes};
    use crate::primitives::Ordering;

    /// The nodes in the platform's per-CPU records. The executing code stays on its CPU.
    pub(in crate::spin) struct OfPlatform<P>(PhantomData<P>);

    impl<P: Platform> OfPlatform<P> {
        fn node(name: Name) -> &'static QueueNode {
            let (cpu, level) = name.place().expect("nobody has no node");
            // SAFETY: names are made of CPUs that queued, whose records the platform keeps for ever; and a record consists
            // of atomics.
            let record = unsafe { P::record_of(cpu).as_ref() };
            &record.nodes[level]
        }

        /// What the executing code could be interrupted by comes after it.
        fn level() -> usize {
            let context = P::context();
            if context.in_nmi() {
                3
            } else if context.in_hardirq() {
                2
            } else if context.in_softirq() {
                1
            } else {
                0
            }
        }
    }

    impl<P: Platform> Nodes for OfPlatform<P> {
        fn take() -> Option<Name> {
            let name = Name::new(P::cpu(), Self::level());
            let node = Self::node(name);
            // Two steps and not one: what comes between them on this CPU and wants the same node is nested, and has given it
            // back before the second. Relaxed: other CPUs do not look.
            if node.busy.load(Ordering::Relaxed) != 0 {
                return None;
            }
            node.busy.store(1, Ordering::Relaxed);
            // Relaxed: published with the name, by the swap of `tail`.
            node.next.store(u32::from(Name::NOBODY.0), Ordering::Relaxed);
            node.turn.store(0, Ordering::Relaxed);
            Some(name)
        }

        fn give_back(name: Name) {
            Self::node(name).busy.store(0, Ordering::Relaxed);
        }

        fn announce(before: Name, name: Name) {
            // Release: pairs with the Acquire in `behind`, so that who makes us head finds our node as we left it.
            Self::node(before).next.store(u32::from(name.0), Ordering::Release);
        }

        fn behind(name: Name) -> Option<Name> {
            // Acquire: pairs with the Release in `announce`.
            let behind = Name(Self::node(name).next.load(Ordering::Acquire) as u16);
            Some(behind).filter(|behind| *behind != Name::NOBODY)
        }

        fn make_head(name: Name) {
            // Release: pairs with the Acquire in `is_head`.
            Self::node(name).turn.store(1, Ordering::Release);
        }

        fn is_head(name: Name) -> bool {
            // Acquire: pairs with the Release in `make_head`; who was head has done with our node before we give it back.
            Self::node(name).turn.load(Ordering::Acquire) != 0
        }

        fn chaos_point() {
            P::chaos_point();
        }
    }
}

/// Nodes of the model checker's atomics. A thread is a CPU, and is not interrupted.
#[cfg(any(loom, shuttle))]
mod modelled {
    use core::marker::PhantomData;

    use hal::{CpuId, Platform};
    #[cfg(loom)]
    use loom::{lazy_static, thread_local};
    #[cfg(shuttle)]
    use shuttle::{lazy_static, thread_local};

    use super::{Name, Nodes};
    use crate::primitives::{AtomicU32, Ordering};

    struct Node {
        next: AtomicU32,
        turn: AtomicU32,
    }

    lazy_static! {
        static ref NODES: [Node; 8] =
            core::array::from_fn(|_| Node { next: AtomicU32::new(0), turn: AtomicU32::new(0) });
        // Not the checker's: which thread gets which number makes no difference.
        static ref NEXT: core::sync::atomic::AtomicU32 = core::sync::atomic::AtomicU32::new(0);
    }

    thread_local! {
        static NUMBER: u32 = NEXT.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
    }

    pub(in crate::spin) struct OfPlatform<P>(PhantomData<P>);

    fn node(name: Name) -> &'static Node {
        let (cpu, _) = name.place().expect("nobody has no node");
        &NODES[cpu.index()]
    }

    impl<P: Platform> Nodes for OfPlatform<P> {
        fn take() -> Option<Name> {
            let name = Name::new(NUMBER.with(|number| CpuId::new(*number))?, 0);
            node(name).next.store(0, Ordering::Relaxed);
            node(name).turn.store(0, Ordering::Relaxed);
            Some(name)
        }

        fn give_back(_: Name) {}

        fn announce(before: Name, name: Name) {
            node(before).next.store(u32::from(name.0), Ordering::Release); // pairs with the Acquire in `behind`
        }

        fn behind(name: Name) -> Option<Name> {
            let behind = Name(node(name).next.load(Ordering::Acquire) as u16); // pairs with the Release in `announce`
            Some(behind).filter(|behind| *behind != Name::NOBODY)
        }

        fn make_head(name: Name) {
            node(name).turn.store(1, Ordering::Release); // pairs with the Acquire in `is_head`
        }

        fn is_head(name: Name) -> bool {
            node(name).turn.load(Ordering::Acquire) != 0 // pairs with the Release in `make_head`
        }

        fn chaos_point() {
            P::chaos_point();
        }
    }
}
