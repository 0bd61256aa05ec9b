//! Tasks: made, run, waited for, told to end; and what is left of them.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use alloc::sync::Arc;
use alloc::vec::Vec;
use hal::platform::Wakeup;
use hal::{CpuId, Native, Platform};
use sync::wait::{Limits, WaitError, WaitQueue};
use sync::{Completion, Condvar, Mutex, Semaphore, TaskCx};

use crate::task::{self, Builder, JoinHandle, SpawnError, State};
use crate::{check, check_eq, cpus, kernel_test, memory, skip};

/// Waits until the reaper has given back what ended tasks left.
fn settle(cx: &mut TaskCx, as_before: impl Fn() -> bool) -> bool {
    let patience = Native::now_ns() + 10_000_000_000;
    while !as_before() && Native::now_ns() < patience {
        cx.block(Some(Native::now_ns() + 1_000_000));
    }
    as_before()
}

fn number_of_tasks() -> usize {
    let mut count = 0;
    task::for_each(|_| count += 1);
    count
}

fn in_use() -> u64 {
    let frames = memory::stats().frames;
    frames.total - frames.free
}

kernel_test! {
    task,
    fn smoke_a_task_runs_and_its_result_comes_back(cx) {
        let words = alloc::vec![1_u64, 2, 3];
        let handle = task::spawn("adder", move |_cx| words.iter().sum::<u64>()).map_err(fail)?;
        check_eq!(handle.task().name(), "adder");
        check_eq!(handle.join(cx), 6);
        Ok(())
    }
}

/// An error of spawning, as a test's verdict.
pub(super) fn fail(error: SpawnError) -> crate::testing::Verdict {
    crate::testing::failed(format_args!("{error}"))
}

kernel_test! {
    task,
    fn a_result_that_nobody_takes_is_dropped_with_the_task(cx) {
        let witness = Arc::new(());
        let kept = Arc::clone(&witness);
        drop(task::spawn("forgotten", move |_cx| kept).map_err(fail)?);
        check!(settle(cx, || Arc::strong_count(&witness) == 1));
        Ok(())
    }
}

kernel_test! {
    task,
    fn many_tasks_run_on_all_cpus(cx) {
        static SUM: AtomicU64 = AtomicU64::new(0);
        SUM.store(0, Ordering::Relaxed);
        let handles: Result<Vec<JoinHandle<CpuId>>, SpawnError> = (0..200_u64)
            .map(|number| {
                Builder::named(format_args!("sum/{number}")).spawn(move |cx| {
                    for _ in 0..20 {
                        SUM.fetch_add(number, Ordering::Relaxed);
                        task::yield_now(cx);
                    }
                    Native::cpu()
                })
            })
            .collect();
        for handle in handles.map_err(fail)? {
            handle.join(cx);
        }
        check_eq!(SUM.load(Ordering::Relaxed), 20 * 199 * 200 / 2);
        Ok(())
    }
}

kernel_test! {
    task,
    limit_ms = 60_000,
    fn ten_thousand_tasks_in_24_kib_each(cx) {
        const TASKS: u64 = 10_000;
        static PRESENT: AtomicU64 = AtomicU64::new(0);
        static GO: WaitQueue = WaitQueue::new();
        static GONE: AtomicU32 = AtomicU32::new(0);
        if memory::stats().free() < TASKS * 26 * 1024 {
            skip!("{} MiB of free memory are too few", memory::stats().free() >> 20);
        }
        PRESENT.store(0, Ordering::Relaxed);
        GONE.store(0, Ordering::Relaxed);
        let before = memory::stats().free();
        let begun = Native::now_ns();
        let mut handles = Vec::with_capacity(TASKS as usize);
        for number in 0..TASKS {
            let handle = Builder::named(format_args!("one of many/{number}")).spawn(move |cx| {
                PRESENT.fetch_add(1, Ordering::Relaxed);
                GO.wait(cx, || GONE.load(Ordering::Relaxed) != 0);
                number
            });
            handles.push(handle.map_err(fail)?);
        }
        while PRESENT.load(Ordering::Relaxed) != TASKS {
            cx.block(Some(Native::now_ns() + 1_000_000));
        }
        let each = (before - memory::stats().free()) / TASKS;
        let made = Native::now_ns();
        GONE.store(1, Ordering::Relaxed);
        GO.wake_all();
        let sum: u64 = handles.into_iter().map(|handle| handle.join(cx)).sum();
        check_eq!(sum, TASKS * (TASKS - 1) / 2);
        check!(each <= 24 * 1024, "{each} bytes a task");
        let ms = |from: u64, to: u64| (to - from) / 1_000_000;
        let (making, ending) = (ms(begun, made), ms(made, Native::now_ns()));
        ::log::info!("{TASKS} tasks at once, {each} bytes each; made in {making} ms, ended in {ending} ms");
        Ok(())
    }
}

