//! The names of what is measured, and what may be said of each.

use anyhow::{Result, bail};

/// Everything that either kernel measures, in the order of the tables.
pub(super) const NAMES: &[&str] = &[
    "empty_loop",
    "preempt_disable_enable",
    "local_irq_save_restore",
    "local_irq_disable_enable",
    "local_bh_disable_enable",
    "spin_lock_unlock",
    "spin_lock_irqsave_restore",
    "spin_lock_irq",
    "spin_lock_bh",
    "spin_trylock_unlock",
    "read_lock_unlock",
    "write_lock_unlock",
    "seqlock_read",
    "seqlock_write",
    "mutex_lock_unlock",
    "rwsem_down_up_read",
    "rwsem_down_up_write",
    "semaphore_down_up",
    "atomic_inc",
    "this_cpu_inc",
    "rcu_read_lock_unlock",
    "rcu_deref_section",
    "srcu_read_lock_unlock",
    "list_add_del",
    "complete_wait_nonblocking",
    "wake_up_empty_waitqueue",
    "kernel_fpu_begin_end",
    "ktime_get",
    "cond_resched",
    "mod_timer_pending_requeue",
    "mod_timer_pending_same_bucket",
    "add_timer_timer_delete_pair",
    "add_timer_1e5",
    "timer_delete_1e5",
    "hrtimer_start_cancel_far",
    "hrtimer_start_cancel_near",
    "hrtimer_latency_idle",
    "hrtimer_latency_busy",
    "tasklet_raise_to_run",
    "irq_work_self_ipi",
    "workqueue_queue_to_run_same_cpu",
    "pingpong_completion_same_cpu",
    "pingpong_waitqueue_same_cpu",
    "pingpong_completion_cross_cpu",
    "pingpong_waitqueue_cross_cpu",
    "mass_expiry_1jiffy_1e5",
    "mass_expiry_10jiffies_1e5",
    "call_rcu_enqueue_1e5",
    "call_rcu_to_barrier_1e5",
    "synchronize_rcu",
    "synchronize_rcu_expedited",
    "rcu_barrier_idle",
    "synchronize_srcu",
    "smp_call_single",
    "smp_call_function_all",
    "timer_late_L0",
    "timer_late_L1",
    "timer_late_L2",
    "spinlock_throughput",
    "spinlock_irqsave_throughput",
    "mutex_throughput",
    "rwlock_read_throughput",
    "seqlock_read_throughput",
    "refcount_read_throughput",
    "rcu_read_throughput",
];

/// What says how fast one CPU computes, and not how long somebody sleeps, is late, or how all CPUs get along: counted in
/// instructions these figures are the same in every run.
pub(super) fn is_counted(name: &str) -> bool {
    !UNCOUNTED.iter().any(|part| name.contains(part))
}

/// Parts of the names of all others.
const UNCOUNTED: &[&str] = &["throughput", "_late_", "latency", "synchronize", "smp_call", "cross_cpu"];

/// The filters that leave out what [`is_counted`] is false for.
pub(super) fn only_counted() -> Vec<String> {
    UNCOUNTED.iter().map(|part| format!("!{part}")).collect()
}

/// Every filter must be a part of a name, or a part with `!` before it; what it may have meant is said.
pub(super) fn check_filters(filters: &[String]) -> Result<()> {
    for filter in filters {
        let part = filter.strip_prefix('!').unwrap_or(filter);
        if part.is_empty() || part.contains(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
            bail!("`{filter}` is not a part of a name, such as `spin_lock`, nor one with `!` before it");
        }
        if !NAMES.iter().any(|name| name.contains(part)) {
            bail!("no operation's name contains `{part}`; {}", meant(part));
        }
    }
    Ok(())
}

fn meant(part: &str) -> String {
    let mut near: Vec<(usize, &str)> =
        NAMES.iter().map(|name| (strsim::damerau_levenshtein(part, name), *name)).collect();
    near.sort_unstable();
    let words = |name: &&str| name.split('_').any(|word| strsim::damerau_levenshtein(part, word) <= 1);
    let mut suggestions: Vec<&str> = NAMES.iter().copied().filter(words).collect();
    suggestions
        .extend(near.iter().filter(|(distance, _)| *distance <= part.len() / 2).map(|(_, name)| *name));
    suggestions.dedup();
    suggestions.truncate(4);
    if suggestions.is_empty() {
        format!("there are: {}", NAMES.join(" "))
    } else {
        format!("perhaps {}", suggestions.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(filter: &str) -> Result<()> {
        check_filters(&[filter.to_owned()])
    }

    #[test]
    fn filters_are_parts_of_names() {
        for good in ["spin", "!throughput", "pingpong_completion_same_cpu", "1e5"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in ["spinn", "!", "", "spin lock", "spin;poweroff", "xyz"] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_was_meant_is_said() {
        assert!(check("mutexx").unwrap_err().to_string().contains("mutex_lock_unlock"));
        assert!(check("ktme_get").unwrap_err().to_string().contains("ktime_get"));
        assert!(check("qqqqqqqq").unwrap_err().to_string().contains("empty_loop"));
    }

    #[test]
    fn what_waits_is_not_counted() {
        for name in ["spin_lock_unlock", "pingpong_waitqueue_same_cpu", "mass_expiry_1jiffy_1e5"] {
            assert!(is_counted(name), "{name}");
        }
        for name in ["spinlock_throughput", "timer_late_L1", "hrtimer_latency_busy", "synchronize_rcu"] {
            assert!(!is_counted(name), "{name}");
        }
    }

    #[test]
    fn names_are_unique() {
        let mut names = NAMES.to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), NAMES.len());
    }

    /// The definitions are for people, and must not lack one.
    #[test]
    fn every_name_is_defined() {
        let chapter = std::fs::read_to_string(crate::workspace::root().join("docs/benchmarks.md")).unwrap();
        for name in NAMES {
            assert!(chapter.contains(&format!("`{name}`")), "docs/benchmarks.md does not define {name}");
        }
    }

    /// What this side's names say must be in the module too, or comparing them would compare nothing.
    #[test]
    fn linux_measures_every_name() {
        let file = crate::workspace::root().join("bench/linux/quiesce_bench.c");
        let module = std::fs::read_to_string(file).unwrap();
        for name in NAMES {
            assert!(module.contains(&format!("B({name}, ")), "the module does not measure {name}");
        }
    }
}
