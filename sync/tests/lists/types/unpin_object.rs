//! Two of these could be swapped through `Pin<&mut Node>` while they are in a list.
use sync::list::{Field, Link};

struct Node {
    link: Link,
}
impl Unpin for Node {}
sync::link_field! { struct InList = Node => link: Link; }

fn main() {
    println!("{}", <InList as Field>::OFFSET);
}
