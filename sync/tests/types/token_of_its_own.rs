//! Each task has one.

use sync::TaskCx;

pub(crate) fn main() {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // SAFETY: this thread is a task of the hosted machine and has no other token.
            let mut cx = unsafe { TaskCx::new() };
            cx.might_sleep();
        });
    });
}
