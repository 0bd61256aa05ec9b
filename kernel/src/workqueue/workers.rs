//! The worker tasks.

use core::sync::atomic::{AtomicU32, Ordering};

use hal::CpuId;
use sync::TaskCx;

use super::pool_at;
use crate::task::{Builder, SpawnError};

/// Where a pool's workers run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    On(CpuId),
    Anywhere,
}

/// Pages of a worker's stack: it runs functions of all kinds.
const STACK_PAGES: usize = 4;

/// Tells workers' names apart.
static STARTED: AtomicU32 = AtomicU32::new(0);

/// Starts a pool's first worker.
pub(super) fn start_first(place: Place) -> Result<(), SpawnError> {
    if pool_at(place).reserve() { start(place) } else { Ok(()) }
}

/// Starts a worker for which the pool has room.
fn start(place: Place) -> Result<(), SpawnError> {
    let number = STARTED.fetch_add(1, Ordering::Relaxed);
    let builder = match place {
        Place::On(cpu) => Builder::named(format_args!("work/{cpu}.{number}")).part_of(cpu),
        Place::Anywhere => Builder::named(format_args!("work/any.{number}")),
    };
    builder.stack_pages(STACK_PAGES).spawn(move |cx| work(place, cx))?;
    Ok(())
}

fn work(place: Place, cx: &mut TaskCx) {
    pool_at(place).serve(cx, &mut || match start(place) {
        Ok(()) => true,
        Err(error) => {
            log::warn!("a work queue goes on with the workers that it has: {error}");
            false
        }
    });
}
