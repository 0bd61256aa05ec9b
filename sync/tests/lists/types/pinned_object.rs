use sync::list::{Field, Link};

struct Node<T> {
    content: T,
    link: Link,
}
sync::link_field! { struct InList<T> = Node<T> => link: Link; }

pub(crate) fn main() {
    let node = Node { content: 1u32, link: Link::new() };
    assert_eq!(node.content, 1);
    drop(node.link);
    println!("{}", <InList<u32> as Field>::OFFSET);
}
