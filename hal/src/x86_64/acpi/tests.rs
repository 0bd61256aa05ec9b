//! Synthetic firmware: whole sets of tables in an array, true ones and lying ones.

use std::string::ToString;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;

/// Physical memory that begins at `BASE` and is unmapped elsewhere.
struct Image(Vec<u8>);

const BASE: u64 = 0xe_0000;

impl PhysicalMemory for Image {
    fn read(&self, address: u64, buffer: &mut [u8]) -> bool {
        let Some(start) = address.checked_sub(BASE).and_then(|start| usize::try_from(start).ok()) else {
            return false;
        };
        let Some(bytes) = self.0.get(start..).and_then(|rest| rest.get(..buffer.len())) else {
            return false;
        };
        buffer.copy_from_slice(bytes);
        true
    }
}

impl Image {
    fn put(&mut self, bytes: &[u8]) -> u64 {
        self.0.resize(self.0.len().next_multiple_of(16), 0);
        self.0.extend_from_slice(bytes);
        BASE + (self.0.len() - bytes.len()) as u64
    }

    fn at(&mut self, address: u64) -> &mut [u8] {
        &mut self.0[(address - BASE) as usize..]
    }
}

fn fix(table: &mut [u8]) {
    table[9] = 0;
    table[9] = table.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte));
}

fn table(signature: &[u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 36];
    bytes[..4].copy_from_slice(signature);
    bytes[4..8].copy_from_slice(&(36 + body.len() as u32).to_le_bytes());
    bytes[8] = revision;
    bytes.extend_from_slice(body);
    fix(&mut bytes);
    bytes
}

fn local_apic(uid: u8, id: u8, flags: u32) -> Vec<u8> {
    let mut entry = vec![0, 8, uid, id];
    entry.extend_from_slice(&flags.to_le_bytes());
    entry
}

fn local_x2apic(uid: u32, id: u32, flags: u32) -> Vec<u8> {
    let mut entry = vec![9, 16, 0, 0];
    [id, flags, uid].iter().for_each(|word| entry.extend_from_slice(&word.to_le_bytes()));
    entry
}

fn override_entry(irq: u8, gsi: u32, flags: u16) -> Vec<u8> {
    let mut entry = vec![2, 10, 0, irq];
    entry.extend_from_slice(&gsi.to_le_bytes());
    entry.extend_from_slice(&flags.to_le_bytes());
    entry
}

fn madt(revision: u8, entries: &[Vec<u8>]) -> Vec<u8> {
    let mut body = 0xfee0_0000u32.to_le_bytes().to_vec();
    body.extend_from_slice(&1u32.to_le_bytes());
    body.extend(entries.iter().flatten());
    table(b"APIC", revision, &body)
}

/// Four CPUs, one of which may come later, as q35 lists them.
fn usual_madt() -> Vec<u8> {
    madt(
        5,
        &[
            local_apic(0, 0, 1),
            local_apic(1, 4, 2),
            local_apic(2, 2, 1),
            local_x2apic(3, 300, 1),
            local_apic(9, 9, 0),
            local_apic(10, 0xff, 1),
            vec![1, 12, 7, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0],
            override_entry(0, 2, 0),
            override_entry(9, 9, 0b1101),
            vec![4, 6, 0xff, 0, 0, 1],
            vec![0x80, 2],
        ],
    )
}

const S5: &[u8] =
    b"\x10\x20\\_SB_\x5b\x80PRST\x01\x0b\xd8\x0c\x0a\x0c\x08_S5_\x12\x08\x04\x0a\x05\x00\x00\x00rest";

