//! Grace periods under load, for a moment. `torture rcu` in the console runs the same for as long as one likes.

use crate::{check, check_eq, cpus, kernel_test, rcu, skip, torture};

kernel_test! {
    task, limit_ms = 60_000,
    fn readers_see_no_object_after_its_grace_period_while_cpus_come_and_go(cx) {
        let ms = if cfg!(feature = "chaos") { 200 } else { 1_500 };
        let report = torture::try_for("rcu", None, &["hotplug", "stutter", "ticks", "nmi"], ms, cx);
        report.tallies.iter().for_each(|tally| ::log::info!("{}: {}", tally.what, tally.count));
        check_eq!(report.errors, 0);
        let lacking = report.lacking();
        check!(lacking.is_none(), "{lacking:?}");
        Ok(())
    }
}

kernel_test! {
    task, limit_ms = 60_000,
    fn grace_periods_that_end_early_are_caught(cx) {
        if !rcu::PREEMPTIBLE && cpus::online_count() == 1 {
            skip!("a reader that is not preempted meets no writer");
        }
        check!(torture::try_for("rcu", Some("rcu-early"), &[], 10_000, cx).errors > 0);
        Ok(())
    }
}
