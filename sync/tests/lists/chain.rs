//! Chains with a head of one word, one operation at a time.

use std::sync::Arc;

use sync::list::raw::{HHead, HLinks};
use sync::list::{HLink, HList};

struct Item {
    name: char,
    link: HLink,
}
sync::link_field! { struct InChain = Item => link: HLink; }
type Chain = HList<Arc<Item>, InChain>;

fn item(name: char) -> Arc<Item> {
    Arc::new(Item { name, link: HLink::new() })
}

/// A chain of the items, first to last, and the items.
fn chain(names: &str) -> (Chain, Vec<Arc<Item>>) {
    let mut chain = Chain::new();
    let items: Vec<Arc<Item>> = names.chars().map(item).collect();
    for item in items.iter().rev() {
        chain.push_front(item.clone());
    }
    (chain, items)
}

fn names(chain: &Chain) -> String {
    chain.iter().map(|item| item.name).collect()
}

#[test]
fn a_fresh_head_is_empty() {
    let chain = Chain::new();
    assert!(chain.is_empty() && chain.front().is_none() && chain.iter().next().is_none());
    assert_eq!(size_of::<HHead>(), size_of::<usize>());
}

#[test]
fn a_fresh_node_is_in_no_chain() {
    assert!(!item('a').link.is_linked());
}

#[test]
fn membership_is_seen_without_the_list() {
    let (mut chain, items) = chain("a");
    assert!(items[0].link.is_linked());
    chain.pop_front();
    assert!(!items[0].link.is_linked());
}

#[test]
fn adding_at_the_head_makes_a_stack() {
    let mut chain = Chain::new();
    for name in ['a', 'b', 'c'] {
        chain.push_front(item(name));
    }
    assert_eq!(names(&chain), "cba");
}

#[test]
fn adding_before_and_behind_each_member() {
    for at in 0..=3 {
        let (mut chain, _items) = chain("abc");
        let mut cursor = chain.cursor_front_mut();
        for _ in 0..at {
            cursor.move_next();
        }
        cursor.insert_before(item('x'));
        cursor.insert_before(item('y'));
        cursor.insert_after(item('z'));
        let expected = ["xyazbc", "axybzc", "abxycz", "abcxyz"][at];
        assert_eq!(names(&chain), expected, "{at}");
    }
}

#[test]
fn removing_first_middle_and_last() {
    for (index, rest) in [(0, "bc"), (1, "ac"), (2, "ab")] {
        let (mut chain, items) = chain("abc");
        // SAFETY: there is only one chain.
        let removed = unsafe { chain.remove(&items[index]) };
        assert!(Arc::ptr_eq(&removed.unwrap(), &items[index]));
        assert_eq!(names(&chain), rest);
        assert!(!items[index].link.is_linked());
    }
}

#[test]
fn removing_what_is_in_no_chain() {
    let (mut chain, items) = chain("ab");
    // SAFETY: there is only one chain.
    unsafe {
        assert!(chain.remove(&items[0]).is_some());
        assert!(chain.remove(&items[0]).is_none());
        assert!(chain.remove(&item('x')).is_none());
    }
    assert_eq!(names(&chain), "b");
}

#[test]
fn a_removed_node_can_be_added_again() {
    let (mut chain, _items) = chain("abc");
    let a = chain.pop_front().unwrap();
    chain.push_front(a);
    assert_eq!(names(&chain), "abc");
}

#[test]
fn singular_with_one_only() {
    for (members, singular) in [("", false), ("a", true), ("ab", false)] {
        assert_eq!(chain(members).0.is_singular(), singular, "{members}");
    }
}

#[test]
fn the_whole_chain_moves_to_another_head() {
    let (mut old, items) = chain("abc");
    let mut new = old.take();
    assert!(old.is_empty());
    assert_eq!(names(&new), "abc");
    // SAFETY: it is in this chain now.
    assert!(unsafe { new.remove(&items[0]) }.is_some());
    assert_eq!(names(&new), "bc");
}

