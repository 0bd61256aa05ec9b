//! Schedules on demand.
//!
//! Slow paths call [`Platform::chaos_point`](crate::Platform::chaos_point) around their atomics. Ordinary builds compile
//! it to nothing. A build with the `chaos` feature draws from a generator per CPU, seeded at boot, and at some points
//! pauses (which under a deterministic emulator hands over to another CPU) or dawdles. The same seed gives the same
//! schedule; another seed gives another.

/// A small generator of well-mixed numbers (the "splitmix" construction: a counter, then a bijective mixer).
/// Not for secrets.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// A generator that is a function of `seed` alone.
    pub const fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    /// The next number, uniform over all of `u64`.
    pub const fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }
}

/// 2^64 divided by the golden ratio: the step whose multiples spread most evenly.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// A bijection of `u64` in which every input bit flips about half of the output bits.
pub const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// What a chaos point does with one drawn number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// Nothing: the common case, so that the code under test gets on.
    Pass,
    /// Execute `pause` this many times.
    Pause(u32),
}

/// Turns a drawn number into a decision: three in four pass, most of the rest pause once or a few times, and one in 64
/// dawdles for up to 255 pauses, long enough for other CPUs to come by several times.
pub const fn decide(drawn: u64) -> Decision {
    match drawn & 63 {
        0 => Decision::Pause(((drawn >> 8) & 255) as u32),
        1..=15 => Decision::Pause(((drawn >> 8) & 3) as u32 + 1),
        _ => Decision::Pass,
    }
}

#[cfg(feature = "chaos")]
pub use enabled::{point, seed};

#[cfg(feature = "chaos")]
mod enabled {
    use core::sync::atomic::{AtomicU64, Ordering};

    use super::{Decision, GOLDEN, decide, mix};

    crate::percpu! {
        /// The state of this CPU's generator: 0 until seeded, and then never 0 in practice.
        static STATE: AtomicU64 = AtomicU64::new(0);
    }

    /// The seed of the whole run; 0 is "not seeded", in which all points pass.
    static SEED: AtomicU64 = AtomicU64::new(0);

    /// Starts the generators of all CPUs. Call once, early; the numbers drawn by a CPU depend on the seed and its id
    /// alone.
    pub fn seed(seed: u64) {
        SEED.store(mix(seed ^ GOLDEN) | 1, Ordering::Relaxed);
    }

    /// One chaos point: draws, decides and perhaps pauses.
    pub fn point<P: crate::Platform>() {
        let seed = SEED.load(Ordering::Relaxed);
        if seed == 0 {
            return;
        }
        let mut state = STATE.read();
        if state == 0 {
            state = mix(seed ^ mix(u64::from(P::cpu().as_u32()) + 1));
        }
        state = state.wrapping_add(GOLDEN);
        STATE.write(state);
        if let Decision::Pause(times) = decide(mix(state)) {
            for _ in 0..times {
                P::relax();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_names_its_sequence() {
        let draw = |seed| {
            let mut rng = Rng::new(seed);
            core::array::from_fn::<u64, 8, _>(|_| rng.next_u64())
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(1 ^ (1 << 63)));
    }

    #[test]
    fn most_points_pass_and_some_dawdle() {
        let mut rng = Rng::new(7);
        let decisions: std::vec::Vec<_> = (0..64_000).map(|_| decide(rng.next_u64())).collect();
        let passed = decisions.iter().filter(|d| **d == Decision::Pass).count();
        let long = decisions.iter().filter(|d| matches!(d, Decision::Pause(n) if *n > 16)).count();
        assert!((46_000..50_000).contains(&passed), "{passed}");
        assert!((700..1_200).contains(&long), "{long}");
    }
}