kernel_test! {
    task,
    limit_ms = 60_000,
    fn out_of_memory_is_an_error_and_leaves_nothing(cx) {
        const MOST: usize = 4_096;
        // Makes tasks until memory is out, ends them, and says how many there were and how many frames are free then.
        let tasks = number_of_tasks();
        let exhaust = |cx: &mut TaskCx, handles: &mut Vec<JoinHandle<()>>| {
            loop {
                match task::spawn("filler", |cx| while !task::is_cancelled() { task::park(cx) }) {
                    Ok(handle) if handles.len() < MOST => handles.push(handle),
                    Ok(handle) => break handle.cancel(),
                    Err(_) => break,
                }
            }
            let made = handles.len();
            for handle in handles.drain(..) {
                handle.cancel();
                handle.join(cx);
            }
            // A worker that had nothing to do may have left meanwhile.
            settle(cx, || number_of_tasks() <= tasks);
            // The reaper has them; it has given back what they left when no more frames come back.
            let mut seen = 0;
            while seen != memory::stats().frames.free {
                seen = memory::stats().frames.free;
                let until = Native::now_ns() + 50_000_000;
                while cx.block(Some(until)) == Wakeup::Woken {}
            }
            (made, seen)
        };
        let mut handles = Vec::with_capacity(MOST);
        // What is left is little, so that it is soon gone.
        let mut ballast = Vec::with_capacity(4_096);
        while memory::stats().frames.free > 2_000 {
            let Some(frames) = memory::allocate_frames(8) else { break };
            ballast.push(frames);
        }
        // The first time the heap takes frames for records, and keeps some.
        let (first, free) = exhaust(cx, &mut handles);
        let (second, left) = exhaust(cx, &mut handles);
        for frames in ballast {
            memory::free_frames(frames, 8);
        }
        check!((10..MOST).contains(&first), "{first} tasks");
        check!(second + 4 >= first, "{first} tasks the first time, {second} the second time");
        check!(left + 16 >= free, "{free} frames were free after the first time, {left} after the second");
        Ok(())
    }
}

kernel_test! {
    task,
    fn cancelling_ends_what_can_be_ended(cx) {
        static NEVER: Completion = Completion::new();
        let waiter = task::spawn("waiter", |cx| NEVER.wait_with(Limits::NONE.cancellable(), cx)).map_err(fail)?;
        let worker = task::spawn("worker", |cx| {
            let mut rounds = 0_u64;
            while !task::is_cancelled() {
                rounds += 1;
                cx.cond_resched();
            }
            rounds
        });
        let worker = worker.map_err(fail)?;
        cx.block(Some(Native::now_ns() + 5_000_000));
        check!(!waiter.is_finished() && !worker.is_finished());
        waiter.cancel();
        worker.cancel();
        check_eq!(waiter.join(cx), Err(WaitError::Cancelled));
        check!(worker.join(cx) > 0);
        Ok(())
    }
}

kernel_test! {
    task,
    fn a_join_can_be_limited_and_repeated(cx) {
        let handle = task::spawn("late", task::park).map_err(fail)?;
        let soon = Limits::NONE.until(Native::now_ns() + 3_000_000);
        let Err((handle, error)) = handle.join_with(soon, cx) else { check!(false); return Ok(()) };
        check_eq!(error, WaitError::TimedOut);
        check!(!handle.is_finished());
        handle.unpark();
        handle.join(cx);
        Ok(())
    }
}

kernel_test! {
    task,
    fn a_deadline_ends_a_block_and_never_early(cx) {
        for wait in [0, 1, 50_000, 1_000_000, 3_333_333, 20_000_000] {
            let deadline = Native::now_ns() + wait;
            // This task is woken by others too: when something is typed, and by what earlier tests left.
            while cx.block(Some(deadline)) == Wakeup::Woken {}
            check!(Native::now_ns() >= deadline, "{wait} ns");
        }
        // A wake-up ends it too, also one that came before.
        task::current().unpark();
        check_eq!(cx.block(Some(Native::now_ns() + 10_000_000_000)), Wakeup::Woken);
        let me = task::current();
        let waker = task::spawn("waker", move |_cx| me.unpark()).map_err(fail)?;
        check_eq!(cx.block(Some(Native::now_ns() + 10_000_000_000)), Wakeup::Woken);
        waker.join(cx);
        Ok(())
    }
}

kernel_test! {
    task,
    fn deadlines_of_many_come_in_order_and_not_early(cx) {
        let handles: Result<Vec<_>, SpawnError> = (0..100_u64)
            .map(|number| {
                task::spawn("sleeper", move |cx| {
                    let deadline = Native::now_ns() + (number * 7_919 % 100) * 200_000;
                    (cx.block(Some(deadline)), Native::now_ns() >= deadline)
                })
            })
            .collect();
        for handle in handles.map_err(fail)? {
            check_eq!(handle.join(cx), (Wakeup::TimedOut, true));
        }
        Ok(())
    }
}

