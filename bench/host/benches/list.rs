//! What list operations cost, beside other intrusive lists: `cargo bench -p bench-host --bench list`.
//!
//! Criterion drives; the samples that it took are shown at the end in one table, as medians in nanoseconds a node. The
//! nodes lie in one array. "push", "iterate" and "remove" do all of a million nodes, the last in random order, so that
//! each removal misses the cache; "hot" adds and removes one and the same node.

use std::cell::RefCell;
use std::hint::black_box;
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use criterion::Criterion;

const NODES: usize = 1_000_000;

/// A list under test, whose nodes are told by their addresses, as kernels do.
trait Peer {
    const NAME: &'static str;
    type Node: 'static;
    type List;
    fn node(value: u64) -> Self::Node;
    fn list() -> Self::List;
    /// # Safety
    /// The node lives, does not move and is in no list.
    unsafe fn push(list: &mut Self::List, node: *mut Self::Node);
    /// # Safety
    /// The node is in this list.
    unsafe fn remove(list: &mut Self::List, node: *mut Self::Node);
    fn sum(list: &Self::List) -> u64;
}

/// Ours, of pointers that are unique.
mod unique {
    use super::*;
    use sync::list::{Link, List};

    pub(super) struct Node(u64, Link);
    sync::link_field! { pub(super) struct InList = Node => 1: Link; }
    pub(super) enum Unique {}

    impl Peer for Unique {
        const NAME: &'static str = "sync, &mut";
        type Node = Node;
        type List = List<&'static mut Node, InList>;
        fn node(value: u64) -> Node {
            Node(value, Link::new())
        }
        fn list() -> Self::List {
            List::new()
        }
        #[inline(always)]
        unsafe fn push(list: &mut Self::List, node: *mut Node) {
            // SAFETY: as the contract says.
            list.push_back(unsafe { &mut *node });
        }
        #[inline(always)]
        unsafe fn remove(list: &mut Self::List, node: *mut Node) {
            // SAFETY: as the contract says.
            unsafe { list.remove(&*node) };
        }
        fn sum(list: &Self::List) -> u64 {
            list.iter().map(|node| node.0).sum()
        }
    }
}

/// Ours, of pointers that are shared, so that each addition claims the node.
mod shared {
    use super::*;
    use sync::list::{Link, List};

    pub(super) struct Node(u64, Link);
    sync::link_field! { pub(super) struct InList = Node => 1: Link; }
    pub(super) enum Shared {}

    impl Peer for Shared {
        const NAME: &'static str = "sync, & (claimed)";
        type Node = Node;
        type List = List<&'static Node, InList>;
        fn node(value: u64) -> Node {
            Node(value, Link::new())
        }
        fn list() -> Self::List {
            List::new()
        }
        #[inline(always)]
        unsafe fn push(list: &mut Self::List, node: *mut Node) {
            // SAFETY: as the contract says.
            list.push_back(unsafe { &*node });
        }
        #[inline(always)]
        unsafe fn remove(list: &mut Self::List, node: *mut Node) {
            // SAFETY: as the contract says.
            unsafe { list.remove(&*node) };
        }
        fn sum(list: &Self::List) -> u64 {
            list.iter().map(|node| node.0).sum()
        }
    }
}

/// The crate that most of the world uses.
mod intrusive {
    use super::*;
    use intrusive_collections::{LinkedList, LinkedListLink, UnsafeRef, intrusive_adapter};

    pub(super) struct Node(u64, LinkedListLink);
    intrusive_adapter!(pub(super) InList = UnsafeRef<Node>: Node { 1 => LinkedListLink });
    pub(super) enum Intrusive {}

    impl Peer for Intrusive {
        const NAME: &'static str = "intrusive-collections";
        type Node = Node;
        type List = LinkedList<InList>;
        fn node(value: u64) -> Node {
            Node(value, LinkedListLink::new())
        }
        fn list() -> Self::List {
            LinkedList::new(InList::NEW)
        }
        #[inline(always)]
        unsafe fn push(list: &mut Self::List, node: *mut Node) {
            // SAFETY: as the contract says.
            list.push_back(unsafe { UnsafeRef::from_raw(node) });
        }
        #[inline(always)]
        unsafe fn remove(list: &mut Self::List, node: *mut Node) {
            // SAFETY: as the contract says.
            unsafe { list.cursor_mut_from_ptr(node) }.remove();
        }
        fn sum(list: &Self::List) -> u64 {
            list.iter().map(|node| node.0).sum()
        }
    }
}

