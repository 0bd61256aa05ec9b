//! What the lists say and do when they are misused: refuse, name the caller's line, and stay sound.

use core::ptr::NonNull;
use std::sync::Arc;

use hal::hosted::{CapturedReport, ReportCapture};
use hal::platform::Severity;
use sync::list::raw::{HHead, HLinks, Links};
use sync::list::{Corruption, HLink, HList, Link, List};
use sync::llist::{self, LList};

struct Node {
    link: Link,
    hash: HLink,
    queue: llist::Link,
}
sync::link_field! {
    struct InList = Node => link: Link;
    struct InHash = Node => hash: HLink;
    struct InQueue = Node => queue: llist::Link;
}

fn node() -> Node {
    Node { link: Link::new(), hash: HLink::new(), queue: llist::Link::new() }
}

/// The only report, which must name `line` of this file.
#[track_caller]
fn the_report(capture: &ReportCapture, line: u32) -> CapturedReport {
    let reports = capture.take();
    assert_eq!(reports.len(), 1, "{reports:?}");
    let report = reports.into_iter().next().unwrap();
    assert_eq!((report.location.file(), report.location.line()), (file!(), line));
    report
}

#[test]
fn adding_a_member_again_is_reported_and_refused() {
    let capture = ReportCapture::new();
    let shared = Arc::new(node());
    let mut list = List::<Arc<Node>, InList>::new();
    list.push_back(shared.clone());
    list.push_back(shared.clone());
    let report = the_report(&capture, line!() - 1);
    assert_eq!(report.severity, Severity::Bug);
    let address = &raw const shared.link as usize;
    assert_eq!(
        report.message,
        format!("list: push_back: double add: node {address:#x} is in a list already")
    );
    assert!(list.is_singular());
    assert_eq!(Arc::strong_count(&shared), 2, "the refused pointer was dropped");
}

#[test]
fn adding_to_a_second_list_is_refused_by_every_way_in() {
    let capture = ReportCapture::new();
    let (shared, other) = (Arc::new(node()), Arc::new(node()));
    let mut first = List::<Arc<Node>, InList>::new();
    first.push_back(shared.clone());
    let mut second = List::<Arc<Node>, InList>::new();
    second.push_back(other);
    second.push_front(shared.clone());
    let mut cursor = second.cursor_front_mut();
    cursor.insert_before(shared.clone());
    cursor.insert_after(shared.clone());
    assert!(cursor.replace(shared.clone()).is_err());
    assert_eq!(capture.take().len(), 3, "`replace` gives the pointer back instead");
    assert!(first.is_singular() && second.is_singular());
}

#[test]
fn adding_again_to_a_chain_and_to_a_queue() {
    let capture = ReportCapture::new();
    let shared = Arc::new(node());
    let mut chain = HList::<Arc<Node>, InHash>::new();
    chain.push_front(shared.clone());
    chain.push_front(shared.clone());
    let report = the_report(&capture, line!() - 1);
    assert!(report.message.starts_with("hlist: push_front: double add: node 0x"), "{}", report.message);
    assert!(chain.is_singular());

    let queue = LList::<Arc<Node>, InQueue>::new();
    assert!(queue.push(shared.clone()));
    assert!(!queue.push(shared.clone()));
    let report = the_report(&capture, line!() - 1);
    assert!(report.message.starts_with("llist: push: double add: node 0x"), "{}", report.message);
    assert_eq!(queue.take_all().count(), 1);
}

#[test]
fn removing_what_is_in_no_list_finds_nothing() {
    let capture = ReportCapture::new();
    let node = node();
    let mut list = List::<&Node, InList>::new();
    // SAFETY: in no list.
    assert!(unsafe { list.remove(&node) }.is_none());
    assert!(capture.take().is_empty());
}

/// A list that is leaked while it borrows leaves its nodes linked: that is where the check at the end of a node matters.
#[test]
fn a_linked_node_that_ends_stops_the_machine() {
    let capture = ReportCapture::new();
    let ending = std::panic::catch_unwind(|| {
        let node = node();
        let mut list = List::<&Node, InList>::new();
        list.push_back(&node);
        core::mem::forget(list);
    });
    assert!(ending.is_err());
    let reports = capture.take();
    assert_eq!((reports.len(), reports[0].severity), (1, Severity::Fatal));
    assert!(reports[0].message.ends_with("was dropped while it is in a list"), "{}", reports[0].message);
}

#[test]
fn a_node_left_by_a_leaked_list_is_not_added_again() {
    let capture = ReportCapture::new();
    // Never dropped, as that would be fatal.
    let mut node = core::mem::ManuallyDrop::new(node());
    {
        let mut list = List::<&mut Node, InList>::new();
        list.push_back(&mut node);
        core::mem::forget(list);
    }
    let mut list = List::<&mut Node, InList>::new();
    list.push_back(&mut node);
    the_report(&capture, line!() - 1);
    assert!(list.is_empty());
}

#[test]
fn linked_chain_and_queue_nodes_stop_it_too() {
    let _capture = ReportCapture::new();
    assert!(
        std::panic::catch_unwind(|| {
            let node = node();
            let mut chain = HList::<&Node, InHash>::new();
            chain.push_front(&node);
            core::mem::forget(chain);
        })
        .is_err()
    );
    assert!(
        std::panic::catch_unwind(|| {
            let node = node();
            let queue = LList::<&Node, InQueue>::new();
            queue.push(&node);
            core::mem::forget(queue);
        })
        .is_err()
    );
}