fn usual_fadt(dsdt: u64) -> Vec<u8> {
    let mut body = vec![0; 276 - 36];
    let mut put = |offset: usize, bytes: &[u8]| body[offset - 36..][..bytes.len()].copy_from_slice(bytes);
    put(40, &(dsdt as u32).to_le_bytes());
    put(46, &9u16.to_le_bytes());
    put(48, &0xb2u32.to_le_bytes());
    put(52, &[2]);
    put(56, &0x600u32.to_le_bytes());
    put(64, &0x604u32.to_le_bytes());
    put(80, &0x620u32.to_le_bytes());
    put(88, &[4]);
    put(92, &[16]);
    put(76, &0x608u32.to_le_bytes());
    put(91, &[4]);
    put(112, &(1u32 << 10).to_le_bytes());
    put(116, &[1, 8, 0, 1]);
    put(120, &0xcf9u64.to_le_bytes());
    put(128, &[0x0f]);
    table(b"FACP", 3, &body)
}

fn usual_hpet() -> Vec<u8> {
    let mut body = vec![1, 0xa2, 0x86, 0x80, 0, 0, 0, 0];
    body.extend_from_slice(&0xfed0_0000u64.to_le_bytes());
    body.extend_from_slice(&[0, 0, 0, 0]);
    table(b"HPET", 1, &body)
}

/// A machine of these tables, with `count` of them listed by an RSDT. Returns the root pointer and all addresses.
fn machine(tables: &[Vec<u8>], wide: bool) -> (Image, u64, Vec<u64>) {
    let mut image = Image(vec![0; 64]);
    let addresses: Vec<u64> = tables.iter().map(|table| image.put(table)).collect();
    let list: Vec<u8> = if wide {
        addresses.iter().flat_map(|address| address.to_le_bytes()).collect()
    } else {
        addresses.iter().flat_map(|address| (*address as u32).to_le_bytes()).collect()
    };
    let list = image.put(&table(if wide { b"XSDT" } else { b"RSDT" }, 1, &list));
    let mut root = b"RSD PTR \0QUIESC\0".to_vec();
    root.extend_from_slice(&(list as u32).to_le_bytes());
    let sum = |bytes: &[u8]| bytes.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte));
    if wide {
        root[15] = 2;
        root[16..20].fill(0);
    }
    root[8] = sum(&root);
    if wide {
        root.extend_from_slice(&36u32.to_le_bytes());
        root.extend_from_slice(&list.to_le_bytes());
        root.extend_from_slice(&[0; 4]);
        root[32] = sum(&root);
    }
    let rsdp = image.put(&root);
    (image, rsdp, addresses)
}

fn usual(wide: bool) -> (Image, u64, Vec<u64>) {
    // The DSDT goes first so that the FADT can point at it; being listed as well does no harm to a test.
    let dsdt = table(b"DSDT", 2, S5);
    let tables = [dsdt, usual_fadt(BASE + 64), usual_madt(), usual_hpet()];
    let (image, rsdp, addresses) = machine(&tables, wide);
    assert_eq!(addresses[0], BASE + 64);
    (image, rsdp, addresses)
}

#[test]
fn a_usual_machine_is_understood() {
    for wide in [false, true] {
        let (image, rsdp, _) = usual(wide);
        let found = discover(&image, Some(rsdp), 0, 512).unwrap();
        let ids: Vec<u32> = found.processors.iter().map(|p| p.apic_id).collect();
        assert_eq!(ids, [0, 2, 300, 4], "the one that may come later is last, the unusable ones are absent");
        assert_eq!(found.processors[3].state, ProcessorState::OnlineCapable);
        assert_eq!(found.io_apics, [IoApicInfo { id: 7, address: 0xfec0_0000, gsi_base: 0 }]);
        assert_eq!(found.isa_route(0).gsi, 2);
        assert_eq!(found.isa_route(9).trigger, Trigger::Level);
        assert_eq!(
            found.isa_route(4),
            Override { irq: 4, gsi: 4, polarity: Polarity::ActiveHigh, trigger: Trigger::Edge }
        );
        assert_eq!(found.local_nmis, [LocalNmi { uid: None, lint: 1 }]);
        assert_eq!(found.hpet, Some(HpetInfo { address: 0xfed0_0000, number: 0 }));
        assert_eq!(found.pm_timer, Some(PmTimerInfo { register: Register::Port(0x608), bits: 24 }));
        assert_eq!(found.power.off, Some(SoftOff::Pm1 { a: (Register::Port(0x604), 5), b: None }));
        assert_eq!(found.power.reset, Some((Register::Port(0xcf9), 0x0f)));
        assert_eq!(
            found.events,
            Some(Events {
                interrupt: 9,
                block: 0x620,
                length: 16,
                fixed_enable: 0x602,
                control: 0x604,
                take_over: Some((0xb2, 2)),
            })
        );
        assert_eq!(found.cpu_plug, Some(0xcd8));
        assert!(found.has_8259 && !found.hardware_reduced && found.parked.is_empty());
    }
}

