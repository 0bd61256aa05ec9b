use std::sync::Arc;

use rcu::{RcuBox, Retired};

rcu::hosted_domain! { struct Routes; }

pub(crate) fn main() {
    drop(Retired::<_, Routes>::new(RcuBox::new(Arc::new(1))));
}
