//! ACPI tables that lie.
//!
//! QEMU hands its firmware the tables as files, with a script of where to put them and which pointers and checksums to
//! fill in (`etc/table-loader`; QEMU's `hw/acpi/bios-linker-loader.c` documents the entries). With `acpi=off` it makes
//! none of its own, so these files can be ours: a small set that is right in every respect but one.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// What is wrong with the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lie {
    /// Nothing: the control.
    None,
    /// The MADT's checksum.
    Checksum,
    /// The MADT says that it is longer than memory reaches.
    LengthTooLong,
    /// The MADT says that it is shorter than its own header.
    LengthTooShort,
    /// An entry of the MADT has length 0, on which a careless walk never ends.
    EntryOfNoLength,
    /// An entry of the MADT reaches beyond its end.
    EntryTooLong,
    /// The root table points to nowhere.
    RootPointer,
    /// The MADT lists processors that do not exist: four that could, and six hundred with ids that only an x2APIC could
    /// reach.
    Ghosts,
}

/// How many processors beyond the reach of an xAPIC [`Lie::Ghosts`] lists.
const FAR_GHOSTS: u32 = 600;

/// Where things are inside the file of tables.
const RSDT: usize = 0;
const FADT: usize = 0x100;
const DSDT: usize = 0x300;
const MADT: usize = 0x400;
const SIZE: usize = 0x4000;
/// The common table header.
const HEADER: usize = 36;

const TABLES: &str = "etc/acpi/tables";
const RSDP: &str = "etc/acpi/rsdp";

/// Writes the files to `folder` and returns the QEMU arguments that hand them over.
pub(super) fn arguments(lie: Lie, cpus: u32, folder: &Path) -> Result<Vec<String>> {
    fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    let files = [("etc/table-loader", script(lie, cpus)), (TABLES, tables(lie, cpus)), (RSDP, rsdp())];
    let mut arguments = Vec::new();
    for (name, content) in files {
        let path = folder.join(name.replace('/', "-"));
        fs::write(&path, content).with_context(|| format!("writing {}", path.display()))?;
        arguments.push("-fw_cfg".to_owned());
        arguments.push(format!("name={name},file={}", path.display()));
    }
    Ok(arguments)
}

/// The tables, with offsets in place of pointers and zeros in place of checksums.
fn tables(lie: Lie, cpus: u32) -> Vec<u8> {
    let mut file = vec![0; SIZE];
    let mut rsdt = table(b"RSDT", 1, &[]);
    rsdt.extend((FADT as u32).to_le_bytes());
    rsdt.extend((MADT as u32).to_le_bytes());
    put(&mut file, RSDT, with_length(rsdt));
    put(&mut file, FADT, with_length(table(b"FACP", 3, &fadt_body())));
    put(&mut file, DSDT, with_length(table(b"DSDT", 1, &[])));

    let mut madt = with_length(table(b"APIC", 1, &madt_body(lie, cpus)));
    match lie {
        Lie::LengthTooLong => madt[4..8].copy_from_slice(&0xffff_fff0_u32.to_le_bytes()),
        Lie::LengthTooShort => madt[4..8].copy_from_slice(&8_u32.to_le_bytes()),
        _ => {}
    }
    put(&mut file, MADT, madt);
    if lie == Lie::RootPointer {
        // Behind the last byte that a 32-bit pointer to a 36-byte header can have.
        put(&mut file, RSDT + HEADER + 4, 0xffff_fff8_u32.to_le_bytes().to_vec());
    }
    file
}

fn madt_body(lie: Lie, cpus: u32) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(0xfee0_0000_u32.to_le_bytes());
    body.extend(1_u32.to_le_bytes());
    for cpu in 0..cpus as u8 {
        // Type 0, processor local APIC: length 8, UID, APIC id, flags (enabled).
        body.extend([0, 8, cpu, cpu, 1, 0, 0, 0]);
    }
    // Type 1, I/O APIC: length 12, id, reserved, address, first interrupt.
    body.extend([1, 12, 0, 0]);
    body.extend(0xfec0_0000_u32.to_le_bytes());
    body.extend(0_u32.to_le_bytes());
    // Type 2, override: ISA interrupt 0 (the PIT) arrives at input 2.
    body.extend([2, 10, 0, 0, 2, 0, 0, 0, 0, 0]);
    match lie {
        Lie::EntryOfNoLength => body.extend([0, 0, 0, 0, 0, 0, 0, 0]),
        Lie::EntryTooLong => body.extend([0, 200, 9, 9]),
        Lie::Ghosts => {
            for id in 100..104 {
                body.extend([0, 8, id, id, 1, 0, 0, 0]);
            }
            for id in 1000..1000 + FAR_GHOSTS {
                // Type 9, processor local x2APIC: length 16, reserved, APIC id, flags (enabled), UID.
                body.extend([9, 16, 0, 0]);
                body.extend([id, 1, id].into_iter().flat_map(u32::to_le_bytes));
            }
        }
        _ => {}
    }
    body
}