#[test]
fn the_root_pointer_is_found_where_a_bios_puts_it() {
    let (image, rsdp, _) = usual(true);
    assert_eq!(search(&image), Some(rsdp));
    assert_eq!(discover(&Image(vec![]), None, 0, 512), Err(AcpiError::NoRsdp));
}

#[test]
fn the_boot_cpu_comes_first_and_the_surplus_is_parked() {
    let (image, rsdp, _) = usual(true);
    let found = discover(&image, Some(rsdp), 4, 2).unwrap();
    assert_eq!(found.processors.iter().map(|p| p.apic_id).collect::<Vec<_>>(), [4, 0]);
    assert_eq!(found.processors[0].state, ProcessorState::Enabled);
    assert_eq!(found.parked.iter().map(|p| p.apic_id).collect::<Vec<_>>(), [2, 300]);
    assert_eq!(discover(&image, Some(rsdp), 77, 2), Err(AcpiError::BootCpuUnlisted { apic_id: 77 }));
}

#[test]
fn before_the_flag_existed_a_disabled_processor_could_be_added() {
    let (image, rsdp, _) = machine(&[madt(3, &[local_apic(0, 0, 1), local_apic(1, 1, 0)])], true);
    let found = discover(&image, Some(rsdp), 0, 512).unwrap();
    assert_eq!(found.processors[1].state, ProcessorState::OnlineCapable);
}

fn problem(result: Result<Topology, AcpiError>) -> (Signature, Problem) {
    match result {
        Err(AcpiError::Table { signature, problem, .. }) => (signature, problem),
        other => panic!("expected a table to be blamed, got {other:?}"),
    }
}

#[test]
fn lies_are_named() {
    // A flipped bit anywhere in any table.
    for which in 0..4 {
        let (mut image, rsdp, addresses) = usual(true);
        image.at(addresses[which])[40] ^= 1;
        let (signature, problem) = problem(discover(&image, Some(rsdp), 0, 512));
        assert_eq!(signature.0, image.at(addresses[which])[..4]);
        assert!(matches!(problem, Problem::Checksum(_)), "{problem:?}");
    }
    // A length beyond memory, and one shorter than a header.
    for (length, want) in [(0x10_0000u32, "claims 1048576 bytes"), (7, "impossible length of 7")] {
        let (mut image, rsdp, addresses) = usual(true);
        image.at(addresses[2])[4..8].copy_from_slice(&length.to_le_bytes());
        let text = discover(&image, Some(rsdp), 0, 512).unwrap_err().to_string();
        assert!(text.starts_with("ACPI table APIC at 0x") && text.contains(want), "{text}");
    }
    // Entries: of length zero, of a length beyond the table, shorter than their kind, and cut in the header.
    for (entry, length) in
        [(vec![0x55, 0, 0], 0), (vec![0, 200, 0], 200), (vec![1, 8, 0, 0], 8), (vec![3], 0)]
    {
        let (image, rsdp, _) = machine(&[madt(5, &[local_apic(0, 0, 1), entry.clone()])], false);
        let found = problem(discover(&image, Some(rsdp), 0, 512));
        assert_eq!(found, (Signature::MADT, Problem::Entry { offset: 52, kind: entry[0], length }));
    }
    // Reserved polarity.
    let (image, rsdp, _) = machine(&[madt(5, &[local_apic(0, 0, 1), override_entry(5, 5, 2)])], false);
    assert_eq!(problem(discover(&image, Some(rsdp), 0, 512)).1, Problem::Reserved { offset: 52 });
    // Two MADTs, or none.
    let (image, rsdp, _) = machine(&[usual_madt(), usual_madt()], true);
    assert_eq!(problem(discover(&image, Some(rsdp), 0, 512)), (Signature::MADT, Problem::Duplicate));
    let (image, rsdp, _) = machine(&[usual_hpet()], true);
    assert_eq!(discover(&image, Some(rsdp), 0, 512), Err(AcpiError::Missing(Signature::MADT)));
    // A root pointer with a wrong sum, and one that leads nowhere.
    let (mut image, rsdp, _) = usual(true);
    image.at(rsdp)[33] ^= 0x80;
    assert!(matches!(problem(discover(&image, Some(rsdp), 0, 512)), (Signature::RSDP, Problem::Checksum(_))));
    assert_eq!(problem(discover(&image, Some(64), 0, 512)), (Signature::RSDP, Problem::Unreadable));
}

