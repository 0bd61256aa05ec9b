//! What a new order, or a new fact about a class, makes wrong where handlers are concerned.
//!
//! A handler that waits for a class, and comes where another class is held, is an edge from the latter to the former. A
//! circle with such an edge is a strong path the other way: from a class that handlers wait for to one held exposed.

use super::graph::{ClassId, Graph};
use super::report::Finding;
use super::search::{Direction, Path, Place};
use super::usage::{Irq, Mark, Use};

/// Kinds of reports, of which each is made once for the same classes.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Circular,
    Recursive,
    Inconsistent,
    Inversion,
    WaitContext,
    BadUnlock,
}

/// The strongest way in which handlers wait for the class at the end of a path that departs as `place` says, if that
/// blocks them.
fn handler_waits(graph: &Graph, place: Place, irq: Irq) -> Option<Use> {
    let is_so = |weak: &bool| {
        graph.usage(place.class).has(Use::InHandler { irq, weak: *weak }) && place.blocks(*weak)
    };
    [false, true].into_iter().find(is_so).map(|weak| Use::InHandler { irq, weak })
}

/// The same for being held where handlers come, for a path that arrives as `place` says.
fn held_exposed(graph: &Graph, place: Place, irq: Irq) -> Option<Use> {
    let is_so =
        |weak: &bool| graph.usage(place.class).has(Use::Exposed { irq, weak: *weak }) && place.blocks(*weak);
    [false, true].into_iter().find(is_so).map(|weak| Use::Exposed { irq, weak })
}

/// What a new fact about `class` makes wrong.
pub(super) fn follow_use(graph: &mut Graph, class: ClassId, what: Use) -> Option<Finding> {
    let (irq, goal, direction) = match what {
        Use::InHandler { irq, weak } => {
            let start = Place { class, weak };
            let goal = graph.search(start, Direction::Forward, |g, p| held_exposed(g, p, irq).is_some())?;
            (irq, goal, Direction::Forward)
        }
        Use::Exposed { irq, weak } => {
            let start = Place { class, weak };
            let goal = graph.search(start, Direction::Backward, |g, p| handler_waits(g, p, irq).is_some())?;
            (irq, goal, Direction::Backward)
        }
    };
    let path = graph.path_to(goal, direction);
    let (safe, handler, exposed, held) = match direction {
        Direction::Forward => (class, what, goal.class, held_exposed(graph, goal, irq)?),
        Direction::Backward => (goal.class, handler_waits(graph, goal, irq)?, class, what),
    };
    let (handler, held) = (graph.mark(safe, handler), graph.mark(exposed, held));
    let label = graph.label(safe)?;
    if safe == exposed {
        return graph
            .is_news(Kind::Inconsistent as u8 | (irq as u8) << 4, safe, safe)
            .then_some(Finding::Inconsistent { class: label, irq, handler, exposed: held });
    }
    inversion(graph, irq, (safe, handler), (exposed, held), path)
}

/// The path through a new edge from a class that handlers wait for to one that is held where they come.
pub(super) fn inversion_through(
    graph: &mut Graph,
    departs: Place,
    edge: u16,
    arrives: Place,
    irq: Irq,
) -> Option<Finding> {
    let safe = graph.search(departs, Direction::Backward, |g, p| handler_waits(g, p, irq).is_some())?;
    let before = graph.path_to(safe, Direction::Backward);
    let exposed = graph.search(arrives, Direction::Forward, |g, p| held_exposed(g, p, irq).is_some())?;
    let after = graph.path_to(exposed, Direction::Forward);
    let path = before.joined(edge, &after);
    let handler = graph.mark(safe.class, handler_waits(graph, safe, irq)?);
    let held = graph.mark(exposed.class, held_exposed(graph, exposed, irq)?);
    inversion(graph, irq, (safe.class, handler), (exposed.class, held), path)
}

fn inversion(
    graph: &mut Graph,
    irq: Irq,
    (safe, handler): (ClassId, Mark),
    (exposed, held): (ClassId, Mark),
    path: Path,
) -> Option<Finding> {
    if !graph.is_news(Kind::Inversion as u8 | (irq as u8) << 4, safe, exposed) {
        return None;
    }
    Some(Finding::Inversion {
        irq,
        safe: (graph.label(safe)?, handler),
        exposed: (graph.label(exposed)?, held),
        path,
    })
}