/// A FADT of ACPI 2.0 with what a q35 has: power management registers at 0x600, firmware's hardware reset register.
fn fadt_body() -> Vec<u8> {
    let mut table = vec![0; 244];
    let mut set = |offset: usize, bytes: &[u8]| table[offset..offset + bytes.len()].copy_from_slice(bytes);
    set(40, &(DSDT as u32).to_le_bytes());
    set(46, &9_u16.to_le_bytes()); // SCI_INT
    set(56, &0x600_u32.to_le_bytes()); // PM1a_EVT_BLK
    set(64, &0x604_u32.to_le_bytes()); // PM1a_CNT_BLK
    set(76, &0x608_u32.to_le_bytes()); // PM_TMR_BLK
    set(88, &[4, 2]); // PM1_EVT_LEN, PM1_CNT_LEN
    set(91, &[4]); // PM_TMR_LEN
    set(112, &(1_u32 << 10 | 1).to_le_bytes()); // RESET_REG_SUP, WBINVD
    set(116, &[1, 8, 0, 1]); // RESET_REG: system I/O, 8 bits wide
    set(120, &0xcf9_u64.to_le_bytes());
    set(128, &[0xf]); // RESET_VALUE
    table.split_off(HEADER)
}

fn rsdp() -> Vec<u8> {
    let mut rsdp = b"RSD PTR \0QUIES \0".to_vec();
    rsdp.extend((RSDT as u32).to_le_bytes());
    rsdp
}

