use sync::list::Link;

struct Node {
    value: u32,
    link: Link,
}
sync::link_field! { struct InList = Node => link: Link; }

pub(crate) fn main() {
    let node = Node { value: 1, link: Link::new() };
    drop((node.value, node.link));
    assert_eq!(<InList as sync::list::Field>::OFFSET % 8, 0);
}
