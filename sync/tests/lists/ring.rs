//! The ring, one operation at a time. After each the whole ring is walked both ways and compared.

use core::ptr::NonNull;

use sync::list::Corruption;
use sync::list::raw::Links;

type Done = Result<(), Corruption>;

/// An object with a name and a place in one ring.
struct Item {
    name: char,
    links: Links,
}

/// A head and five items that stay where they are.
struct Fixture {
    head: Box<Links>,
    items: Box<[Item]>,
}

/// Five items, `a` to `e`, in no list, and an empty list.
fn fixture() -> Fixture {
    let items = ('a'..='e').map(|name| Item { name, links: Links::new() }).collect();
    let fixture = Fixture { head: Box::new(Links::new()), items };
    // SAFETY: the head is boxed and outlives the test's ring.
    unsafe { Links::init(fixture.head()) };
    fixture
}

/// The same with the first `n` items in the list, in order.
fn filled(n: usize) -> Fixture {
    let fixture = fixture();
    for index in 0..n {
        // SAFETY: fresh items, boxed.
        unsafe { Links::add_tail(fixture.item(index), fixture.head()) }.unwrap();
    }
    fixture
}

impl Fixture {
    fn head(&self) -> NonNull<Links> {
        NonNull::from(&*self.head)
    }

    /// The links of an item, by a pointer that is good for the whole item.
    fn item(&self, index: usize) -> NonNull<Links> {
        let item: *const Item = &self.items[index];
        // SAFETY: a field of a live item.
        NonNull::new(unsafe { &raw const (*item).links }.cast_mut()).unwrap()
    }

    /// The names in the list, after making sure that both directions agree and each node is marked as a member.
    fn names(&self) -> String {
        names(self.head())
    }
}

fn name(node: NonNull<Links>) -> char {
    // SAFETY: all nodes of these tests are in items, and their pointers good for those.
    unsafe { sync::container_of!(node, Item, links).as_ref() }.name
}

fn names(head: NonNull<Links>) -> String {
    let mut forward = String::new();
    // SAFETY: the tests' rings are sound unless the operation under test is not, and then the checks below say so.
    unsafe {
        let mut at = Links::next(head);
        while at != head {
            assert_eq!(Links::prev(Links::next(at)), at);
            assert_eq!(Links::next(Links::prev(at)), at);
            assert!(at.as_ref().is_linked());
            forward.push(name(at));
            assert!(forward.len() <= 10, "the ring does not come back to its head");
            at = Links::next(at);
        }
        assert_eq!(Links::prev(Links::next(head)), head);
    }
    forward
}

#[test]
fn a_fresh_head_is_an_empty_ring() {
    let f = fixture();
    // SAFETY: a head.
    unsafe {
        assert!(Links::is_empty(f.head()));
        assert_eq!((Links::next(f.head()), Links::prev(f.head())), (f.head(), f.head()));
    }
}

#[test]
fn adding_at_the_head_makes_a_stack() -> Done {
    let f = fixture();
    for index in 0..3 {
        // SAFETY: fresh items.
        unsafe { Links::add(f.item(index), f.head())? };
    }
    assert_eq!(f.names(), "cba");
    Ok(())
}

#[test]
fn adding_at_the_tail_makes_a_queue() -> Done {
    let f = fixture();
    for index in 0..3 {
        // SAFETY: fresh items.
        unsafe { Links::add_tail(f.item(index), f.head())? };
    }
    assert_eq!(f.names(), "abc");
    Ok(())
}

#[test]
fn adding_beside_a_member() -> Done {
    let f = filled(2);
    // SAFETY: fresh items, and members.
    unsafe {
        Links::add(f.item(2), f.item(0))?;
        Links::add_tail(f.item(3), f.item(0))?;
    }
    assert_eq!(f.names(), "dacb");
    Ok(())
}

#[test]
fn removing_first_middle_and_last() -> Done {
    for (index, rest) in [(0, "bc"), (1, "ac"), (2, "ab")] {
        let f = filled(3);
        // SAFETY: a member.
        unsafe { Links::del(f.item(index))? };
        assert_eq!(f.names(), rest);
        assert!(!f.items[index].links.is_linked());
    }
    Ok(())
}

