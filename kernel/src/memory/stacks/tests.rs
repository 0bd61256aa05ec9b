use std::boxed::Box;
use std::format;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;

fn zeroed() -> Option<NonNull<Records>> {
    let records: Box<Records> = Box::new([const { AtomicU64::new(0) }; PER_FRAME]);
    Some(NonNull::from(Box::leak(records)))
}

fn cpu(number: u32) -> CpuId {
    CpuId::new(number).unwrap()
}

fn owner() -> impl Strategy<Value = Owner> {
    let of_cpu: [fn(CpuId) -> Owner; 6] =
        [Owner::Idle, Owner::Interrupt, Owner::Nmi, Owner::DoubleFault, Owner::MachineCheck, Owner::Debug];
    prop_oneof![
        any::<u32>().prop_map(Owner::Task),
        (0..6usize, 0..hal::MAX_CPUS as u32).prop_map(move |(kind, number)| of_cpu[kind](cpu(number))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(test_support::cases(100)))]

    #[test]
    fn every_address_leads_to_its_owner(wanted in prop::collection::vec((owner(), 1..=MAX_PAGES), 1..40), drops in prop::collection::vec(any::<bool>(), 40)) {
        let table = SlotTable::new();
        let mut live: Vec<_> = wanted.iter().map(|(owner, pages)| (*owner, table.take(*owner, *pages, zeroed).unwrap())).collect();
        let mut drops = drops.into_iter();
        live.retain(|(_, stack)| {
            let keep = !drops.next().unwrap();
            if !keep {
                table.release(stack);
                assert_eq!(table.guard_owner(stack.start - 1), None);
                assert_eq!(table.stack_at(stack.start), None);
            }
            keep
        });
        for (owner, stack) in &live {
            let guard = stack.end - SLOT;
            prop_assert_eq!(table.guard_owner(stack.start - 1), Some(*owner));
            prop_assert_eq!(table.guard_owner(guard), Some(*owner));
            prop_assert_eq!(table.guard_owner(stack.start), None);
            prop_assert_eq!(table.stack_at(stack.end - 1), Some((*owner, stack.clone())));
            prop_assert_eq!(table.stack_at(stack.start - 1), None);
            prop_assert!(live.iter().filter(|(_, other)| other.end > guard && other.start < stack.end).count() == 1);
        }
        prop_assert_eq!(table.stacks().collect::<Vec<_>>(), {
            let mut sorted = live.clone();
            sorted.sort_by_key(|(_, stack)| stack.start);
            sorted
        });
    }
}

#[test]
fn addresses_elsewhere_have_no_owner() {
    let table = SlotTable::new();
    table.take(Owner::Task(7), 4, zeroed).unwrap();
    for address in [0, REGION.start - 1, REGION.end, REGION.end - 1, u64::MAX] {
        assert_eq!(table.guard_owner(address), None);
    }
}

#[test]
fn the_last_slot_and_then_none() {
    let table = SlotTable::new();
    for number in 0..SLOTS as u32 {
        table.take(Owner::Task(number), 2, zeroed).unwrap();
    }
    assert_eq!(table.take(Owner::Task(0), 2, zeroed), Err(SlotError::Full));
    assert_eq!(table.guard_owner(REGION.end - SLOT), Some(Owner::Task(SLOTS as u32 - 1)));
    let empty = SlotTable::new();
    assert_eq!(empty.take(Owner::Task(0), 2, || None), Err(SlotError::OutOfFrames));
}

#[test]
fn owners_in_words() {
    assert_eq!(format!("{}", Owner::Interrupt(cpu(3))), "CPU#3's interrupt stack");
    assert_eq!(format!("{}", Owner::Task(17)), "task 17's stack");
}
