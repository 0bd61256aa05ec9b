pub(crate) fn main() {
    let _cpu = hal::hosted::bind().unwrap();
    let plugins: rcu::Srcu = rcu::Srcu::new("plugins").unwrap();
    let section = plugins.read();
    drop(section);
    drop(plugins);
}