/// Two tasks that take turns, each waking the other.
fn take_turns(cx: &mut TaskCx, on: [CpuId; 2], rounds: u32) -> crate::testing::Outcome {
    struct Table {
        turn: AtomicU32,
        ready: [Completion; 2],
    }
    let table = Arc::new(Table { turn: AtomicU32::new(0), ready: [Completion::new(), Completion::new()] });
    let player = |side: usize| {
        let table = Arc::clone(&table);
        Builder::named(format_args!("player/{side}")).on(on[side]).spawn(move |cx| {
            for round in 0..rounds {
                table.ready[side].wait(cx);
                if table.turn.fetch_add(1, Ordering::Relaxed) != round * 2 + side as u32 {
                    return false;
                }
                table.ready[1 - side].complete();
            }
            true
        })
    };
    let players = [player(0).map_err(fail)?, player(1).map_err(fail)?];
    table.ready[0].complete();
    for player in players {
        check!(player.join(cx));
    }
    check_eq!(table.turn.load(Ordering::Relaxed), 2 * rounds);
    Ok(())
}

kernel_test! {
    task,
    fn two_tasks_of_one_cpu_take_turns(cx) {
        take_turns(cx, [CpuId::BOOT; 2], 5_000)
    }
}

kernel_test! {
    task,
    limit_ms = 60_000,
    fn tasks_of_two_cpus_take_turns_and_no_wake_up_is_lost(cx) {
        // Each turn finds the other CPU on its way into the halt, or in it.
        let Some(other) = cpus::online().nth(1) else { skip!("one CPU only") };
        take_turns(cx, [CpuId::BOOT, other], 2_000)
    }
}

kernel_test! {
    task,
    limit_ms = 60_000,
    fn everything_that_sleeps_works_among_tasks(cx) {
        const TASKS: u32 = 8;
        const ROUNDS: u32 = 300;
        struct Shared {
            sum: Mutex<(u32, u32)>,
            few: Semaphore,
            inside: AtomicU32,
            most: AtomicU32,
            gate: Mutex<u32>,
            changed: Condvar,
        }
        let shared = Arc::new(Shared {
            sum: Mutex::new((0, 0)),
            few: Semaphore::new(2),
            inside: AtomicU32::new(0),
            most: AtomicU32::new(0),
            gate: Mutex::new(0),
            changed: Condvar::new(),
        });
        let handles: Result<Vec<_>, SpawnError> = (0..TASKS)
            .map(|number| {
                let shared = Arc::clone(&shared);
                task::spawn("user", move |cx| {
                    for round in 0..ROUNDS {
                        let mut sum = shared.sum.lock(cx);
                        sum.0 += 1;
                        if round % 50 == number {
                            // To be preempted with the mutex held.
                            Native::set_need_resched(Native::cpu());
                            sync::context::check_resched();
                        }
                        sum.1 += 1;
                        drop(sum);
                        shared.few.down(cx);
                        let inside = shared.inside.fetch_add(1, Ordering::Relaxed) + 1;
                        shared.most.fetch_max(inside, Ordering::Relaxed);
                        shared.inside.fetch_sub(1, Ordering::Relaxed);
                        shared.few.up();
                    }
                    let mut gate = shared.gate.lock(cx);
                    *gate += 1;
                    shared.changed.notify_all();
                    while *gate != TASKS {
                        gate = shared.changed.wait(gate, cx);
                    }
                })
            })
            .collect();
        for handle in handles.map_err(fail)? {
            handle.join(cx);
        }
        check_eq!(*shared.sum.lock(cx), (TASKS * ROUNDS, TASKS * ROUNDS));
        let most = shared.most.load(Ordering::Relaxed);
        check!((1..=2).contains(&most), "{most} inside");
        Ok(())
    }
}

kernel_test! {
    task,
    fn tasks_can_be_listed_and_looked_into(cx) {
        let handle = Builder::new("a name that is longer than there is room for").spawn(task::park).map_err(fail)?;
        let number = handle.task().number();
        let found = task::find(number);
        check!(found.is_some());
        check_eq!(handle.task().name(), "a name that is longer t");
        // It is blocked a moment before its registers are where others find them.
        let found = || handle.task().state() == State::Blocked && handle.task().backtrace().count() >= 2;
        check!(settle(cx, found));
        handle.unpark();
        handle.join(cx);
        check!(settle(cx, || task::find(number).is_none()));
        Ok(())
    }
}

kernel_test! {
    task,
    fn memory_is_not_lost_over_many_tasks(cx) {
        let round = |cx: &mut TaskCx| -> Result<(), SpawnError> {
            for _ in 0..50 {
                task::spawn("short", |_cx| ())?.join(cx);
            }
            Ok(())
        };
        round(cx).map_err(fail)?;
        let before = in_use();
        for _ in 0..4 {
            round(cx).map_err(fail)?;
        }
        check!(settle(cx, || in_use() <= before + 8), "{before} frames before, {} after", in_use());
        Ok(())
    }
}
