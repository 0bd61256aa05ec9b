//! The field belongs to what the object dereferences to, which lies elsewhere.
use sync::list::Link;

struct Inner {
    link: Link,
}
struct Node(Box<Inner>, core::marker::PhantomPinned);
impl core::ops::Deref for Node {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}
sync::link_field! { struct InList = Node => link: Link; }

fn main() {
    println!("{}", <InList as sync::list::Field>::OFFSET);
}