#[test]
fn removing_the_only_one_leaves_an_empty_ring() -> Done {
    let f = filled(1);
    // SAFETY: a member, and a head.
    unsafe {
        Links::del(f.item(0))?;
        assert!(Links::is_empty(f.head()));
    }
    assert_eq!(f.names(), "");
    Ok(())
}

#[test]
fn a_removed_node_can_be_added_again() -> Done {
    let f = filled(3);
    // SAFETY: a member, then in no list.
    unsafe {
        Links::del(f.item(1))?;
        Links::add(f.item(1), f.head())?;
    }
    assert_eq!(f.names(), "bac");
    Ok(())
}

#[test]
fn removing_for_lockless_readers_leaves_the_way_on() -> Done {
    let f = filled(3);
    // SAFETY: a member; afterwards nobody has reused it.
    unsafe {
        Links::del_rcu(f.item(1))?;
        assert_eq!(Links::next(f.item(1)), f.item(2));
    }
    assert_eq!(f.names(), "ac");
    assert!(!f.items[1].links.is_linked());
    Ok(())
}

#[test]
fn replacing_takes_the_place() -> Done {
    for (index, after) in [(0, "ebc"), (1, "aec"), (2, "abe")] {
        let f = filled(3);
        // SAFETY: a member and a fresh item.
        unsafe { Links::replace(f.item(index), f.item(4))? };
        assert_eq!(f.names(), after);
        assert!(!f.items[index].links.is_linked());
    }
    Ok(())
}

#[test]
fn replacing_the_only_one() -> Done {
    let f = filled(1);
    // SAFETY: a member and a fresh item; the replaced one is in no list.
    unsafe {
        Links::replace(f.item(0), f.item(1))?;
        Links::add(f.item(0), f.head())?;
    }
    assert_eq!(f.names(), "ab");
    Ok(())
}

#[test]
fn swapping_any_two_members() -> Done {
    for i in 0..4 {
        for j in 0..4 {
            let f = filled(4);
            let mut expected: Vec<char> = "abcd".chars().collect();
            expected.swap(i, j);
            // SAFETY: members.
            unsafe { Links::swap(f.item(i), f.item(j))? };
            assert_eq!(f.names(), expected.iter().collect::<String>(), "{i} and {j}");
        }
    }
    Ok(())
}

#[test]
fn swapping_members_of_two_lists() -> Done {
    let (f, g) = (filled(3), filled(2));
    // SAFETY: members.
    unsafe { Links::swap(f.item(1), g.item(0))? };
    assert_eq!((f.names(), g.names()), ("aac".into(), "bb".into()));
    Ok(())
}

#[test]
fn moving_to_the_front_of_another_list() -> Done {
    let (f, g) = (filled(3), filled(2));
    // SAFETY: a member and a head.
    unsafe { Links::move_to(f.item(1), g.head())? };
    assert_eq!((f.names(), g.names()), ("ac".into(), "bab".into()));
    Ok(())
}

#[test]
fn moving_to_the_back_of_another_list() -> Done {
    let (f, g) = (filled(3), filled(2));
    // SAFETY: a member and a head.
    unsafe { Links::move_tail(f.item(0), g.head())? };
    assert_eq!((f.names(), g.names()), ("bc".into(), "aba".into()));
    Ok(())
}

#[test]
fn moving_inside_of_a_list_to_where_it_is_already() -> Done {
    let f = filled(3);
    // SAFETY: members and their head; nobody is put beside itself.
    unsafe {
        Links::move_to(f.item(0), f.head())?;
        Links::move_tail(f.item(2), f.head())?;
        Links::move_to(f.item(1), f.item(0))?;
        Links::move_tail(f.item(1), f.item(2))?;
    }
    assert_eq!(f.names(), "abc");
    Ok(())
}

#[test]
fn moving_several_to_the_back_of_another_list() -> Done {
    let (f, g) = (filled(5), filled(2));
    // SAFETY: b comes before d.
    unsafe { Links::bulk_move_tail(f.item(1), f.item(3), g.head())? };
    assert_eq!((f.names(), g.names()), ("ae".into(), "abbcd".into()));
    Ok(())
}

#[test]
fn moving_several_in_front_of_a_member_of_the_same_list() -> Done {
    let f = filled(5);
    // SAFETY: c comes before d, and a is not among them.
    unsafe { Links::bulk_move_tail(f.item(2), f.item(3), f.item(0))? };
    assert_eq!(f.names(), "cdabe");
    Ok(())
}

