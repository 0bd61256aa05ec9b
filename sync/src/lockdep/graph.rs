//! The graph of lock classes: who was held while who was waited for, and what that leads to.
//!
//! 1. A node is a class; an edge `A -> B` says that somebody who held `A` waited for `B`. A circle of such edges is a
//!    deadlock that needs only bad luck: each of several tasks holds one lock of the circle and waits for the next.
//! 2. Readers make edges weak. An edge *departs weakly* if its first lock was held shared, and *arrives weakly* if its
//!    second was waited for as a recursive reader. Such a reader does not wait for a shared holder, so a path that arrives
//!    weakly at a class and departs weakly from it blocks nobody there. Every other pair blocks (a reader that is not
//!    recursive waits behind a writer that waits for the shared holder). A path that blocks at each of its classes is
//!    *strong*, and only circles strong all around are deadlocks.
//! 3. An interrupt handler is an edge too: from every class held with interrupts on (some CPU is interrupted just there)
//!    to every class that a handler waits for. These edges are not stored, there would be too many; a new edge or a new
//!    [`Use`] is followed by a search for a strong path from a class that handlers wait for to one held with interrupts
//!    on. One such edge in a circle is enough to look for: a circle with several contains one with one.
//!
//! A strong closed walk that visits a class twice contains a strong circle: if one of the arrivals is strong, leave at
//! once by the other visit's departure; if both are weak, both departures are strong. So the search may treat walks as
//! paths, and needs to visit each class at most twice, once for each strength of arrival.
//!
//! # Invariants
//! * **G1**: `class_count`, `edge_count` and `site_count` entries of their tables are filled, from index 1 on; 0 means
//!   "none", so that a graph of zeros is empty.
//! * **G2**: the lists of edges that begin in a class's `out` and `into` end, and hold filled entries only.

use core::panic::Location;

use super::class::{Identity, Label};
use super::map::{Level, Mode, Subclass, WaitType};
use super::usage::{Mark, Usage, Use};

/// How many places that create locks (with different keys) are told apart.
pub const SITES: usize = 1024;
/// How many classes there can be: places, times the subclasses in which locks from there are taken.
pub const CLASSES: usize = 1024;
/// How many orders of classes there can be.
pub const EDGES: usize = 8192;
/// How many deadlocks are reported before the checker keeps quiet about more.
pub(super) const REPORTS: usize = 256;

/// A class, by its number; from 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ClassId(pub(super) u16);

impl ClassId {
    pub(super) const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A table is full.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Full(pub(super) &'static str);

#[derive(Clone, Copy)]
pub(super) struct Class {
    site: u16,
    subclass: Subclass,
    pub(super) usage: Usage,
    /// The first of the edges that depart from here, and of those that arrive.
    pub(super) out: u16,
    pub(super) into: u16,
    marks: [Mark; Use::COUNT],
}

impl Class {
    const NONE: Class = Class {
        site: 0,
        subclass: Subclass::OUTER,
        usage: Usage(0),
        out: 0,
        into: 0,
        marks: [Mark::NONE; 8],
    };
}

/// An [`Identity`], or nothing, which is all zeros: an `Option` would mark it by another value.
#[derive(Clone, Copy)]
struct Site {
    place: Option<&'static Location<'static>>,
    name: Option<&'static str>,
    key: u32,
    wait: WaitType,
    level: Level,
}

impl Site {
    const NONE: Site = Site { place: None, name: None, key: 0, wait: WaitType::Spin, level: Level::Task };

    const fn of(identity: &Identity) -> Site {
        let Identity { site, name, key, wait, level } = *identity;
        Site { place: Some(site), name, key, wait, level }
    }

    fn identity(self) -> Option<Identity> {
        let Site { place, name, key, wait, level } = self;
        Some(Identity { site: place?, name, key, wait, level })
    }
}

/// The two strengths of an edge; see the module's second point.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Strength {
    pub(super) departs_weakly: bool,
    pub(super) arrives_weakly: bool,
}

impl Strength {
    pub(super) const fn of(held: Mode, waited: Mode) -> Strength {
        Strength { departs_weakly: held.is_shared(), arrives_weakly: waited.is_recursive() }
    }
}

/// Somebody who held `from` waited for `to`.
#[derive(Clone, Copy)]
pub(super) struct Edge {
    pub(super) from: ClassId,
    pub(super) to: ClassId,
    pub(super) strength: Strength,
    pub(super) next_out: u16,
    pub(super) next_into: u16,
    /// Where it was first seen: where `from` was taken, and where `to` was.
    pub(super) held_at: Option<&'static Location<'static>>,
    pub(super) waited_at: Option<&'static Location<'static>>,
}

impl Edge {
    pub(super) const NONE: Edge = Edge {
        from: ClassId(0),
        to: ClassId(0),
        strength: Strength { departs_weakly: false, arrives_weakly: false },
        next_out: 0,
        next_into: 0,
        held_at: None,
        waited_at: None,
    };
}

/// The graph, as a value. All zeros is the empty one, so that a static graph takes no room in a kernel's image.
pub(super) struct Graph {
    site_count: u16,
    class_count: u16,
    edge_count: u16,
    sites: [Site; SITES],
    pub(super) classes: [Class; CLASSES],
    pub(super) edges: [Edge; EDGES],
    /// Hashes of what was reported already; 0 is none.
    reported: [u64; REPORTS],
    pub(super) scratch: super::search::Scratch,
}

impl Graph {
    pub(super) const fn new() -> Graph {
        Graph {
            site_count: 0,
            class_count: 0,
            edge_count: 0,
            sites: [Site::NONE; SITES],
            classes: [Class::NONE; CLASSES],
            edges: [Edge::NONE; EDGES],
            reported: [0; REPORTS],
            scratch: super::search::Scratch::new(),
        }
    }

