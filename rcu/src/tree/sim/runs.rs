//! Runs of the simulation, and the mistakes that they notice.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use proptest::prelude::*;

use super::world::{EVENTS, Plan, Random, run, run_with};
use crate::tree::Readers;
use crate::tree::faults::Fault;

const SMALL: Plan = Plan {
    cpus: 4,
    leaf: 16,
    inner: 64,
    readers: Readers::Preemptible,
    settle_every: 2_000,
    seed: 1,
    fault: None,
    hasty: false,
};

/// The shapes that are tried: one leaf, leaves under a root, three levels, leaves of one CPU.
const SHAPES: [(u32, u32, u32); 6] =
    [(1, 16, 64), (2, 1, 2), (4, 16, 64), (7, 2, 2), (19, 4, 3), (64, 16, 64)];

fn plans() -> impl Iterator<Item = Plan> {
    [Readers::NonPreemptible, Readers::Preemptible].into_iter().flat_map(|readers| {
        SHAPES.into_iter().map(move |(cpus, leaf, inner)| Plan {
            cpus,
            leaf,
            inner,
            readers,
            settle_every: 500 * (cpus + 3),
            ..SMALL
        })
    })
}

/// A run that has exercised everything.
fn sound(plan: Plan, events: u32) -> u64 {
    let [periods, expedited, callbacks, barriers] = run(plan, events);
    assert!(
        periods > 3 && expedited > 1 && callbacks > 100 && barriers > 1,
        "nothing happened: {periods} {expedited} {callbacks} {barriers} in {plan:?}"
    );
    periods
}

#[test]
fn no_period_ends_early_and_all_end() {
    for plan in plans() {
        for seed in 1..=3 {
            sound(Plan { seed, ..plan }, 3_000 * (plan.cpus + 3));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 20_000, ..ProptestConfig::with_cases(100) })]

    /// The same from lists of choices, which shrink to a short story when they find something.
    #[test]
    fn any_choices(
        choices in prop::collection::vec(any::<u32>(), 0..3_000),
        preemptible in any::<bool>(),
        cpus in 1..6_u32,
        leaf in 1..4_u32,
    ) {
        let readers = if preemptible { Readers::Preemptible } else { Readers::NonPreemptible };
        let plan = Plan { cpus, leaf, inner: 2, readers, settle_every: 300, ..SMALL };
        let events = choices.len() as u32 / 5;
        run_with(plan, Random::Listed(choices.into_iter()), events);
    }
}

#[test]
fn three_levels_of_many_cpus() {
    sound(Plan { cpus: 512, leaf: 8, inner: 16, settle_every: 200_000, ..SMALL }, 600_000);
}

/// For so many seconds as `QUIESCE_FUZZ_SECONDS` says; else not at all.
#[test]
fn fuzz() {
    let plans: Vec<Plan> = plans().collect();
    test_support::fuzz("grace periods", |seed| {
        let plan = Plan { seed, ..plans[seed as usize % plans.len()] };
        sound(plan, 60_000)
    });
}

/// A million grace periods; `cargo test --release -p rcu --lib -- --ignored million --nocapture`.
#[test]
#[ignore = "takes a minute"]
fn a_million_periods() {
    let (begun, mut periods, mut seed) = (Instant::now(), 0, 1_000);
    while periods < 1_000_000 {
        for plan in plans() {
            periods += sound(Plan { seed, ..plan }, 60_000);
            seed += 1;
        }
    }
    println!("{periods} grace periods, {} runs, {:.0} s", seed - 1_000, begun.elapsed().as_secs_f64());
}

/// All that is done with 4,096 CPUs; as above, with `4096`.
#[test]
#[ignore = "takes minutes"]
fn runs_of_4096_cpus() {
    for readers in [Readers::NonPreemptible, Readers::Preemptible] {
        let plan = Plan { cpus: 4096, readers, settle_every: 2_500_000, ..SMALL };
        println!("{readers:?}: {} grace periods", sound(plan, 10_000_000));
    }
}

/// Runs of some seeds and shapes with this mistake; one of them must be stopped by the oracle with these words.
fn noticed(fault: Fault, words: &str) {
    caught(&format!("{fault:?}"), words, |plan| Plan { fault: Some(fault), ..plan });
}

fn caught(what: &str, words: &str, break_it: impl Fn(Plan) -> Plan) {
    let (mut runs, mut events) = (0, 0);
    for seed in 1..=10 {
        for plan in plans() {
            runs += 1;
            let plan = break_it(Plan { seed, ..plan });
            let ended = catch_unwind(AssertUnwindSafe(|| run(plan, 2_000 * (plan.cpus + 3))));
            events += EVENTS.get();
            let Err(panic) = ended else { continue };
            let said = panic.downcast_ref::<String>().map(String::as_str);
            let said = said.or(panic.downcast_ref::<&str>().copied()).unwrap_or_default();
            assert!(said.contains(words), "{what} was noticed by something else: {said}");
            println!("{what}: noticed by run {runs}, after {events} events");
            return;
        }
    }
    panic!("{what} was not noticed in {runs} runs");
}

/// What was read in a preemptible section is still used when that has ended inside of a region without preemption.
#[test]
fn an_unlock_that_reports_without_preemption_is_noticed() {
    caught("a hasty unlock", "ended before a reader", |plan| Plan { hasty: true, ..plan });
}

macro_rules! mistakes {
    ($($name:ident: $Fault:ident, $words:literal;)*) => {$(
        #[test]
        fn $name() {
            noticed(Fault::$Fault, $words);
        }
    )*};
}

mistakes! {
    a_report_inside_of_a_reader_is_noticed: ReportInReader, "ended before a reader";
    a_tick_that_is_taken_for_a_quiescent_state_is_noticed: TickIsQuiescent, "ended before a reader";
    a_callback_that_is_called_one_period_early_is_noticed: CalledOnePeriodEarly, "before a full grace period";
    a_cpu_that_is_skipped_is_noticed: SkippedCpu, "ended before a reader";
    a_preempted_reader_that_is_forgotten_is_noticed: ForgottenReader, "ended before a reader";
    a_reader_preempted_twice_and_forgotten_is_noticed: ForgottenNestedReader, "ended before a reader";
    a_cpu_that_goes_down_silently_is_noticed: SilentDeath, "does not end";
    a_barrier_that_misses_callbacks_in_flight_is_noticed: BarrierMissesInFlight, "a barrier was passed";
    a_lost_request_is_noticed: LostRequest, "does not";
    an_end_in_the_middle_of_a_report_is_noticed: EndGoesUnnoticed, "a callback is lost";
    an_expedited_period_that_forgets_readers_is_noticed: ExpeditedForgetsReaders, "ended before a reader";
}
