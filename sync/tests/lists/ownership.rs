//! What a list holds, lends and gives back, for each kind of pointer.

use core::pin::{Pin, pin};
use std::sync::Arc;

use sync::list::{Field, Link, List, Owner};

struct Node {
    value: u32,
    link: Link,
    other: Link,
}
sync::link_field! {
    struct InList = Node => link: Link;
    struct InOther = Node => other: Link;
}

fn node(value: u32) -> Node {
    Node { value, link: Link::new(), other: Link::new() }
}

fn values<O: Owner<Object = Node>, F: Field<Object = Node, Link = Link>>(list: &List<O, F>) -> Vec<u32> {
    let forward: Vec<u32> = list.iter().map(|node| node.value).collect();
    let mut backward: Vec<u32> = list.iter().rev().map(|node| node.value).collect();
    backward.reverse();
    assert_eq!(forward, backward);
    assert_eq!(list.count(), forward.len());
    forward
}

#[test]
fn boxes_go_in_and_come_out() {
    let mut list: List<Box<Node>, InList> = (0..3).map(|n| Box::new(node(n))).collect();
    assert_eq!(values(&list), [0, 1, 2]);
    let middle = {
        let mut cursor = list.cursor_front_mut();
        cursor.move_next();
        cursor.remove().unwrap()
    };
    assert_eq!(middle.value, 1);
    list.push_front(middle);
    assert_eq!(list.pop_back().unwrap().value, 2);
    assert_eq!(values(&list), [1, 0]);
}

#[test]
fn pinned_boxes_stay_pinned() {
    let mut list = List::<Pin<Box<Node>>, InList>::new();
    list.push_back(Box::pin(node(1)));
    let out: Pin<Box<Node>> = list.pop_front().unwrap();
    assert_eq!(out.value, 1);
}

#[test]
fn pinned_arcs_stay_pinned() {
    let mut list = List::<Pin<Arc<Node>>, InList>::new();
    let shared = Arc::pin(node(1));
    list.push_back(shared.clone());
    assert!(list.try_push_back(shared).is_err());
    let out: Pin<Arc<Node>> = list.pop_front().unwrap();
    assert_eq!(out.value, 1);
}

#[test]
fn pinned_places_on_the_stack() {
    let (a, b) = (pin!(node(1)), pin!(node(2)));
    let mut list = List::<Pin<&mut Node>, InList>::new();
    list.push_back(a);
    list.push_back(b);
    assert_eq!(values(&list), [1, 2]);
    let first: Pin<&mut Node> = list.pop_front().unwrap();
    assert_eq!(first.value, 1);
}

#[test]
fn statics() {
    static NODE: Node = Node { value: 9, link: Link::new(), other: Link::new() };
    let mut list = List::<&'static Node, InList>::new();
    assert!(list.try_push_back(&NODE).is_ok());
    assert!(list.try_push_front(&NODE).is_err());
    let out: &'static Node = list.pop_back().unwrap();
    assert_eq!(out.value, 9);
}

#[test]
fn one_object_in_two_lists_by_two_fields() {
    let nodes = [node(0), node(1), node(2)];
    let mut first = List::<&Node, InList>::new();
    let mut second = List::<&Node, InOther>::new();
    first.extend(&nodes);
    second.extend(nodes.iter().rev());
    assert_eq!((values(&first), values(&second)), (vec![0, 1, 2], vec![2, 1, 0]));
    first.pop_front();
    assert_eq!((values(&first), values(&second)), (vec![1, 2], vec![2, 1, 0]));
}

#[test]
fn an_arc_counts_while_it_is_in_the_list() {
    let shared = Arc::new(node(1));
    let mut list = List::<Arc<Node>, InList>::new();
    list.push_back(shared.clone());
    assert_eq!(Arc::strong_count(&shared), 2);
    let another = list.cursor_front().current_owner().unwrap();
    assert_eq!(Arc::strong_count(&shared), 3);
    drop((list, another));
    assert_eq!(Arc::strong_count(&shared), 1);
    assert!(!shared.link.is_linked());
}

