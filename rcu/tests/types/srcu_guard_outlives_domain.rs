//! A section does not outlast the domain that it is one of.

fn main() {
    let _cpu = hal::hosted::bind().unwrap();
    let plugins: rcu::Srcu = rcu::Srcu::new("plugins").unwrap();
    let section = plugins.read();
    drop(plugins);
    drop(section);
}
