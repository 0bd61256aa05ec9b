//! The classes with fixed priorities: a queue for each level, and a bit for each queue that is not empty.

use core::fmt;
use core::mem::offset_of;
use core::ptr::NonNull;

use sync::list::raw::Links;

use super::class::Level;
use super::entity::{Entity, Handle};

const LEVELS: usize = Level::STOP.0 as usize + 1;

/// The real-time and stop tasks of one CPU that wait. The current one is in no queue.
pub(super) struct RealTime {
    /// Which levels have a queue. A head is a ring exactly while its bit is set.
    occupied: u128,
    heads: [Links; LEVELS],
    waiting: usize,
}

impl fmt::Debug for RealTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RealTime")
            .field("waiting", &self.waiting)
            .field("top", &self.top())
            .finish_non_exhaustive()
    }
}

/// An end of a queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    Front,
    Back,
}

impl RealTime {
    pub(super) const fn new() -> RealTime {
        RealTime { occupied: 0, heads: [const { Links::new() }; LEVELS], waiting: 0 }
    }

    #[inline(always)]
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// The highest level at which somebody waits.
    #[inline(always)]
    pub(super) fn top(&self) -> Level {
        Level(self.occupied.checked_ilog2().unwrap_or(0) as u8)
    }

    #[inline(always)]
    pub(super) fn is_occupied(&self, level: Level) -> bool {
        self.occupied >> level.0 & 1 != 0
    }

    fn head(&self, level: Level) -> NonNull<Links> {
        NonNull::from(&self.heads[usize::from(level.0)])
    }

    /// Puts somebody at an end of its level's queue.
    ///
    /// # Safety
    /// From here on, while somebody is in it, `self` stays in place. The entity is in no queue.
    pub(super) unsafe fn put(&mut self, entity: Handle, end: End) {
        let level = entity.level.get();
        let head = self.head(level);
        let links = links_of(entity);
        // SAFETY: head and entity stay in place (the contract; E1); `&mut self` makes one writer.
        let added = unsafe {
            if !self.is_occupied(level) {
                Links::init(head);
                self.occupied |= 1 << level.0;
            }
            match end {
                End::Front => Links::add(links, head),
                End::Back => Links::add_tail(links, head),
            }
        };
        debug_assert_eq!(added, Ok(()));
        self.waiting += 1;
    }

    /// Takes somebody out of its level's queue, where it must be.
    pub(super) fn take(&mut self, entity: Handle) {
        let level = entity.level.get();
        // SAFETY: it is in the queue of its level, whose head is initialised.
        let (removed, empty) = unsafe { (Links::del(links_of(entity)), Links::is_empty(self.head(level))) };
        debug_assert_eq!(removed, Ok(()));
        if empty {
            self.occupied &= !(1 << level.0);
        }
        self.waiting -= 1;
    }

    /// The first of a level at which somebody waits.
    #[inline]
    pub(super) fn first(&self, level: Level) -> Handle {
        debug_assert!(self.is_occupied(level));
        // SAFETY: the head of an occupied level is a ring with a member, which is the `links` of an entity of this queue.
        unsafe { entity_of(Links::next(self.head(level))) }
    }

    /// Those who wait, the highest level first, in each level in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Handle> {
        let levels = (0..LEVELS as u8).rev().map(Level).filter(|level| self.is_occupied(*level));
        levels.flat_map(|level| {
            let head = self.head(level);
            // SAFETY: the head is a ring while its level is occupied, and the iterator borrows the queues.
            let first = unsafe { Links::next(head) };
            // SAFETY: as above.
            let links = core::iter::successors(Some(first), |at| Some(unsafe { Links::next(*at) }));
            // SAFETY: what is in the ring beside the head is an entity's.
            links.take_while(move |at| *at != head).map(|at| unsafe { entity_of(at) })
        })
    }
}

/// An entity's links, by a pointer that is good for the whole entity.
#[inline(always)]
fn links_of(entity: Handle) -> NonNull<Links> {
    // SAFETY: inside of the entity.
    unsafe { entity.pointer().byte_add(offset_of!(Entity, links)).cast() }
}

/// The entity around its links.
///
/// # Safety
/// They are the `links` of an entity of the queue that asks.
unsafe fn entity_of(links: NonNull<Links>) -> Handle {
    // SAFETY: by the contract; the pointer that went in was good for the whole entity.
    unsafe { Handle::new(links.byte_sub(offset_of!(Entity, links)).cast()) }
}
