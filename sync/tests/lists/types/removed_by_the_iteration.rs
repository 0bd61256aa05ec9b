use sync::list::{Link, List};

struct Node {
    value: u32,
    link: Link,
}
sync::link_field! { struct InList = Node => link: Link; }

pub(crate) fn main() {
    let mut list: List<Box<Node>, InList> =
        (0..3).map(|value| Box::new(Node { value, link: Link::new() })).collect();
    list.retain(|node| node.value != 1);
    assert_eq!(list.count(), 2);
}
