//! Searching the graph for strong paths.
//!
//! Forwards, a place in the search is a class and how it was arrived at; backwards, a class and how it is departed from.
//! Both are one rule seen from two sides: a step is possible unless both its edge's near end and the place are weak.

use core::panic::Location;

use super::class::Label;
use super::graph::{CLASSES, ClassId, Edge, Graph};

/// How many edges of a path a report names.
pub(super) const PATH: usize = 16;

/// A class, and whether the path meets it weakly.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub(super) class: ClassId,
    pub(super) weak: bool,
}

impl Place {
    const fn index(self) -> usize {
        self.class.index() * 2 + self.weak as usize
    }

    /// Whether a path that arrives (departs) as this says is blocked by one that departs (arrives) so.
    pub(super) const fn blocks(self, weak: bool) -> bool {
        !(self.weak && weak)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Direction {
    Forward,
    Backward,
}

/// What a search writes down: for each place by which edge it was reached first, and from where.
pub(super) struct Scratch {
    round: u32,
    seen: [u32; CLASSES * 2],
    by: [u16; CLASSES * 2],
    from: [u16; CLASSES * 2],
    queue: [u16; CLASSES * 2],
}

impl Scratch {
    pub(super) const fn new() -> Scratch {
        Scratch {
            round: 0,
            seen: [0; CLASSES * 2],
            by: [0; CLASSES * 2],
            from: [0; CLASSES * 2],
            queue: [0; CLASSES * 2],
        }
    }
}

/// One edge of a path, with names.
#[derive(Clone, Copy)]
pub(super) struct Step {
    pub(super) from: Label,
    pub(super) to: Label,
    /// Where it was first seen: where `from` was taken, and where `to` was.
    pub(super) held_at: &'static Location<'static>,
    pub(super) waited_at: &'static Location<'static>,
}

/// Some edges, one after the other, by their numbers, which stay valid.
#[derive(Clone, Copy)]
pub(super) struct Path {
    edges: [u16; PATH],
    count: usize,
    /// There are more.
    pub(super) cut: bool,
}

impl Path {
    pub(super) const EMPTY: Path = Path { edges: [0; PATH], count: 0, cut: false };

    fn push(&mut self, edge: u16) {
        match self.edges.get_mut(self.count) {
            Some(slot) => {
                *slot = edge;
                self.count += 1;
            }
            None => self.cut = true,
        }
    }

    pub(super) fn edges(&self) -> &[u16] {
        &self.edges[..self.count]
    }

    /// This one, then `edge`, then `other`.
    pub(super) fn joined(mut self, edge: u16, other: &Path) -> Path {
        self.push(edge);
        other.edges().iter().for_each(|edge| self.push(*edge));
        self.cut |= other.cut;
        self
    }
}

impl Graph {
    /// The nearest place that is strongly connected with `start` and of which `is_goal` is true; `start` itself first.
    /// Breadth first, so that the path is a shortest one. Cost: O(classes + edges).
    pub(super) fn search(
        &mut self,
        start: Place,
        direction: Direction,
        is_goal: impl Fn(&Graph, Place) -> bool,
    ) -> Option<Place> {
        self.scratch.round = self.scratch.round.wrapping_add(1);
        if self.scratch.round == 0 {
            // The numbers start again: what is left of the last round of this number must go.
            self.scratch.seen = [0; CLASSES * 2];
            self.scratch.round = 1;
        }
        let round = self.scratch.round;
        self.scratch.seen[start.index()] = round;
        self.scratch.by[start.index()] = 0;
        self.scratch.queue[0] = start.index() as u16;
        let (mut done, mut queued) = (0, 1);
        while done < queued {
            let index = self.scratch.queue[done];
            done += 1;
            let place = Place { class: ClassId(index / 2), weak: index % 2 == 1 };
            if is_goal(self, place) {
                return Some(place);
            }
            let class = &self.classes[place.class.index()];
            let mut at = if direction == Direction::Forward { class.out } else { class.into };
            while at != 0 {
                let edge = &self.edges[usize::from(at)];
                let s = edge.strength;
                let (near, far, class, next) = match direction {
                    Direction::Forward => (s.departs_weakly, s.arrives_weakly, edge.to, edge.next_out),
                    Direction::Backward => (s.arrives_weakly, s.departs_weakly, edge.from, edge.next_into),
                };
                let to = Place { class, weak: far };
                if place.blocks(near) && self.scratch.seen[to.index()] != round {
                    self.scratch.seen[to.index()] = round;
                    self.scratch.by[to.index()] = at;
                    self.scratch.from[to.index()] = index;
                    self.scratch.queue[queued] = to.index() as u16;
                    queued += 1;
                }
                at = next;
            }
        }
        None
    }

    /// The path that the last search, in `direction`, found to `goal`, in the order of the edges.
    pub(super) fn path_to(&self, goal: Place, direction: Direction) -> Path {
        let mut path = Path::EMPTY;
        let mut at = goal.index();
        while self.scratch.by[at] != 0 {
            path.push(self.scratch.by[at]);
            at = self.scratch.from[at].into();
        }
        if direction == Direction::Forward {
            path.edges[..path.count].reverse();
        }
        path
    }

    /// The edge, with names.
    pub(super) fn step(&self, edge: u16) -> Option<Step> {
        let Edge { from, to, held_at, waited_at, .. } = self.edges[usize::from(edge)];
        Some(Step { from: self.label(from)?, to: self.label(to)?, held_at: held_at?, waited_at: waited_at? })
    }
}
