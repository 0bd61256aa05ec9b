//! The token belongs to one task. In another it would say that this one may sleep.

use sync::TaskCx;

fn main() {
    // SAFETY: this thread is a task of the hosted machine and has no other token.
    let mut cx = unsafe { TaskCx::new() };
    std::thread::scope(|scope| {
        scope.spawn(|| cx.might_sleep());
    });
}
