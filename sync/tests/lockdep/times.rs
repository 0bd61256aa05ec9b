//! How long real locks are waited for and held, and what is told of it.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};

use hal::{Native, Platform};
use sync::lockdep::{self, LockTimes, Long};
use sync::{BhSpinLock, IrqSpinLock, Mutex, PiMutex, RwLock, RwSemaphore, SpinLock, TaskCx, bh, irq};

use crate::checked::Checked;

/// The figures of the class whose locks are made at `line` of this file.
fn of_line(checked: &Checked, line: u32) -> LockTimes {
    let classes =
        (1..).map_while(|number| Some((number, lockdep::class::<Native>(checked.checker, number)?.0)));
    let mine = |label: &lockdep::Label| label.site().file() == file!() && label.site().line() == line;
    let number = classes.into_iter().find(|(_, label)| mine(label)).expect("the class is known").0;
    lockdep::times::<Native>(checked.checker, number).unwrap()
}

fn spend(ns: u64) {
    let end = Native::now_ns() + ns;
    while Native::now_ns() < end {
        Native::relax();
    }
}

/// Two CPUs: the first holds what `hold` takes until the second has been told to go and has had time to find it taken.
fn two_meet(checked: &Checked, hold: impl Fn(&dyn Fn()), want: impl Fn() + Sync) {
    let (held, over) = (AtomicBool::new(false), AtomicBool::new(false));
    let checker = checked.checker;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _checked = Checked::with(checker);
            while !held.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            want();
            over.store(true, Ordering::Relaxed);
        });
        hold(&|| {
            held.store(true, Ordering::Relaxed);
            // However late the other thread is: it cannot be through while we hold the lock.
            std::thread::sleep(std::time::Duration::from_millis(30));
            assert!(!over.load(Ordering::Relaxed));
        });
    });
}

/// A test for each kind of lock; `$make` stands on a line of its own.
macro_rules! waits_are_counted {
    ($($name:ident: $make:expr, |$lock:ident, $cx:ident, $meanwhile:ident| $hold:expr, $want:expr;)*) => {$(
        #[test]
        fn $name() {
            let checked = Checked::new();
            let made = $make;
            let $lock = &made;
            two_meet(
                &checked,
                |$meanwhile| {
                    // SAFETY: this thread is a task, and this its only token in use.
                    #[allow(unused)]
                    let $cx = &mut unsafe { TaskCx::new() };
                    $hold
                },
                || {
                    // SAFETY: as above.
                    #[allow(unused)]
                    let $cx = &mut unsafe { TaskCx::new() };
                    $want
                },
            );
            let all = (1..).map_while(|number| lockdep::times::<Native>(checked.checker, number));
            let waits: Vec<LockTimes> = all.into_iter().filter(|times| times.contended != 0).collect();
            let mine = waits.iter().find(|times| times.longest_wait_at.is_some_and(|at| at.file() == file!()));
            let mine = mine.expect("a wait for a lock of this file was counted");
            assert!(mine.waited_ns >= mine.longest_wait_ns, "{mine:?}");
            assert_eq!(mine.contended, 1);
            assert_eq!(mine.holds, 0, "nobody measures");
        }
    )*};
}

waits_are_counted! {
    of_spin_locks: SpinLock::<_>::new(1), |lock, cx, meanwhile|
        { let _held = lock.lock(); meanwhile() }, drop(lock.lock());
    of_readers: RwLock::<_>::new(1), |lock, cx, meanwhile|
        { let _held = lock.write(); meanwhile() }, drop(lock.read());
    of_writers: RwLock::<_>::new(1), |lock, cx, meanwhile|
        { let _held = lock.read(); meanwhile() }, drop(lock.write());
    of_mutexes: Mutex::<_>::new(1), |lock, cx, meanwhile|
        { let _held = lock.lock(cx); meanwhile() }, drop(lock.lock(cx));
    of_pi_mutexes: PiMutex::<_>::new(1), |lock, cx, meanwhile|
        { let _held = lock.lock(cx); meanwhile() }, drop(lock.lock(cx));
    of_semaphores_readers: RwSemaphore::<_>::new(1), |lock, cx, meanwhile|
        { let _held = lock.write(cx); meanwhile() }, drop(lock.read(cx));
    of_semaphores_writers: RwSemaphore::<_>::new(1), |lock, cx, meanwhile|
        { let _held = lock.read(cx); meanwhile() }, drop(lock.write(cx));
}