#[test]
fn moving_several_to_where_they_are() -> Done {
    let f = filled(5);
    // SAFETY: d comes before e.
    unsafe { Links::bulk_move_tail(f.item(3), f.item(4), f.head())? };
    assert_eq!(f.names(), "abcde");
    Ok(())
}

#[test]
fn only_the_head_is_the_head() {
    let f = filled(1);
    assert!(Links::is_head(f.head(), f.head()));
    assert!(!Links::is_head(f.item(0), f.head()));
}

#[test]
fn only_the_first_is_first() {
    let f = filled(3);
    // SAFETY: members.
    let first: Vec<bool> = (0..3).map(|i| unsafe { Links::is_first(f.item(i), f.head()) }).collect();
    assert_eq!(first, [true, false, false]);
}

#[test]
fn only_the_last_is_last() {
    let f = filled(3);
    // SAFETY: members.
    let last: Vec<bool> = (0..3).map(|i| unsafe { Links::is_last(f.item(i), f.head()) }).collect();
    assert_eq!(last, [false, false, true]);
}

#[test]
fn empty_until_the_first_is_added() -> Done {
    let f = fixture();
    // SAFETY: a head and a fresh item.
    unsafe {
        assert!(Links::is_empty(f.head()));
        Links::add(f.item(0), f.head())?;
        assert!(!Links::is_empty(f.head()));
    }
    Ok(())
}

#[test]
fn singular_with_one_only() {
    for (n, singular) in [(0, false), (1, true), (2, false)] {
        let f = filled(n);
        // SAFETY: a head.
        assert_eq!(unsafe { Links::is_singular(f.head()) }, singular, "{n}");
    }
}

#[test]
fn rotating_left_moves_the_first_to_the_end() -> Done {
    for (n, after) in [(0, ""), (1, "a"), (2, "ba"), (3, "bca")] {
        let f = filled(n);
        // SAFETY: a head.
        unsafe { Links::rotate_left(f.head())? };
        assert_eq!(f.names(), after);
    }
    Ok(())
}

#[test]
fn rotating_to_the_front_keeps_the_circle() -> Done {
    for (index, after) in [(0, "abcd"), (1, "bcda"), (2, "cdab"), (3, "dabc")] {
        let f = filled(4);
        // SAFETY: a member and its head.
        unsafe { Links::rotate_to_front(f.item(index), f.head())? };
        assert_eq!(f.names(), after);
    }
    Ok(())
}

#[test]
fn cutting_up_to_and_including() -> Done {
    for (index, front, rest) in [(0, "a", "bcd"), (1, "ab", "cd"), (3, "abcd", "")] {
        let (f, into) = (filled(4), fixture());
        // SAFETY: a member; `into` is empty.
        unsafe { Links::cut_position(into.head(), f.head(), f.item(index))? };
        assert_eq!((into.names(), f.names()), (front.into(), rest.into()));
    }
    Ok(())
}

#[test]
fn cutting_at_the_head_takes_nothing() -> Done {
    let (f, into) = (filled(2), fixture());
    // SAFETY: a head; `into` is empty.
    unsafe { Links::cut_position(into.head(), f.head(), f.head())? };
    assert_eq!((into.names(), f.names()), ("".into(), "ab".into()));
    Ok(())
}

#[test]
fn cutting_before() -> Done {
    for (index, front, rest) in [(0, "", "abcd"), (1, "a", "bcd"), (3, "abc", "d")] {
        let (f, into) = (filled(4), fixture());
        // SAFETY: a member; `into` is empty.
        unsafe { Links::cut_before(into.head(), f.head(), f.item(index))? };
        assert_eq!((into.names(), f.names()), (front.into(), rest.into()));
    }
    Ok(())
}

#[test]
fn cutting_before_the_head_takes_all() -> Done {
    let (f, into) = (filled(2), fixture());
    // SAFETY: a head; `into` is empty.
    unsafe { Links::cut_before(into.head(), f.head(), f.head())? };
    assert_eq!((into.names(), f.names()), ("ab".into(), "".into()));
    Ok(())
}

