//! Random operations on lists, compared with the same operations on vectors, the whole structure after each.

use std::sync::Arc;

use proptest::prelude::*;
use sync::list::{HLink, HList, Link, List};

const OBJECTS: usize = 8;

struct Object {
    id: usize,
    link: Link,
    hash: HLink,
}
sync::link_field! {
    struct InList = Object => link: Link;
    struct InHash = Object => hash: HLink;
}

fn objects() -> Vec<Arc<Object>> {
    (0..OBJECTS).map(|id| Arc::new(Object { id, link: Link::new(), hash: HLink::new() })).collect()
}

/// What is done to one of two lists, perhaps with the help of the other. `at` is a place: so many steps from the head.
#[derive(Clone, Debug)]
enum Op {
    PushFront(usize),
    PushBack(usize),
    PopFront,
    PopBack,
    Remove(usize),
    RemoveAt(usize),
    InsertBefore(usize, usize),
    InsertAfter(usize, usize),
    Replace(usize, usize),
    MoveToFront(usize),
    MoveToBack(usize),
    MoveToOther(usize),
    SplitAfter(usize),
    SplitBefore(usize),
    SpliceAfter(usize),
    SpliceBefore(usize),
    Append,
    Prepend,
    RotateLeft,
    RotateToFront(usize),
    Retain(u8),
    Exchange,
    Relocate,
    Clear,
}

fn op() -> impl Strategy<Value = Op> {
    let id = 0..OBJECTS;
    let at = || 0..OBJECTS + 2;
    prop_oneof![
        3 => id.clone().prop_map(Op::PushFront),
        3 => id.clone().prop_map(Op::PushBack),
        1 => Just(Op::PopFront),
        1 => Just(Op::PopBack),
        1 => id.clone().prop_map(Op::Remove),
        1 => at().prop_map(Op::RemoveAt),
        2 => (at(), id.clone()).prop_map(|(at, id)| Op::InsertBefore(at, id)),
        2 => (at(), id.clone()).prop_map(|(at, id)| Op::InsertAfter(at, id)),
        1 => (at(), id).prop_map(|(at, id)| Op::Replace(at, id)),
        1 => at().prop_map(Op::MoveToFront),
        1 => at().prop_map(Op::MoveToBack),
        1 => at().prop_map(Op::MoveToOther),
        1 => at().prop_map(Op::SplitAfter),
        1 => at().prop_map(Op::SplitBefore),
        1 => at().prop_map(Op::SpliceAfter),
        1 => at().prop_map(Op::SpliceBefore),
        1 => Just(Op::Append),
        1 => Just(Op::Prepend),
        1 => Just(Op::RotateLeft),
        1 => at().prop_map(Op::RotateToFront),
        1 => any::<u8>().prop_map(Op::Retain),
        1 => Just(Op::Exchange),
        1 => Just(Op::Relocate),
        1 => Just(Op::Clear),
    ]
}

type Queue = List<Arc<Object>, InList>;

/// Goes `at` steps on from the head in list and model. The model's answer is an index, the head's that of the end.
fn place(list: &[usize], at: usize) -> usize {
    let steps = at % (list.len() + 1);
    (steps + list.len()) % (list.len() + 1)
}

