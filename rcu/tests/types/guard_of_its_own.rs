rcu::hosted_domain! { struct Routes; }

fn main() {
    std::thread::scope(|scope| {
        scope.spawn(move || drop(rcu::read::<Routes>()));
    });
}
