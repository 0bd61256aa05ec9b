use sync::TaskCx;

rcu::hosted_domain! { struct Routes; }

pub(crate) fn main() {
    // SAFETY: this thread's only token.
    let mut cx = unsafe { TaskCx::new() };
    let reader = rcu::read_in::<Routes>(&cx);
    drop(reader);
    cx.block(Some(0));
}