/// The same with links that can be claimed, as shared ones must.
mod intrusive_atomic {
    use super::*;
    use intrusive_collections::{LinkedList, LinkedListAtomicLink, UnsafeRef, intrusive_adapter};

    pub(super) struct Node(u64, LinkedListAtomicLink);
    intrusive_adapter!(pub(super) InList = UnsafeRef<Node>: Node { 1 => LinkedListAtomicLink });
    pub(super) enum IntrusiveAtomic {}

    impl Peer for IntrusiveAtomic {
        const NAME: &'static str = "intrusive-collections, atomic";
        type Node = Node;
        type List = LinkedList<InList>;
        fn node(value: u64) -> Node {
            Node(value, LinkedListAtomicLink::new())
        }
        fn list() -> Self::List {
            LinkedList::new(InList::NEW)
        }
        #[inline(always)]
        unsafe fn push(list: &mut Self::List, node: *mut Node) {
            // SAFETY: as the contract says.
            list.push_back(unsafe { UnsafeRef::from_raw(node) });
        }
        #[inline(always)]
        unsafe fn remove(list: &mut Self::List, node: *mut Node) {
            // SAFETY: as the contract says.
            unsafe { list.cursor_mut_from_ptr(node) }.remove();
        }
        fn sum(list: &Self::List) -> u64 {
            list.iter().map(|node| node.0).sum()
        }
    }
}

mod cordyceps_list {
    use super::*;
    use cordyceps::{Linked, List, list::Links};

    pub(super) struct Node {
        links: Links<Node>,
        value: u64,
    }
    // SAFETY: a handle is the address, and nodes stay where they are while they are in a list.
    unsafe impl Linked<Links<Node>> for Node {
        type Handle = NonNull<Node>;
        fn into_ptr(handle: NonNull<Node>) -> NonNull<Node> {
            handle
        }
        unsafe fn from_ptr(node: NonNull<Node>) -> NonNull<Node> {
            node
        }
        unsafe fn links(node: NonNull<Node>) -> NonNull<Links<Node>> {
            // SAFETY: a field of a live node.
            unsafe { NonNull::new_unchecked(&raw mut (*node.as_ptr()).links) }
        }
    }
    pub(super) enum Cordyceps {}

    impl Peer for Cordyceps {
        const NAME: &'static str = "cordyceps";
        type Node = Node;
        type List = List<Node>;
        fn node(value: u64) -> Node {
            Node { links: Links::new(), value }
        }
        fn list() -> Self::List {
            List::new()
        }
        #[inline(always)]
        unsafe fn push(list: &mut Self::List, node: *mut Node) {
            // SAFETY: as the contract says.
            list.push_back(unsafe { NonNull::new_unchecked(node) });
        }
        #[inline(always)]
        unsafe fn remove(list: &mut Self::List, node: *mut Node) {
            // SAFETY: as the contract says.
            unsafe { list.remove(NonNull::new_unchecked(node)) };
        }
        fn sum(list: &Self::List) -> u64 {
            list.iter().map(|node| node.value).sum()
        }
    }
}

/// A ring of plain pointers that checks nothing: what the operations cost at least.
mod plain {
    use super::*;

    pub(super) struct Node {
        next: *mut Node,
        prev: *mut Node,
        value: u64,
    }
    pub(super) enum Plain {}

    impl Peer for Plain {
        const NAME: &'static str = "plain ring";
        type Node = Node;
        type List = Box<Node>;
        fn node(value: u64) -> Node {
            Node { next: core::ptr::null_mut(), prev: core::ptr::null_mut(), value }
        }
        fn list() -> Box<Node> {
            let mut head = Box::new(Plain::node(0));
            let address = &raw mut *head;
            (head.next, head.prev) = (address, address);
            head
        }
        #[inline(always)]
        unsafe fn push(head: &mut Box<Node>, node: *mut Node) {
            let head: *mut Node = &raw mut **head;
            // SAFETY: as the contract says.
            unsafe {
                let prev = (*head).prev;
                ((*node).next, (*node).prev) = (head, prev);
                (*prev).next = node;
                (*head).prev = node;
            }
        }
        #[inline(always)]
        unsafe fn remove(_: &mut Box<Node>, node: *mut Node) {
            // SAFETY: as the contract says.
            unsafe {
                let (next, prev) = ((*node).next, (*node).prev);
                (*next).prev = prev;
                (*prev).next = next;
            }
        }
        fn sum(head: &Box<Node>) -> u64 {
            let (mut at, mut sum) = (head.next, 0);
            while !core::ptr::eq(at, &raw const **head) {
                // SAFETY: in the ring.
                unsafe {
                    sum += (*at).value;
                    at = (*at).next;
                }
            }
            sum
        }
    }
}

