//! An object is removed while somebody goes through the list.
use sync::list::{Link, List};

struct Node {
    value: u32,
    link: Link,
}
sync::link_field! { struct InList = Node => link: Link; }

fn main() {
    let mut list: List<Box<Node>, InList> = (0..3).map(|value| Box::new(Node { value, link: Link::new() })).collect();
    for node in list.iter() {
        if node.value == 1 {
            list.pop_front();
        }
    }
}
