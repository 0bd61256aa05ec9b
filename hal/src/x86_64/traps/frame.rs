//! What a trap saves.

use core::fmt;

/// All registers of the interrupted code, as the entry stubs lay them on the stack.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the fields are the registers of these names")]
pub struct TrapFrame {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rbp: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rdx: u64,
    pub rcx: u64,
    pub rbx: u64,
    pub rax: u64,
    /// The vector that was taken.
    pub vector: u64,
    /// The hardware's error code, 0 for vectors without one.
    pub error: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

impl TrapFrame {
    /// Whether the interrupted code had interrupts on.
    pub fn interrupts_were_on(&self) -> bool {
        self.rflags & (1 << 9) != 0
    }
}

impl fmt::Display for TrapFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "  rip [<{:016x}>] cs {:02x} flags {:06x} error {:x}",
            self.rip, self.cs, self.rflags, self.error
        )?;
        writeln!(
            f,
            "  rax {:016x} rbx {:016x} rcx {:016x} rdx {:016x}",
            self.rax, self.rbx, self.rcx, self.rdx
        )?;
        writeln!(
            f,
            "  rsi {:016x} rdi {:016x} rbp {:016x} rsp {:016x}",
            self.rsi, self.rdi, self.rbp, self.rsp
        )?;
        writeln!(
            f,
            "  r8  {:016x} r9  {:016x} r10 {:016x} r11 {:016x}",
            self.r8, self.r9, self.r10, self.r11
        )?;
        write!(f, "  r12 {:016x} r13 {:016x} r14 {:016x} r15 {:016x}", self.r12, self.r13, self.r14, self.r15)
    }
}