/// Nodes of a ring that the tests break by hand.
fn ring() -> (Box<Links>, [Box<Links>; 3]) {
    let head = Box::new(Links::new());
    let nodes = [(); 3].map(|()| Box::new(Links::new()));
    // SAFETY: boxed, and fresh.
    unsafe {
        Links::init(NonNull::from(&*head));
        for node in &nodes {
            Links::add_tail(NonNull::from(&**node), NonNull::from(&*head)).unwrap();
        }
    }
    (head, nodes)
}

/// The words of a node, for somebody who writes where he should not.
fn words(node: &Links) -> *mut [usize; 2] {
    (&raw const *node).cast_mut().cast()
}

#[test]
fn a_second_removal_is_refused() {
    let (_head, nodes) = ring();
    let middle = NonNull::from(&*nodes[1]);
    // SAFETY: a member, once; debug builds notice that it is none any more.
    unsafe {
        Links::del(middle).unwrap();
        assert_eq!(Links::del(middle), Err(Corruption::DoubleRemove { node: middle.addr().get() }));
        assert_eq!(
            Links::move_to(middle, NonNull::from(&*nodes[0])).map_err(|e| e.to_string()),
            Err(format!("double remove: node {:#x} was removed before", middle.addr()))
        );
        assert_eq!(Links::next(NonNull::from(&*nodes[0])), NonNull::from(&*nodes[2]));
    }
}

#[test]
fn removing_what_was_never_added_is_refused() {
    let stray = Links::new();
    let stray = NonNull::from(&stray);
    // SAFETY: in no list, which debug builds notice.
    unsafe {
        let error = Err(Corruption::NotInList { node: stray.addr().get() });
        assert_eq!(Links::del(stray), error);
        assert_eq!(Links::del_rcu(stray), error);
        assert_eq!(Links::add(NonNull::from(&Links::new()), stray), error, "a head that was not initialised");
    }
}

#[test]
fn adding_twice_is_refused_by_the_ring_itself() {
    let (head, nodes) = ring();
    let member = NonNull::from(&*nodes[1]);
    let error = Err(Corruption::DoubleAdd { node: member.addr().get() });
    // SAFETY: debug builds notice that it is a member.
    unsafe {
        assert_eq!(Links::add(member, NonNull::from(&*head)), error);
        assert_eq!(Links::add_tail(member, member), error);
        assert_eq!(Links::replace(NonNull::from(&*nodes[0]), member), error);
    }
}

#[test]
fn an_overwritten_neighbour_is_noticed_before_anything_changes() {
    for word in [0, 1] {
        let (head, nodes) = ring();
        let [a, b, c] = [0, 1, 2].map(|n| NonNull::from(&*nodes[n]));
        // SAFETY: one thread; the value is never followed, because the operations refuse.
        unsafe {
            // The `prev` of c, or the `next` of a, no longer says b.
            let victim = if word == 0 { words(&nodes[0]) } else { words(&nodes[2]) };
            let before = (*victim)[word];
            (*victim)[word] = head.as_ref() as *const Links as usize;
            let error = Links::del(b).unwrap_err();
            let (node, found) = (b.addr().get(), NonNull::from(&*head).addr().get());
            let expected = match word {
                0 => Corruption::PrevDisagrees { node, prev: a.addr().get(), found },
                _ => Corruption::NextDisagrees { node, next: c.addr().get(), found },
            };
            assert_eq!(error, expected);
            assert!(error.to_string().starts_with("list corruption: "));
            // Nothing was changed: with the word put right, the ring is whole.
            (*victim)[word] = before;
            Links::del(b).unwrap();
            assert_eq!((Links::next(a), Links::prev(c)), (c, a));
        }
    }
}

#[test]
fn chains_notice_the_same() {
    let head = HHead::new();
    let nodes = [HLinks::new(), HLinks::new()];
    let [a, b] = [NonNull::from(&nodes[0]), NonNull::from(&nodes[1])];
    // SAFETY: one thread; debug builds refuse what is against the contract.
    unsafe {
        assert_eq!(HLinks::del(a), Err(Corruption::NotInList { node: a.addr().get() }));
        head.add(a).unwrap();
        assert_eq!(head.add(a), Err(Corruption::DoubleAdd { node: a.addr().get() }));
        HLinks::add_behind(b, a).unwrap();
        let pprev_of_b = (&raw const nodes[1]).cast::<*const HHead>().cast_mut().add(1);
        let before = pprev_of_b.read();
        pprev_of_b.write(&raw const head);
        assert!(matches!(HLinks::del(a), Err(Corruption::NextDisagrees { .. })));
        assert!(matches!(HLinks::del(b), Err(Corruption::PrevDisagrees { .. })));
        pprev_of_b.write(before);
        HLinks::del(a).unwrap();
        assert_eq!(HLinks::del(a), Err(Corruption::DoubleRemove { node: a.addr().get() }));
        HLinks::del(b).unwrap();
    }
    assert!(head.is_empty());
}
