//! Having other CPUs do something, and waiting until they have.

use super::{Benchmark, SINGLES};
use crate::calls;

pub(super) const ALL: &[Benchmark] = &[
    Benchmark::pair("smp_call_single", |place, _| {
        let there = place.there.unwrap_or(place.here);
        place.singles(SINGLES, || _ = calls::single(there, || ()))
    }),
    Benchmark::pair("smp_call_function_all", |place, _| place.singles(SINGLES, || _ = calls::others(|_| ()))),
];
