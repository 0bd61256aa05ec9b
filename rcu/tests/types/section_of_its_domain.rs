use rcu::{Rcu, RcuBox};

rcu::hosted_domain! { struct Routes; }

pub(crate) fn main() {
    let gateway = Rcu::<_, Routes>::new(RcuBox::new(1));
    let reader = rcu::read::<Routes>();
    assert_eq!(*gateway.load(&reader), 1);
}
