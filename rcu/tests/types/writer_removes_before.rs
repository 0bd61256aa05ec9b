use rcu::{RcuBox, RcuList};
use sync::list::Link;

rcu::hosted_domain! { struct Modules; }
struct Module(u32, Link);
sync::link_field! { struct Loaded = Module => 1: Link; }

pub(crate) fn main() {
    let list = RcuList::<RcuBox<Module>, Loaded, Modules>::new();
    let mut writer = list.write();
    writer.push_back(RcuBox::new(Module(1, Link::new())));
    let found = writer.last().unwrap();
    assert_eq!(found.0, 1);
    drop(writer.remove_first(|_| true));
}
