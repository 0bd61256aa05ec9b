use rcu::{Rcu, RcuBox};

rcu::hosted_domain! { struct Routes; }

pub(crate) fn main() {
    let gateway = Rcu::<_, Routes>::new(RcuBox::new(1));
    let reader = rcu::read();
    let found = gateway.load(&reader);
    assert_eq!(*found, 1);
    drop(reader);
    drop(gateway);
}
