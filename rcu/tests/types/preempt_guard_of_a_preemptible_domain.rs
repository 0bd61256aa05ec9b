//! Where readers are preempted, grace periods do not wait for preempt-off sections.

use rcu::{Rcu, RcuBox};

rcu::hosted_domain! { struct Routes; }

fn main() {
    let gateway = Rcu::<_, Routes>::new(RcuBox::new(1));
    let here = sync::preempt::disable();
    assert_eq!(*gateway.load(&here), 1);
}
