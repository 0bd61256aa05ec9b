//! A guard speaks about the execution that made it.

rcu::hosted_domain! { struct Routes; }

fn main() {
    let reader = rcu::read::<Routes>();
    std::thread::scope(|scope| {
        scope.spawn(move || drop(reader));
    });
}