#[test]
fn of_per_cpu_semaphores() {
    let checked = Checked::new();
    let lock = sync::PerCpuRwSemaphore::<u32>::new(1).unwrap();
    // SAFETY: this thread is a task, and this its only token in use.
    let cx = || unsafe { TaskCx::new() };
    let hold = |meanwhile: &dyn Fn()| {
        let mut cx = cx();
        let _held = lock.write(&mut cx);
        meanwhile();
    };
    two_meet(&checked, hold, || drop(lock.read(&mut cx())));
    let hold = |meanwhile: &dyn Fn()| {
        let mut cx = cx();
        let _held = lock.read(&mut cx);
        meanwhile();
    };
    two_meet(&checked, hold, || drop(lock.write(&mut cx())));
    let all = (1..).map_while(|number| lockdep::times::<Native>(checked.checker, number));
    let mine = |times: &LockTimes| times.longest_wait_at.is_some_and(|at| at.file() == file!());
    assert_eq!(all.into_iter().filter(mine).map(|times| times.contended).sum::<u64>(), 2);
}

#[test]
fn a_hold_begins_when_the_wait_ends() {
    let checked = Checked::new();
    lockdep::set_timing(checked.checker, true);
    let line = line!() + 1;
    let lock = SpinLock::<_>::new(1);
    let hold = |meanwhile: &dyn Fn()| {
        let _held = lock.lock();
        meanwhile();
    };
    two_meet(&checked, hold, || drop(lock.lock()));
    let times = of_line(&checked, line);
    assert_eq!((times.holds, times.contended), (2, 1));
    // The sum is that of the long one and of what is left of the other: all but its wait.
    assert!(times.longest_hold_ns >= 30_000_000, "{times:?}");
    assert!(times.longest_wait_ns <= times.longest_hold_ns + 30_000_000, "{times:?}");
}

thread_local! {
    static TOLD: RefCell<Vec<(String, u32, u32)>> = const { RefCell::new(Vec::new()) };
}

fn tell(long: &Long) {
    assert!(long.ns >= 1_000_000 && long.at.file() == file!());
    TOLD.with_borrow_mut(|told| told.push((long.what.to_string(), long.at.line(), long.until.line())));
}

/// What was told since the last call, without the line that made the lock.
fn told() -> Vec<(String, u32)> {
    let kind = |what: &str| if what.starts_with("lock (") { "lock".into() } else { what.to_owned() };
    TOLD.take().into_iter().map(|(what, at, _)| (kind(&what), at)).collect()
}

#[test]
fn what_is_long_is_told_with_its_place() {
    const LONG: u64 = 1_000_000;
    let checked = Checked::new();
    lockdep::tell_long(checked.checker, LONG, tell);
    let task = SpinLock::<_>::new(1);
    let held = task.lock();
    let line = line!() - 1;
    spend(LONG);
    drop(held);
    assert_eq!(told(), [("lock".into(), line)]);

    let soft = BhSpinLock::new(1);
    let held = soft.lock();
    let line = line!() - 1;
    spend(LONG);
    drop(held);
    assert_eq!(told(), [("lock".into(), line), ("bottom halves off".into(), line)]);

    let hard = IrqSpinLock::new(1);
    let held = hard.lock();
    let line = line!() - 1;
    spend(LONG);
    drop(held);
    assert_eq!(told(), [("lock".into(), line), ("interrupts off".into(), line)]);

    // The one that was made first counts, whichever goes last.
    let (first, second) = (irq::disable(), irq::disable());
    let line = line!() - 1;
    drop(first);
    spend(LONG);
    drop(second);
    assert_eq!(told(), [("interrupts off".into(), line)]);

    let off = bh::disable();
    let line = line!() - 1;
    spend(LONG);
    off.enable_no_resched();
    assert_eq!(told(), [("bottom halves off".into(), line)]);

    // Not a long one, of short ones in a row.
    for _ in 0..3 {
        let _held = hard.lock();
        spend(LONG / 3);
    }
    // A host may have taken its time.
    assert!(told().iter().all(|(what, _)| what != "bottom halves off"));

    lockdep::tell_long(checked.checker, u64::MAX, tell);
    let held = hard.lock();
    spend(LONG);
    drop(held);
    assert_eq!(told(), []);
}