#[test]
fn an_old_short_fadt_has_no_late_fields() {
    let mut fadt = usual_fadt(0);
    fadt.truncate(116);
    fadt[4..8].copy_from_slice(&116u32.to_le_bytes());
    // It claims a revision that would have them.
    fix(&mut fadt);
    let (image, rsdp, _) = machine(&[usual_madt(), fadt], true);
    let found = discover(&image, Some(rsdp), 0, 512).unwrap();
    assert_eq!(found.power, Power::default());
    assert_eq!(found.pm_timer.unwrap().register, Register::Port(0x608));
}

#[test]
fn hardware_reduced_machines_have_a_sleep_control_register() {
    let mut fadt = usual_fadt(BASE + 64);
    fadt[112..116].copy_from_slice(&(1u32 << 20 | 1 << 10).to_le_bytes());
    fadt[76..80].fill(0);
    fadt[8] = 6;
    fadt[244..248].copy_from_slice(&[0, 8, 0, 1]);
    fadt[248..256].copy_from_slice(&0xfea0_0200u64.to_le_bytes());
    fix(&mut fadt);
    let (image, rsdp, _) = machine(&[table(b"DSDT", 2, S5), usual_madt(), fadt], true);
    let found = discover(&image, Some(rsdp), 0, 512).unwrap();
    assert_eq!(found.power.off, Some(SoftOff::SleepControl(Register::Memory(0xfea0_0200), 5)));
    assert_eq!(found.pm_timer, None);
    assert_eq!(found.events, None);
}

#[test]
fn the_ports_of_cpu_hot_plug_are_read_in_each_encoding() {
    let ports = |code: &[u8]| {
        let mut image = Image(vec![0; 64]);
        let address = image.put(&table(b"DSDT", 2, code));
        fadt::cpu_plug(&Table::load(&image, address, HEADER).unwrap())
    };
    assert_eq!(ports(b"\x5b\x80PRST\x01\x0b\x00\xaf\x0a\x0c\x5b\x81"), Some(0xaf00));
    assert_eq!(ports(b"\x5b\x80PRST\x01\x0c\xd8\x0c\x00\x00\x0a\x0c"), Some(0xcd8));
    assert_eq!(ports(b"PRST\x01\x00\x5b\x80PRST\x01\x0b\xd8\x0c\x0a\x0c"), Some(0xcd8), "the second is it");
    // The older interface; in memory; at no port; a name, no region; cut.
    assert_eq!(ports(b"\x5b\x80PRST\x01\x0b\xd8\x0c\x0a\x20"), None);
    assert_eq!(ports(b"\x5b\x80PRST\x00\x0b\xd8\x0c\x0a\x0c"), None);
    assert_eq!(ports(b"\x5b\x80PRST\x01\x0c\xd8\x0c\x01\x00\x0a\x0c"), None);
    assert_eq!(ports(b"\x5b\x80PRST\x01\x00\x0a\x0c"), None);
    assert_eq!(ports(b"PRST\x01\x0b\xd8\x0c\x0a\x0c"), None);
    let whole = b"\x5b\x80PRST\x01\x0b\xd8\x0c\x0a\x0c";
    for cut in 0..whole.len() {
        assert_eq!(ports(&whole[..cut]), None, "cut at {cut}");
    }
}

