//! Nor after the pointer, which drops its object at once.

use rcu::{Rcu, RcuBox};

rcu::hosted_domain! { struct Routes; }

fn main() {
    let gateway = Rcu::<_, Routes>::new(RcuBox::new(1));
    let reader = rcu::read();
    let found = gateway.load(&reader);
    drop(gateway);
    assert_eq!(*found, 1);
}
