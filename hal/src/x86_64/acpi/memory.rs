//! Tables are copied out of physical memory and checked before anything interprets them.
//!
//! The `acpi` crate knows the layout of tables and trusts their contents: a length that lies makes it read beyond the
//! table, an entry of length zero keeps its iterator in place for ever. So nothing here hands it memory that firmware
//! wrote. [`Table::load`] makes a private copy whose length and checksum hold, padded with zeros to more than the
//! largest fixed layout, and the decoders walk every variable part once before they let the crate's iterators do it.

use alloc::vec::Vec;

use acpi::AcpiTable;
use acpi::sdt::SdtHeader;

use super::{AcpiError, Problem, Signature};

/// Read access to physical memory, for looking at firmware tables.
///
/// The kernel implements it over its direct map, tests over an array.
pub trait PhysicalMemory {
    /// Copies `buffer.len()` bytes that start at physical `address`. Returns `false`, with the buffer in any state, if
    /// any of them is not mapped memory. Must not fault whatever the address is.
    fn read(&self, address: u64, buffer: &mut [u8]) -> bool;
}

/// No table that a kernel reads is larger; a length beyond it is a lie.
const LARGEST_TABLE: u32 = 16 << 20;
/// Copies are padded to at least this many bytes, so that a short table can be viewed through a longer layout.
const PADDED: usize = 512;
/// The bytes of a table's header.
pub(super) const HEADER: usize = size_of::<SdtHeader>();

/// The first bytes of every table.
#[derive(Clone, Copy)]
pub(super) struct Header {
    pub(super) signature: Signature,
    pub(super) length: u32,
}

/// Reads and checks the header at `address`: readable, and its length possible.
pub(super) fn header(memory: &impl PhysicalMemory, address: u64) -> Result<Header, AcpiError> {
    let mut bytes = [0; HEADER];
    let unknown = Signature(*b"????");
    if address == 0 || !memory.read(address, &mut bytes) {
        return Err(AcpiError::table(unknown, address, Problem::Unreadable));
    }
    let signature = Signature([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let length = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
    if (length as usize) < HEADER || length > LARGEST_TABLE {
        return Err(AcpiError::table(signature, address, Problem::Length(length)));
    }
    Ok(Header { signature, length })
}

/// Checks a table without keeping it: everything it claims to contain is readable and sums to zero.
pub(super) fn verify(memory: &impl PhysicalMemory, address: u64) -> Result<Header, AcpiError> {
    let header = header(memory, address)?;
    let fail = |problem| AcpiError::table(header.signature, address, problem);
    let mut sum = 0u8;
    let mut chunk = [0; 256];
    let mut offset = 0;
    while offset < header.length as usize {
        let part = &mut chunk[..256.min(header.length as usize - offset)];
        let at = address.checked_add(offset as u64).ok_or(fail(Problem::Length(header.length)))?;
        if !memory.read(at, part) {
            return Err(fail(Problem::Truncated { length: header.length, readable: offset as u32 }));
        }
        sum = part.iter().fold(sum, |sum, byte| sum.wrapping_add(*byte));
        offset += part.len();
    }
    if sum == 0 { Ok(header) } else { Err(fail(Problem::Checksum(sum))) }
}

/// A checked private copy of one table.
///
/// # Invariants
/// `bytes` holds `length` bytes of table, whose header says `length` and whose sum is zero, and zeros up to at least
/// [`PADDED`].
pub(super) struct Table {
    pub(super) signature: Signature,
    pub(super) address: u64,
    length: usize,
    bytes: Vec<u8>,
}

impl Table {
    /// Copies the table at `address` and checks the copy. `minimum` is the shortest length at which it makes sense.
    pub(super) fn load(
        memory: &impl PhysicalMemory,
        address: u64,
        minimum: usize,
    ) -> Result<Table, AcpiError> {
        let Header { signature, length: claimed } = header(memory, address)?;
        let fail = |problem| AcpiError::table(signature, address, problem);
        let length = claimed as usize;
        if length < minimum {
            return Err(fail(Problem::Length(claimed)));
        }
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(length.max(PADDED)).map_err(|_| fail(Problem::NoMemory))?;
        bytes.resize(length.max(PADDED), 0);
        if !memory.read(address, &mut bytes[..length]) {
            return Err(fail(Problem::Truncated { length: claimed, readable: HEADER as u32 }));
        }
        // The copy is what is used, so the copy is what is judged: memory may have changed since the header was read.
        if bytes[..4] != signature.0 || bytes[4..8] != claimed.to_le_bytes() {
            return Err(fail(Problem::Length(claimed)));
        }
        let sum = bytes[..length].iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        if sum != 0 {
            return Err(fail(Problem::Checksum(sum)));
        }
        // INVARIANT: length and sum were just checked, and `resize` wrote the zeros.
        Ok(Table { signature, address, length, bytes })
    }

    /// The table's bytes, header included.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// The table through the crate's layout `T`. Fields beyond the table's end read as zero.
    pub(super) fn view<T: AcpiTable>(&self) -> &T {
        const {
            assert!(align_of::<T>() == 1 && size_of::<T>() <= PADDED);
        }
        // SAFETY: by the invariant there are at least `PADDED` initialised bytes, and `T` is no larger. It has no
        // alignment. The crate's layouts are integers, valid for every bit pattern.
        unsafe { &*self.bytes.as_ptr().cast::<T>() }
    }

    /// An error about this table.
    pub(super) fn error(&self, problem: Problem) -> AcpiError {
        AcpiError::table(self.signature, self.address, problem)
    }
}