/// Medians by peer and operation, filled as the benchmarks run.
#[derive(Default)]
struct Table(RefCell<Vec<(&'static str, [f64; 4])>>);

const OPERATIONS: [&str; 4] = ["push", "iterate", "remove", "hot"];

/// Has criterion measure `run`, which returns the time that `n` repetitions took, and returns the median per node.
fn measure(criterion: &mut Criterion, name: String, nodes: usize, mut run: impl FnMut() -> Duration) -> f64 {
    let mut samples = Vec::new();
    criterion.bench_function(&name, |bencher| {
        bencher.iter_custom(|iterations| {
            let time: Duration = (0..iterations).map(|_| run()).sum();
            samples.push(time.as_secs_f64() * 1e9 / iterations as f64 / nodes as f64);
            time
        });
    });
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied().unwrap_or(f64::NAN)
}

fn peer<P: Peer>(criterion: &mut Criterion, table: &Table) {
    let mut nodes: Vec<P::Node> = (0..NODES as u64).map(P::node).collect();
    let base = nodes.as_mut_ptr();
    let mut order: Vec<u32> = (0..NODES as u32).collect();
    // A shuffle that is the same for everybody: a linear congruential generator is random enough.
    let mut state = 1u64;
    for i in (1..NODES).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        order.swap(i, (state >> 33) as usize % (i + 1));
    }
    // SAFETY, for all below: the array is not touched otherwise, and each list is emptied by removing what it was given.
    let at = |index: usize| base.wrapping_add(index);
    let fill = |list: &mut P::List| {
        for index in 0..NODES {
            // SAFETY: see above.
            unsafe { P::push(list, at(index)) };
        }
    };
    let empty = |list: &mut P::List| {
        for index in &order {
            // SAFETY: see above.
            unsafe { P::remove(list, at(*index as usize)) };
        }
    };
    let timed = |f: &mut dyn FnMut()| {
        let start = Instant::now();
        f();
        start.elapsed()
    };
    let mut list = P::list();
    let mut medians = [0.0; 4];
    medians[0] = measure(criterion, format!("push/{}", P::NAME), NODES, || {
        let time = timed(&mut || fill(&mut list));
        empty(&mut list);
        time
    });
    fill(&mut list);
    medians[1] = measure(criterion, format!("iterate/{}", P::NAME), NODES, || {
        timed(&mut || assert_eq!(black_box(P::sum(black_box(&list))), (NODES as u64 - 1) * NODES as u64 / 2))
    });
    empty(&mut list);
    medians[2] = measure(criterion, format!("remove/{}", P::NAME), NODES, || {
        fill(&mut list);
        timed(&mut || empty(&mut list))
    });
    const PAIRS: usize = 100_000;
    medians[3] = measure(criterion, format!("hot/{}", P::NAME), PAIRS, || {
        timed(&mut || {
            for _ in 0..PAIRS {
                let node = black_box(at(7));
                // SAFETY: see above.
                unsafe {
                    P::push(&mut list, node);
                    P::remove(black_box(&mut list), node);
                }
            }
        })
    });
    table.0.borrow_mut().push((P::NAME, medians));
}

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(15)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1500))
        .configure_from_args();
    let table = Table::default();
    peer::<unique::Unique>(&mut criterion, &table);
    peer::<shared::Shared>(&mut criterion, &table);
    peer::<intrusive::Intrusive>(&mut criterion, &table);
    peer::<intrusive_atomic::IntrusiveAtomic>(&mut criterion, &table);
    peer::<cordyceps_list::Cordyceps>(&mut criterion, &table);
    peer::<plain::Plain>(&mut criterion, &table);
    criterion.final_summary();

    print!("\n{:<32}", "ns a node, medians");
    for operation in OPERATIONS {
        print!("{operation:>10}");
    }
    println!();
    for (name, medians) in table.0.take() {
        print!("{name:<32}");
        for median in medians {
            print!("{median:>10.2}");
        }
        println!();
    }
}
