//! Tasks to play with: what `spawn` starts.
//!
//! Each runs until it is cancelled, and looks for that often enough. `spin` and `burst` ask now and then whether somebody
//! else should run, as every long computation in a kernel does, so that they do no harm with `preempt=none` either.

use alloc::sync::Arc;
use alloc::vec::Vec;

use hal::cpumask::CpuMask;
use hal::{Native, Platform};
use sync::wait::Limits;
use sync::{Channel, Mutex, TaskCx};

use crate::sched::policy::Policy;
use crate::task::{self, Builder, SpawnError, TaskRef};

/// A kind of tasks.
pub(super) struct Toy {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    start: fn(&Recipe<'_>) -> Result<Vec<TaskRef>, SpawnError>,
}

/// How the tasks of a toy are to be made.
struct Recipe<'a> {
    name: &'static str,
    policy: Policy,
    cpus: Option<&'a CpuMask>,
}

impl Recipe<'_> {
    fn spawn(&self, body: impl FnOnce(&mut TaskCx) + Send + 'static) -> Result<TaskRef, SpawnError> {
        let builder = Builder::new(self.name).policy(self.policy);
        let builder = match self.cpus {
            Some(cpus) => builder.affinity(cpus.clone()),
            None => builder,
        };
        Ok(builder.spawn(body)?.task().clone())
    }

    /// Several that belong together: all or none.
    fn spawn_all<B>(&self, bodies: impl IntoIterator<Item = B>) -> Result<Vec<TaskRef>, SpawnError>
    where
        B: FnOnce(&mut TaskCx) + Send + 'static,
    {
        let mut tasks = Vec::new();
        for body in bodies {
            match self.spawn(body) {
                Ok(task) => tasks.push(task),
                Err(error) => {
                    tasks.iter().for_each(|task| task.cancel());
                    return Err(error);
                }
            }
        }
        Ok(tasks)
    }
}

/// Starts what `toy` stands for.
pub(super) fn start(toy: &Toy, policy: Policy, cpus: Option<&CpuMask>) -> Result<Vec<TaskRef>, SpawnError> {
    (toy.start)(&Recipe { name: toy.name, policy, cpus })
}

const MS: u64 = 1_000_000;

/// Computes for so many nanoseconds of the clock, or until it is told to end.
fn compute(cx: &mut TaskCx, ns: u64) {
    let until = Native::now_ns() + ns;
    while Native::now_ns() < until && !task::is_cancelled() {
        for _ in 0..1000 {
            Native::relax();
        }
        cx.cond_resched();
    }
}

/// Sleeps for so many nanoseconds, or until somebody wakes it.
fn sleep(cx: &mut TaskCx, ns: u64) {
    cx.block(Some(Native::now_ns() + ns));
}

pub(super) const TOYS: &[Toy] = &[
    Toy {
        name: "spin",
        about: "a task that computes without end",
        start: |recipe| {
            let body = |cx: &mut TaskCx| {
                while !task::is_cancelled() {
                    compute(cx, 100 * MS);
                }
            };
            recipe.spawn_all([body])
        },
    },
    Toy {
        name: "sleep",
        about: "a task that wakes every 10 ms, and sleeps again",
        start: |recipe| {
            let body = |cx: &mut TaskCx| {
                while !task::is_cancelled() {
                    sleep(cx, 10 * MS);
                }
            };
            recipe.spawn_all([body])
        },
    },
    Toy {
        name: "burst",
        about: "a task that computes for 5 ms and sleeps for 5 ms, in turn",
        start: |recipe| {
            let body = |cx: &mut TaskCx| {
                while !task::is_cancelled() {
                    compute(cx, 5 * MS);
                    sleep(cx, 5 * MS);
                }
            };
            recipe.spawn_all([body])
        },
    },
    Toy {
        name: "pingpong",
        about: "two tasks that hand a ball to and fro; both end with either",
        start: |recipe| {
            let tables: [Arc<Table>; 2] = [Arc::new(Channel::new()), Arc::new(Channel::new())];
            let [here, there] = &tables;
            // One of two balls is one too many: the serve is a send into a channel with room.
            let _ = here.try_send(0);
            recipe.spawn_all([play(here.clone(), there.clone()), play(there.clone(), here.clone())])
        },
    },
    Toy {
        name: "mutex",
        about: "four tasks that want one mutex, and hold it for 100 us",
        start: |recipe| {
            let counter = Arc::new(Mutex::new(0_u64));
            recipe.spawn_all((0..4).map(|_| contend(counter.clone())))
        },
    },
];

/// Where a ball is that one player has sent and the other not received.
type Table = Channel<u64, 1>;

/// Receives the ball, counts, sends it on. Who ends closes both sides, so that the other one ends too.
fn play(from: Arc<Table>, to: Arc<Table>) -> impl FnOnce(&mut TaskCx) + Send + 'static {
    move |cx| {
        while let Ok(ball) = from.receive_with(Limits::NONE.cancellable(), cx)
            && to.send_with(ball + 1, Limits::NONE.cancellable(), cx).is_ok()
        {}
        from.close();
        to.close();
    }
}

/// Takes the mutex, again and again.
fn contend(counter: Arc<Mutex<u64>>) -> impl FnOnce(&mut TaskCx) + Send + 'static {
    move |cx| {
        while let Ok(mut count) = counter.lock_with(Limits::NONE.cancellable(), cx) {
            *count += 1;
            let until = Native::now_ns() + MS / 10;
            while Native::now_ns() < until {
                Native::relax();
            }
            drop(count);
            if task::is_cancelled() {
                return;
            }
            cx.cond_resched();
        }
    }
}