/// Does `op` to `model` and, the same in other words, to `real`.
fn apply(op: &Op, objects: &[Arc<Object>], model: &mut [Vec<usize>; 2], real: &mut [Queue; 2]) {
    let [m, other_m] = model;
    let [r, other_r] = real;
    let free = |id: usize, m: &Vec<usize>, o: &Vec<usize>| !m.contains(&id) && !o.contains(&id);
    /// A cursor on the same place as index `i` of the model.
    macro_rules! cursor {
        ($i:expr) => {{
            let mut cursor = r.cursor_front_mut();
            for _ in 0..$i {
                cursor.move_next();
            }
            assert_eq!(cursor.current().map(|object| object.id), m.get($i).copied());
            cursor
        }};
    }
    match *op {
        Op::PushFront(id) => {
            let done = r.try_push_front(objects[id].clone()).is_ok();
            assert_eq!(done, free(id, m, other_m));
            if done {
                m.insert(0, id);
            }
        }
        Op::PushBack(id) => {
            let done = r.try_push_back(objects[id].clone()).is_ok();
            assert_eq!(done, free(id, m, other_m));
            if done {
                m.push(id);
            }
        }
        Op::PopFront => {
            let expected = (!m.is_empty()).then(|| m.remove(0));
            assert_eq!(r.pop_front().map(|object| object.id), expected);
        }
        Op::PopBack => assert_eq!(r.pop_back().map(|object| object.id), m.pop()),
        Op::Remove(id) if !other_m.contains(&id) => {
            // SAFETY: in this list or in none.
            let removed = unsafe { r.remove(&objects[id]) };
            assert_eq!(removed.is_some(), m.contains(&id));
            m.retain(|member| *member != id);
        }
        Op::Remove(_) => {}
        Op::RemoveAt(at) => {
            let i = place(m, at);
            let mut cursor = cursor!(i);
            assert_eq!(cursor.remove().map(|object| object.id), m.get(i).copied());
            if i < m.len() {
                m.remove(i);
            }
            assert_eq!(cursor.current().map(|object| object.id), m.get(i).copied());
        }
        Op::InsertBefore(at, id) if free(id, m, other_m) => {
            let i = place(m, at);
            cursor!(i).insert_before(objects[id].clone());
            m.insert(i, id);
        }
        Op::InsertAfter(at, id) if free(id, m, other_m) => {
            let i = place(m, at);
            cursor!(i).insert_after(objects[id].clone());
            m.insert(if i == m.len() { 0 } else { i + 1 }, id);
        }
        Op::InsertBefore(..) | Op::InsertAfter(..) => {}
        Op::Replace(at, id) => {
            let i = place(m, at);
            let possible = i < m.len() && free(id, m, other_m);
            let mut cursor = cursor!(i);
            match cursor.replace(objects[id].clone()) {
                Ok(old) => {
                    assert!(possible);
                    assert_eq!(cursor.current().map(|object| object.id), Some(id));
                    assert_eq!(core::mem::replace(&mut m[i], id), old.id);
                }
                Err(_) => assert!(!possible),
            }
        }
        Op::MoveToFront(at) => {
            let i = place(m, at);
            cursor!(i).move_to_front();
            if i < m.len() {
                let id = m.remove(i);
                m.insert(0, id);
            }
        }
        Op::MoveToBack(at) => {
            let i = place(m, at);
            cursor!(i).move_to_back();
            if i < m.len() {
                let id = m.remove(i);
                m.push(id);
            }
        }
        Op::MoveToOther(at) => {
            let i = place(m, at);
            cursor!(i).move_to(other_r);
            if i < m.len() {
                other_m.push(m.remove(i));
            }
        }
        Op::SplitAfter(at) => {
            let i = place(m, at);
            let mut tail = cursor!(i).split_after();
            let tail_m = m.split_off(if i == m.len() { 0 } else { i + 1 });
            other_r.append(&mut tail);
            other_m.extend(tail_m);
        }
        Op::SplitBefore(at) => {
            let i = place(m, at);
            let mut front = cursor!(i).split_before();
            other_r.append(&mut front);
            other_m.extend(m.drain(..i));
        }
        Op::SpliceAfter(at) => {
            let i = place(m, at);
            cursor!(i).splice_after(other_r);
            let to = if i == m.len() { 0 } else { i + 1 };
            m.splice(to..to, other_m.drain(..));
        }
        Op::SpliceBefore(at) => {
            let i = place(m, at);
            cursor!(i).splice_before(other_r);
            m.splice(i..i, other_m.drain(..));
        }
        Op::Append => {
            r.append(other_r);
            m.append(other_m);
        }
        Op::Prepend => {
            r.prepend(other_r);
            m.splice(0..0, other_m.drain(..));
        }
        Op::RotateLeft => {
            r.rotate_left();
            if !m.is_empty() {
                m.rotate_left(1);
            }
        }
        Op::RotateToFront(at) => {
            let i = place(m, at);
            cursor!(i).rotate_to_front();
            let by = i % m.len().max(1);
            m.rotate_left(by);
        }
        Op::Retain(mask) => {
            r.retain(|object| mask >> object.id & 1 == 1);
            m.retain(|id| mask >> id & 1 == 1);
        }
        Op::Exchange => {
            core::mem::swap(r, other_r);
            core::mem::swap(m, other_m);
        }
        Op::Relocate => *r = *Box::new(core::mem::take(r)),
        Op::Clear => {
            r.clear();
            m.clear();
        }
    }
}

/// Compares everything that can be asked with what the model says.
fn compare(objects: &[Arc<Object>], model: &[Vec<usize>; 2], real: &[Queue; 2]) {
    for (m, r) in model.iter().zip(real) {
        assert_eq!(r.iter().map(|object| object.id).collect::<Vec<_>>(), *m);
        assert_eq!(
            r.iter().rev().map(|object| object.id).collect::<Vec<_>>(),
            m.iter().rev().copied().collect::<Vec<_>>()
        );
        assert_eq!((r.is_empty(), r.is_singular(), r.count()), (m.is_empty(), m.len() == 1, m.len()));
        assert_eq!(
            (r.front().map(|o| o.id), r.back().map(|o| o.id)),
            (m.first().copied(), m.last().copied())
        );
    }
    for object in objects {
        let member = model.iter().any(|m| m.contains(&object.id));
        assert_eq!(object.link.is_linked(), member);
        assert_eq!(Arc::strong_count(object), 1 + usize::from(member));
    }
}

/// The same for chains.
#[derive(Clone, Debug)]
enum ChainOp {
    Push(usize),
    Pop,
    Remove(usize),
    InsertBefore(usize, usize),
    InsertAfter(usize, usize),
    RemoveAt(usize),
    Retain(u8),
    Take,
    Exchange,
}