    pub(super) fn site_count(&self) -> usize {
        self.site_count.into()
    }

    pub(super) fn class_count(&self) -> usize {
        self.class_count.into()
    }

    pub(super) fn edge_count(&self) -> usize {
        self.edge_count.into()
    }

    /// The number of the locks that are created where `identity` says; from 1.
    pub(super) fn site(&mut self, identity: &Identity) -> Result<u16, Full> {
        let known = 1..=self.site_count;
        let is_it =
            |site: &u16| self.sites[usize::from(*site)].identity().is_some_and(|known| known.same(identity));
        if let Some(site) = known.into_iter().find(is_it) {
            return Ok(site);
        }
        let site = next_slot(self.site_count, SITES).ok_or(Full("lock sites"))?;
        self.sites[usize::from(site)] = Site::of(identity);
        self.site_count = site;
        Ok(site)
    }

    /// A class that did not exist: locks of `site`, taken as `subclass`.
    pub(super) fn add_class(&mut self, site: u16, subclass: Subclass) -> Result<ClassId, Full> {
        let class = next_slot(self.class_count, CLASSES).ok_or(Full("lock classes"))?;
        self.classes[usize::from(class)] = Class { site, subclass, ..Class::NONE };
        self.class_count = class;
        Ok(ClassId(class))
    }

    pub(super) fn label(&self, class: ClassId) -> Option<Label> {
        let Class { site, subclass, .. } = self.classes[class.index()];
        Some(Label { identity: self.sites[usize::from(site)].identity()?, subclass })
    }

    /// Adds an edge. Returns its number, or `None` if it was there.
    pub(super) fn add_edge(
        &mut self,
        (from, held_at): (ClassId, &'static Location<'static>),
        (to, waited_at): (ClassId, &'static Location<'static>),
        strength: Strength,
    ) -> Result<Option<u16>, Full> {
        if self.find_edge(from, to, strength).is_some() {
            return Ok(None);
        }
        let edge = next_slot(self.edge_count, EDGES).ok_or(Full("lock orders"))?;
        self.edges[usize::from(edge)] = Edge {
            from,
            to,
            strength,
            next_out: self.classes[from.index()].out,
            next_into: self.classes[to.index()].into,
            held_at: Some(held_at),
            waited_at: Some(waited_at),
        };
        self.classes[from.index()].out = edge;
        self.classes[to.index()].into = edge;
        self.edge_count = edge;
        Ok(Some(edge))
    }

    pub(super) fn find_edge(&self, from: ClassId, to: ClassId, strength: Strength) -> Option<u16> {
        let mut at = self.classes[from.index()].out;
        while at != 0 {
            let edge = &self.edges[usize::from(at)];
            if edge.to == to && edge.strength == strength {
                return Some(at);
            }
            at = edge.next_out;
        }
        None
    }

    /// Notes a fact about a class. `false`: it was known.
    pub(super) fn add_use(&mut self, class: ClassId, what: Use, mark: Mark) -> bool {
        let class = &mut self.classes[class.index()];
        if class.usage.has(what) {
            return false;
        }
        class.usage.0 |= what.bit();
        class.marks[what.index()] = mark;
        true
    }

    pub(super) fn usage(&self, class: ClassId) -> Usage {
        self.classes[class.index()].usage
    }

    pub(super) fn mark(&self, class: ClassId, what: Use) -> Mark {
        self.classes[class.index()].marks[what.index()]
    }

    /// Whether a report about these classes is the first of its kind; takes note of it.
    pub(super) fn is_news(&mut self, kind: u8, a: ClassId, b: ClassId) -> bool {
        let hash = 1 << 63 | u64::from(kind) << 32 | u64::from(a.0) << 16 | u64::from(b.0);
        for slot in &mut self.reported {
            if *slot == hash {
                return false;
            }
            if *slot == 0 {
                *slot = hash;
                return true;
            }
        }
        false
    }
}

/// The slot after `count` filled ones, if the table of `size`, whose slot 0 is not used, has it.
fn next_slot(count: u16, size: usize) -> Option<u16> {
    let slot = count.checked_add(1)?;
    (usize::from(slot) < size).then_some(slot)
}
