rcu::hosted_domain! { struct Routes; }

pub(crate) fn main() {
    std::thread::scope(|scope| {
        scope.spawn(move || drop(rcu::read::<Routes>()));
    });
}