/// A table with its header; length and checksum are still open.
fn table(signature: &[u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    let mut table = signature.to_vec();
    table.extend([0; 4]);
    table.extend([revision, 0]);
    table.extend(b"QUIES QUIESCE ");
    table.extend([1, 0, 0, 0]);
    table.extend(b"QUIE");
    table.extend([1, 0, 0, 0]);
    table.extend(body);
    table
}

fn with_length(mut table: Vec<u8>) -> Vec<u8> {
    let length = (table.len() as u32).to_le_bytes();
    table[4..8].copy_from_slice(&length);
    table
}

fn put(file: &mut [u8], offset: usize, bytes: Vec<u8>) {
    file[offset..offset + bytes.len()].copy_from_slice(&bytes);
}

/// The script: allocate, turn offsets into pointers, sum up. What is a lie is left out of the last step.
fn script(lie: Lie, cpus: u32) -> Vec<u8> {
    // A length that lies cannot be summed over; the true one will do.
    let is_length = matches!(lie, Lie::LengthTooLong | Lie::LengthTooShort);
    let file = tables(if is_length { Lie::None } else { lie }, cpus);
    let length_at = |at: usize| u32::from_le_bytes([file[at + 4], file[at + 5], file[at + 6], file[at + 7]]);
    let mut script = Vec::new();
    script.extend(allocate(TABLES, 64, 1));
    script.extend(allocate(RSDP, 16, 2));
    script.extend(pointer(TABLES, TABLES, RSDT + HEADER));
    if lie != Lie::RootPointer {
        script.extend(pointer(TABLES, TABLES, RSDT + HEADER + 4));
    }
    script.extend(pointer(TABLES, TABLES, FADT + 40));
    script.extend(pointer(RSDP, TABLES, 16));
    for at in [RSDT, FADT, DSDT, MADT] {
        if lie == Lie::Checksum && at == MADT {
            continue;
        }
        script.extend(checksum(TABLES, at + 9, at, length_at(at)));
    }
    script.extend(checksum(RSDP, 8, 0, 20));
    script
}

/// An entry of the script is 128 bytes; file names in it are 56.
fn entry(command: u32, fields: &[u8]) -> Vec<u8> {
    let mut entry = command.to_le_bytes().to_vec();
    entry.extend(fields);
    entry.resize(128, 0);
    entry
}

fn name(file: &str) -> Vec<u8> {
    let mut name = file.as_bytes().to_vec();
    name.resize(56, 0);
    name
}

/// `zone` 1 is high memory, 2 the segment below 1 MiB that is searched for the RSDP.
fn allocate(file: &str, align: u32, zone: u8) -> Vec<u8> {
    entry(1, &[&name(file)[..], &align.to_le_bytes(), &[zone]].concat())
}

fn pointer(in_file: &str, to_file: &str, offset: usize) -> Vec<u8> {
    entry(2, &[&name(in_file)[..], &name(to_file), &(offset as u32).to_le_bytes(), &[4]].concat())
}

fn checksum(file: &str, at: usize, start: usize, length: u32) -> Vec<u8> {
    entry(
        3,
        &[&name(file)[..], &(at as u32).to_le_bytes(), &(start as u32).to_le_bytes(), &length.to_le_bytes()]
            .concat(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the firmware would put the tables.
    const BASE: u32 = 0x7ff_0000;

    /// The firmware's part: follows the script and gives the tables and the RSDP as they end up in memory.
    fn load(lie: Lie) -> (Vec<u8>, Vec<u8>) {
        let (mut tables, mut rsdp) = (tables(lie, 4), rsdp());
        for entry in script(lie, 4).chunks(128) {
            let word = |at: usize| u32::from_le_bytes(entry[at..at + 4].try_into().unwrap());
            let file = if entry[4..].starts_with(RSDP.as_bytes()) { &mut rsdp } else { &mut tables };
            match word(0) {
                1 => {}
                2 => {
                    assert!(entry[60..].starts_with(TABLES.as_bytes()) && entry[120] == 4);
                    let at = word(116) as usize;
                    let offset = u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
                    file[at..at + 4].copy_from_slice(&(BASE + offset).to_le_bytes());
                }
                3 => {
                    let (at, start, length) = (word(60) as usize, word(64) as usize, word(68) as usize);
                    let sum =
                        file[start..start + length].iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
                    file[at] = file[at].wrapping_sub(sum);
                }
                other => panic!("command {other}"),
            }
        }
        (tables, rsdp)
    }

    fn number(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    /// Whether the table at `at` claims a length inside the file and sums to zero over it.
    fn holds(tables: &[u8], at: usize) -> bool {
        let length = number(tables, at + 4) as usize;
        length >= HEADER
            && tables
                .get(at..at + length)
                .is_some_and(|table| table.iter().fold(0_u8, |s, b| s.wrapping_add(*b)) == 0)
    }

    #[test]
    fn honest_tables_hold_and_are_linked() {
        let (tables, rsdp) = load(Lie::None);
        assert_eq!(rsdp.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)), 0);
        assert_eq!(number(&rsdp, 16), BASE + RSDT as u32);
        assert_eq!(number(&tables, RSDT + HEADER), BASE + FADT as u32);
        assert_eq!(number(&tables, RSDT + HEADER + 4), BASE + MADT as u32);
        assert_eq!(number(&tables, FADT + 40), BASE + DSDT as u32);
        assert!([RSDT, FADT, MADT, DSDT].iter().all(|&at| holds(&tables, at)));
        assert_eq!(&tables[MADT..MADT + 4], b"APIC");
    }

    #[test]
    fn each_lie_is_the_only_one() {
        for (lie, madt_holds) in [
            (Lie::Checksum, false),
            (Lie::LengthTooLong, false),
            (Lie::LengthTooShort, false),
            (Lie::EntryOfNoLength, true),
            (Lie::EntryTooLong, true),
        ] {
            let (tables, _) = load(lie);
            assert!([RSDT, FADT, DSDT].iter().all(|&at| holds(&tables, at)), "{lie:?}");
            assert_eq!(holds(&tables, MADT), madt_holds, "{lie:?}");
            assert_eq!(number(&tables, RSDT + HEADER + 4), BASE + MADT as u32);
        }
        let (tables, _) = load(Lie::RootPointer);
        assert_eq!(number(&tables, RSDT + HEADER + 4), 0xffff_fff8);
    }
}
