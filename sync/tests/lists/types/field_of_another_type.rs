//! The field named is no link.
use sync::list::Link;

struct Node {
    value: u32,
    link: Link,
}
sync::link_field! { struct InList = Node => value: Link; }

fn main() {
    let node = Node { value: 1, link: Link::new() };
    drop((node.value, node.link));
}
