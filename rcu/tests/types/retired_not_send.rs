//! What is given up is freed by another thread, which its type must allow.

use std::rc::Rc;

use rcu::{RcuBox, Retired};

rcu::hosted_domain! { struct Routes; }

fn main() {
    drop(Retired::<_, Routes>::new(RcuBox::new(Rc::new(1))));
}
