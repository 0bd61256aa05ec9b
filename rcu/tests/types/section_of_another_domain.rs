//! A section of one domain does not protect another one's pointers.

use rcu::{Rcu, RcuBox};

rcu::hosted_domain! { struct Routes; struct Settings; }

fn main() {
    let gateway = Rcu::<_, Routes>::new(RcuBox::new(1));
    let reader = rcu::read::<Settings>();
    assert_eq!(*gateway.load(&reader), 1);
}
