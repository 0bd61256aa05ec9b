use sync::list::{Link, List};

struct Node {
    value: u32,
    link: Link,
}
sync::link_field! { struct InList = Node => link: Link; }

pub(crate) fn main() {
    let mut node = Node { value: 1, link: Link::new() };
    let mut list = List::<&mut Node, InList>::new();
    list.push_back(&mut node);
    let node = list.pop_front().unwrap();
    list.push_back(node);
    assert_eq!(list.front().unwrap().value, 1);
}