#[test]
fn a_moved_head_is_found_by_its_members() {
    let (chain, items) = chain("abc");
    let mut elsewhere = Box::new(chain);
    // SAFETY: there is only one chain.
    assert!(unsafe { elsewhere.remove(&items[0]) }.is_some());
    let mut again = *elsewhere;
    again.push_front(items[0].clone());
    let mut once_more = Box::new(again);
    assert_eq!(once_more.cursor_front_mut().remove().unwrap().name, 'a');
    assert_eq!(names(&once_more), "bc");
}

#[test]
fn going_through_continuing_and_starting_in_the_middle() {
    let (chain, _items) = chain("abcde");
    let mut iter = chain.iter();
    assert_eq!(iter.by_ref().take(2).map(|item| item.name).collect::<String>(), "ab");
    let from_here = iter.clone();
    assert_eq!(iter.map(|item| item.name).collect::<String>(), "cde");
    assert_eq!(from_here.map(|item| item.name).collect::<String>(), "cde");
}

#[test]
fn removing_while_going_through() {
    let (mut chain, items) = chain("abcdef");
    let removed: String = chain.extract_if(|item| "ace".contains(item.name)).map(|item| item.name).collect();
    assert_eq!((removed, names(&chain)), ("ace".into(), "bdf".into()));
    chain.retain(|item| item.name == 'd');
    assert_eq!(names(&chain), "d");
    assert_eq!(items.iter().filter(|item| item.link.is_linked()).count(), 1);
}

#[test]
fn clearing_gives_up_all_shares() {
    let (mut chain, items) = chain("abc");
    chain.clear();
    assert!(chain.is_empty());
    assert!(items.iter().all(|item| Arc::strong_count(item) == 1 && !item.link.is_linked()));
}

#[test]
fn dropping_gives_up_all_shares() {
    let (chain, items) = chain("abc");
    drop(chain);
    assert!(items.iter().all(|item| Arc::strong_count(item) == 1 && !item.link.is_linked()));
}

#[test]
fn draining_gives_all_in_order() {
    let (mut chain, _items) = chain("abc");
    let mut drain = chain.drain();
    assert_eq!(drain.next().unwrap().name, 'a');
    drop(drain);
    assert!(chain.is_empty());
}

#[test]
fn the_end_says_which_chain_it_is_of() {
    let mut table: Vec<Chain> = (0..4).map(Chain::with_nulls).collect();
    let (a, b) = (item('a'), item('b'));
    table[2].push_front(a.clone());
    table[2].push_front(b.clone());
    for (value, chain) in table.iter().enumerate() {
        let mut iter = chain.iter();
        assert_eq!(iter.end().is_some(), chain.is_empty());
        while iter.next().is_some() {}
        assert_eq!(iter.end(), Some(value));
    }
    let taken = table[2].take();
    let mut iter = taken.iter();
    while iter.next().is_some() {}
    assert_eq!(iter.end(), Some(2));
    assert_eq!(table[2].iter().end(), Some(2));
}

/// What a lockless reader meets when the node that it stands on goes to another chain.
#[test]
fn a_reader_that_was_carried_over_ends_elsewhere() {
    let (one, two) = (HHead::with_nulls(1), HHead::with_nulls(2));
    let (a, b) = (HLinks::new(), HLinks::new());
    let (a, b) = ((&a).into(), (&b).into());
    // SAFETY: heads and nodes stay where they are, and there is one thread.
    unsafe {
        one.add(b).unwrap();
        one.add(a).unwrap();
        let reader_is_on = one.first().unwrap();
        HLinks::del_rcu(a).unwrap();
        two.add(a).unwrap();
        assert_eq!(HLinks::next_or_end(reader_is_on), Err(2));
        HLinks::del(a).unwrap();
        HLinks::del(b).unwrap();
    }
}