#[test]
fn splicing_at_the_front_and_leaving_the_source_empty() -> Done {
    let (f, g) = (filled(3), filled(2));
    // SAFETY: two heads.
    unsafe { Links::splice(g.head(), f.head())? };
    assert_eq!((f.names(), g.names()), ("ababc".into(), "".into()));
    Ok(())
}

#[test]
fn splicing_at_the_back_and_leaving_the_source_empty() -> Done {
    let (f, g) = (filled(3), filled(2));
    // SAFETY: two heads.
    unsafe { Links::splice_tail(g.head(), f.head())? };
    assert_eq!((f.names(), g.names()), ("abcab".into(), "".into()));
    Ok(())
}

#[test]
fn splicing_beside_a_member() -> Done {
    let (f, g) = (filled(3), filled(1));
    // SAFETY: a head and a member of another list.
    unsafe { Links::splice(g.head(), f.item(1))? };
    assert_eq!(f.names(), "abac");
    let (f, g) = (filled(3), filled(1));
    // SAFETY: a head and a member of another list.
    unsafe { Links::splice_tail(g.head(), f.item(1))? };
    assert_eq!(f.names(), "aabc");
    Ok(())
}

#[test]
fn splicing_nothing_changes_nothing() -> Done {
    let (f, g) = (filled(3), fixture());
    // SAFETY: two heads.
    unsafe {
        Links::splice(g.head(), f.head())?;
        Links::splice_tail(g.head(), f.head())?;
    }
    assert_eq!((f.names(), g.names()), ("abc".into(), "".into()));
    Ok(())
}

#[test]
fn splicing_into_an_empty_list() -> Done {
    let (f, g) = (fixture(), filled(2));
    // SAFETY: two heads.
    unsafe { Links::splice(g.head(), f.head())? };
    assert_eq!((f.names(), g.names()), ("ab".into(), "".into()));
    // The source is a list as any other.
    // SAFETY: a fresh item.
    unsafe { Links::add(g.item(4), g.head())? };
    assert_eq!(g.names(), "e");
    Ok(())
}

#[test]
fn from_the_field_to_the_object() {
    let f = fixture();
    // SAFETY: `item` returns the field by a pointer to the whole item.
    let item = unsafe { sync::container_of!(f.item(2), Item, links) };
    assert!(core::ptr::eq(item.as_ptr(), &f.items[2]));
}

#[test]
fn first_and_last_of_the_list() {
    let f = filled(3);
    // SAFETY: a head with members.
    let (first, last) = unsafe { (Links::next(f.head()), Links::prev(f.head())) };
    assert_eq!((name(first), name(last)), ('a', 'c'));
}

#[test]
fn next_and_previous_go_round() {
    let f = filled(3);
    let mut at = f.head();
    let mut seen = String::new();
    for _ in 0..8 {
        // SAFETY: in the ring.
        at = unsafe { Links::next(at) };
        seen.push(if at == f.head() { '.' } else { name(at) });
    }
    assert_eq!(seen, "abc.abc.");
    seen.clear();
    for _ in 0..8 {
        // SAFETY: in the ring.
        at = unsafe { Links::prev(at) };
        seen.push(if at == f.head() { '.' } else { name(at) });
    }
    assert_eq!(seen, "cba.cba.");
}

#[test]
fn removing_while_walking_forward() -> Done {
    let f = filled(5);
    let mut removed = String::new();
    // SAFETY: the next is read before the node is removed.
    unsafe {
        let mut at = Links::next(f.head());
        while at != f.head() {
            let next = Links::next(at);
            if "ace".contains(name(at)) {
                removed.push(name(at));
                Links::del(at)?;
            }
            at = next;
        }
    }
    assert_eq!((removed, f.names()), ("ace".into(), "bd".into()));
    Ok(())
}

#[test]
fn removing_while_walking_backward() -> Done {
    let f = filled(5);
    // SAFETY: the previous is read before the node is removed.
    unsafe {
        let mut at = Links::prev(f.head());
        while at != f.head() {
            let prev = Links::prev(at);
            Links::del(at)?;
            at = prev;
        }
    }
    assert_eq!(f.names(), "");
    Ok(())
}

#[test]
fn one_claim_succeeds() {
    let node = Links::new();
    assert!(node.claim());
    assert!(!node.claim());
    assert!(node.is_linked());
    node.unclaim();
    assert!(node.claim());
}
