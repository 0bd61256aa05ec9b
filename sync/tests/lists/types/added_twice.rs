//! A node that is borrowed by a list already is added again.
use sync::list::{Link, List};

struct Node {
    value: u32,
    link: Link,
}
sync::link_field! { struct InList = Node => link: Link; }

fn main() {
    let mut node = Node { value: 1, link: Link::new() };
    let mut list = List::<&mut Node, InList>::new();
    list.push_back(&mut node);
    list.push_back(&mut node);
    assert_eq!(list.front().unwrap().value, 1);
}