fn chain_op() -> impl Strategy<Value = ChainOp> {
    let id = 0..OBJECTS;
    let at = || 0..OBJECTS + 2;
    prop_oneof![
        4 => id.clone().prop_map(ChainOp::Push),
        1 => Just(ChainOp::Pop),
        1 => id.clone().prop_map(ChainOp::Remove),
        2 => (at(), id.clone()).prop_map(|(at, id)| ChainOp::InsertBefore(at, id)),
        2 => (at(), id).prop_map(|(at, id)| ChainOp::InsertAfter(at, id)),
        1 => at().prop_map(ChainOp::RemoveAt),
        1 => any::<u8>().prop_map(ChainOp::Retain),
        1 => Just(ChainOp::Take),
        1 => Just(ChainOp::Exchange),
    ]
}

type Chain = HList<Arc<Object>, InHash>;

fn apply_to_chain(op: &ChainOp, objects: &[Arc<Object>], model: &mut [Vec<usize>; 2], real: &mut [Chain; 2]) {
    let [m, other_m] = model;
    let [r, other_r] = real;
    let free = |id: usize, m: &Vec<usize>, o: &Vec<usize>| !m.contains(&id) && !o.contains(&id);
    macro_rules! cursor {
        ($i:expr) => {{
            let mut cursor = r.cursor_front_mut();
            for _ in 0..$i {
                cursor.move_next();
            }
            cursor
        }};
    }
    match *op {
        ChainOp::Push(id) => {
            let done = r.try_push_front(objects[id].clone()).is_ok();
            assert_eq!(done, free(id, m, other_m));
            if done {
                m.insert(0, id);
            }
        }
        ChainOp::Pop => {
            let expected = (!m.is_empty()).then(|| m.remove(0));
            assert_eq!(r.pop_front().map(|object| object.id), expected);
        }
        ChainOp::Remove(id) if !other_m.contains(&id) => {
            // SAFETY: in this chain or in none.
            let removed = unsafe { r.remove(&objects[id]) };
            assert_eq!(removed.is_some(), m.contains(&id));
            m.retain(|member| *member != id);
        }
        ChainOp::Remove(_) => {}
        ChainOp::InsertBefore(at, id) if free(id, m, other_m) => {
            let i = at.min(m.len());
            let mut cursor = cursor!(i);
            cursor.insert_before(objects[id].clone());
            assert_eq!(cursor.current().map(|object| object.id), m.get(i).copied());
            m.insert(i, id);
        }
        ChainOp::InsertAfter(at, id) if free(id, m, other_m) => {
            let i = at.min(m.len());
            cursor!(i).insert_after(objects[id].clone());
            m.insert((i + 1).min(m.len()), id);
        }
        ChainOp::InsertBefore(..) | ChainOp::InsertAfter(..) => {}
        ChainOp::RemoveAt(at) => {
            let i = at.min(m.len());
            assert_eq!(cursor!(i).remove().map(|object| object.id), m.get(i).copied());
            if i < m.len() {
                m.remove(i);
            }
        }
        ChainOp::Retain(mask) => {
            r.retain(|object| mask >> object.id & 1 == 1);
            m.retain(|id| mask >> id & 1 == 1);
        }
        ChainOp::Take => *r = *Box::new(r.take()),
        ChainOp::Exchange => {
            core::mem::swap(r, other_r);
            core::mem::swap(m, other_m);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: test_support::cases(512), ..ProptestConfig::default() })]

    #[test]
    fn lists_are_vectors(ops in proptest::collection::vec((any::<bool>(), op()), 0..60)) {
        let objects = objects();
        let mut model = [Vec::new(), Vec::new()];
        let mut real = [Queue::new(), Queue::new()];
        for (second, op) in &ops {
            if *second {
                model.reverse();
                real.reverse(); // moves both
            }
            apply(op, &objects, &mut model, &mut real);
            compare(&objects, &model, &real);
        }
        drop(real);
        prop_assert!(objects.iter().all(|object| Arc::strong_count(object) == 1));
    }

    #[test]
    fn chains_are_vectors(ops in proptest::collection::vec((any::<bool>(), chain_op()), 0..60)) {
        let objects = objects();
        let mut model = [Vec::new(), Vec::new()];
        let mut real = [Chain::with_nulls(0), Chain::with_nulls(1)];
        for (second, op) in &ops {
            if *second {
                model.reverse();
                real.reverse();
            }
            apply_to_chain(op, &objects, &mut model, &mut real);
            for (m, r) in model.iter().zip(&real) {
                let mut iter = r.iter();
                prop_assert_eq!(iter.by_ref().map(|object| object.id).collect::<Vec<_>>(), m.clone());
                prop_assert!(iter.end().is_some());
                prop_assert_eq!((r.is_empty(), r.is_singular()), (m.is_empty(), m.len() == 1));
            }
            for object in &objects {
                prop_assert_eq!(object.hash.is_linked(), model.iter().any(|m| m.contains(&object.id)));
            }
        }
        drop(real);
        prop_assert!(objects.iter().all(|object| Arc::strong_count(object) == 1));
    }
}