#[test]
fn sleep_types_are_read_in_each_encoding() {
    let types = |code: &[u8]| {
        let mut image = Image(vec![0; 64]);
        let address = image.put(&table(b"DSDT", 2, code));
        fadt::sleep_types(&Table::load(&image, address, HEADER).unwrap())
    };
    assert_eq!(types(S5), Some((5, 0)));
    assert_eq!(types(b"\x08\\_S5_\x12\x06\x04\x01\x0a\x07\x00\x00"), Some((1, 7)));
    assert_eq!(types(b"\x08_S5_\x12\x47\x00\x02\x0b\x05\x00\x0c\x06\x00\x00\x00"), Some((5, 6)));
    assert_eq!(types(b"\x08_S5_\x12\x04\x01\x0a\x07"), Some((7, 0)));
    // Not a name, not a package, empty, cut.
    assert_eq!(types(b"\x70_S5_\x12\x04\x01\x0a\x07"), None);
    assert_eq!(types(b"\x08_S5_\x0a\x05"), None);
    assert_eq!(types(b"\x08_S5_\x12\x02\x00"), None);
    for cut in 5..13 {
        assert_eq!(types(&b"\x08_S5_\x12\x0a\x04\x0b\x05\x00\x0b\x05\x00"[..cut]), None, "cut at {cut}");
    }
    // The first match may be something else.
    assert_eq!(types(b"\"_S5_\"\x00\x08_S5_\x12\x04\x01\x0a\x07"), Some((7, 0)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(test_support::cases(256)))]

    /// Random damage, with checksums mended so that it reaches the decoders: an answer or an error, never a panic or a
    /// read outside the table (which the array's bounds and the checked copies would turn into one).
    #[test]
    fn damaged_tables_never_panic(
        wide: bool,
        damage in prop::collection::vec((0usize..900, any::<u8>()), 1..24),
        mend: bool,
    ) {
        let (mut image, rsdp, addresses) = usual(wide);
        for (at, value) in damage {
            if let Some(byte) = image.0.get_mut(64 + at) {
                *byte = value;
            }
        }
        if mend {
            for address in addresses {
                let bytes = image.at(address);
                let length = u32::from_le_bytes(bytes[4..8].try_into().unwrap()) as usize;
                if (36..bytes.len()).contains(&length) {
                    fix(&mut bytes[..length]);
                }
            }
        }
        match discover(&image, Some(rsdp), 0, 2) {
            Ok(found) => prop_assert!(found.processors.len() <= 2 && found.processors[0].apic_id == 0),
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }

    /// A MADT of random entries with a true checksum.
    #[test]
    fn random_entries_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), revision: u8) {
        let (image, rsdp, _) = machine(&[madt(revision, &[local_apic(0, 0, 1), bytes])], true);
        let _ = discover(&image, Some(rsdp), 0, 512);
    }

    /// Random byte code around the name that is looked for.
    #[test]
    fn random_code_never_panics(before in prop::collection::vec(any::<u8>(), 0..8),
                                after in prop::collection::vec(any::<u8>(), 0..12)) {
        let code = [&before[..], b"\x08_S5_\x12", &after[..]].concat();
        let mut image = Image(vec![0; 64]);
        let address = image.put(&table(b"DSDT", 2, &code));
        if let Some((a, b)) = fadt::sleep_types(&Table::load(&image, address, HEADER).unwrap()) {
            prop_assert!(a < 8 && b < 8);
        }
    }
}