#[test]
fn dropping_a_list_drops_what_it_owns_even_past_a_panic() {
    struct Loud {
        panics: bool,
        dropped: Arc<std::sync::atomic::AtomicU32>,
        link: Link,
    }
    impl Drop for Loud {
        fn drop(&mut self) {
            self.dropped.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if self.panics {
                panic!("loud");
            }
        }
    }
    sync::link_field! { struct InLoud = Loud => link: Link; }
    let dropped = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let list: List<Box<Loud>, InLoud> = (0..5)
        .map(|n| Box::new(Loud { panics: n == 2, dropped: dropped.clone(), link: Link::new() }))
        .collect();
    let outcome = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| drop(list)));
    assert!(outcome.is_err());
    assert_eq!(dropped.load(std::sync::atomic::Ordering::Relaxed), 5);
}

/// The head may be moved, and the ring follows at the next change.
#[test]
fn a_list_may_be_moved() {
    fn through_a_function<T>(value: T) -> T {
        std::hint::black_box(value)
    }
    let mut list: List<Box<Node>, InList> = (0..3).map(|n| Box::new(node(n))).collect();
    for round in 0..3 {
        let mut boxed = Box::new(through_a_function(list));
        assert_eq!(values(&boxed), [0, 1, 2], "reading needs no change first");
        assert!(boxed.is_first(boxed.front().unwrap()) && boxed.is_last(boxed.back().unwrap()));
        match round {
            0 => boxed.rotate_left(),
            1 => boxed.push_back(Box::new(node(9))),
            _ => drop(boxed.cursor_back_mut().remove()),
        }
        list = through_a_function(*boxed);
        match round {
            0 => list.cursor_back_mut().rotate_to_front(),
            1 => drop(list.pop_back()),
            _ => list.push_back(Box::new(node(2))),
        }
        assert_eq!(values(&list), [0, 1, 2]);
    }
}

#[test]
fn exchanged_lists_keep_their_members() {
    let mut a: List<Box<Node>, InList> = (0..2).map(|n| Box::new(node(n))).collect();
    let mut b = List::new();
    core::mem::swap(&mut a, &mut b);
    assert!(a.is_empty());
    a.push_back(Box::new(node(7)));
    b.push_back(Box::new(node(2)));
    assert_eq!((values(&a), values(&b)), (vec![7], vec![0, 1, 2]));
    a.append(&mut b);
    assert_eq!((values(&a), values(&b)), (vec![7, 0, 1, 2], vec![]));
}

#[test]
fn both_ends_of_an_iteration_meet() {
    let list: List<Box<Node>, InList> = (0..4).map(|n| Box::new(node(n))).collect();
    let mut iter = list.iter();
    let order: Vec<u32> =
        [iter.next(), iter.next_back(), iter.next_back(), iter.next()].map(|n| n.unwrap().value).into();
    assert_eq!(order, [0, 3, 2, 1]);
    assert!(iter.next().is_none() && iter.next_back().is_none());
}

#[test]
fn what_is_lent_mutably_is_each_object_once() {
    let mut list: List<Box<Node>, InList> = (0..3).map(|n| Box::new(node(n))).collect();
    let all: Vec<Pin<&mut Node>> = list.iter_mut().collect();
    for node in all {
        // SAFETY: the number is not what is pinned.
        unsafe { node.get_unchecked_mut() }.value += 10;
    }
    assert_eq!(list.back_mut().unwrap().value, 12);
    assert_eq!(values(&list), [10, 11, 12]);
}

#[test]
fn debug_shows_the_objects() {
    #[derive(Debug)]
    struct Shown {
        link: Link,
    }
    sync::link_field! { struct InShown = Shown => link: Link; }
    let mut list = List::<Box<Shown>, InShown>::new();
    list.push_back(Box::new(Shown { link: Link::new() }));
    assert_eq!(format!("{list:?}"), "[Shown { link: Link(in a list) }]");
}
