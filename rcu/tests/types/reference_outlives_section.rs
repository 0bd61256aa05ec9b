//! A reference must not be used after its section.

use rcu::{Rcu, RcuBox};

rcu::hosted_domain! { struct Routes; }

fn main() {
    let gateway = Rcu::<_, Routes>::new(RcuBox::new(1));
    let reader = rcu::read();
    let found = gateway.load(&reader);
    drop(reader);
    assert_eq!(*found, 1);
}
