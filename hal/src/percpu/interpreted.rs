//! The template under [Miri](https://github.com/rust-lang/miri), the interpreter that finds undefined behaviour.
//!
//! Nothing is linked there: statics of one section do not lie side by side, and there are no bounds to ask for. So a variable
//! gets its place in all areas when it is first used, and an area gets the variables that have a place when it is made. Bases
//! are addresses of areas.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::vec::Vec;

use super::area::{AREA_ALIGN, Initializer};

/// The room for variables in an area.
const ROOM: usize = 0x1_0000;

/// # Invariants
/// Every area in `areas` has the initial value of every variable in `places`, or what was stored there since.
struct Layout {
    places: Vec<Place>,
    areas: Vec<usize>,
    initializers: Vec<Initializer>,
    used: usize,
}

struct Place {
    template: usize,
    bytes: usize,
    offset: usize,
}

static LAYOUT: Mutex<Layout> =
    Mutex::new(Layout { places: Vec::new(), areas: Vec::new(), initializers: Vec::new(), used: 0 });

fn layout() -> MutexGuard<'static, Layout> {
    LAYOUT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The addresses between which an area's variables lie, in the area at 0.
pub(super) const fn bounds() -> (usize, usize) {
    (0, ROOM)
}

/// Where the variable `template` is in the area at 0. Takes a lock.
pub(super) fn place_of<T>(template: *const T) -> usize {
    let mut layout = layout();
    let address = template.expose_provenance();
    if let Some(place) = layout.places.iter().find(|place| place.template == address) {
        return place.offset;
    }
    let bytes = size_of::<T>();
    let offset = layout.used.next_multiple_of(align_of::<T>());
    layout.used = offset + bytes;
    assert!(layout.used <= ROOM, "more per-CPU variables than areas have room for");
    let place = Place { template: address, bytes, offset };
    for area in &layout.areas {
        // SAFETY: the areas were given to `add_area`, and nobody knows this place in them.
        unsafe { place.fill(*area) };
    }
    layout.places.push(place);
    offset
}

/// Another area.
///
/// # Safety
/// It has [`bounds`] bytes, aligned to [`AREA_ALIGN`], that stay for ever and are used for nothing else.
pub(super) unsafe fn add_area(area: usize) {
    let mut layout = layout();
    assert!(area.is_multiple_of(AREA_ALIGN));
    for place in &layout.places {
        // SAFETY: by the contract.
        unsafe { place.fill(area) };
    }
    layout.areas.push(area);
}

impl Place {
    /// # Safety
    /// The bytes at this place of the area are writable, and not in use.
    unsafe fn fill(&self, area: usize) {
        let to = core::ptr::with_exposed_provenance_mut::<core::mem::MaybeUninit<u8>>(area + self.offset);
        let from = core::ptr::with_exposed_provenance::<core::mem::MaybeUninit<u8>>(self.template);
        // SAFETY: by the contract; a template is a static that nobody writes to.
        unsafe { to.copy_from_nonoverlapping(from, self.bytes) };
    }
}

/// Called before `main` by each use of [`percpu_init!`](crate::percpu_init!).
pub fn add_initializer(function: fn(crate::CpuId)) {
    layout().initializers.push(Initializer(function));
}

pub(super) fn initializers() -> Vec<Initializer> {
    layout().initializers.iter().map(|initializer| Initializer(initializer.0)).collect()
}
