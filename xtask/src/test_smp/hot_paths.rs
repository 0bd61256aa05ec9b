//! What the shortest paths are in machine code.
//!
//! The kernel has a function for each (`kernel/src/hot_paths.rs`). They are decoded from the finished image, and what
//! is between entry and return is compared with what is promised: an instruction more is a failure.

use anyhow::{Context, Result, bail, ensure};
use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind,
    Register,
};
use object::{Object, ObjectSection, ObjectSymbol};

/// The name of this check, for filters and results.
pub(super) const NAME: &str = "hot-paths";

/// A function of the kernel and what it must consist of.
struct HotPath {
    function: &'static str,
    promise: &'static [Mnemonic],
}

const HOT_PATHS: [HotPath; 10] = [
    HotPath { function: "hot_percpu_increment", promise: &[Mnemonic::Inc] },
    HotPath { function: "hot_preempt_disable", promise: &[Mnemonic::Inc] },
    HotPath { function: "hot_preempt_enable", promise: &[Mnemonic::Dec, Mnemonic::Je] },
    // Taking a guard and dropping it.
    HotPath { function: "hot_preempt_guard", promise: &[Mnemonic::Inc, Mnemonic::Dec, Mnemonic::Je] },
    // A read-side section of RCU.
    HotPath { function: "hot_rcu_section", promise: &[Mnemonic::Inc, Mnemonic::Dec, Mnemonic::Je] },
    // A pointer of RCU's where preemption is off: the guard is proof, and the load all there is.
    HotPath { function: "hot_rcu_load_without_preemption", promise: &[Mnemonic::Mov] },
    // While no softirq is pending; the call that serves one stands behind the end.
    HotPath {
        function: "hot_bh_guard",
        promise: &[
            Mnemonic::Add,
            Mnemonic::Add,
            Mnemonic::Mov,
            Mnemonic::Test,
            Mnemonic::Jne,
            Mnemonic::Dec,
            Mnemonic::Je,
        ],
    },
    HotPath {
        function: "hot_irq_guard",
        promise: &[
            Mnemonic::Cli,
            Mnemonic::Inc,
            Mnemonic::Dec,
            Mnemonic::Jne,
            Mnemonic::Sti,
            Mnemonic::Nop,
            Mnemonic::Cmp,
            Mnemonic::Je,
        ],
    },
    // A trace point while tracing is off.
    HotPath { function: "hot_trace_point", promise: &[Mnemonic::Movzx, Mnemonic::Test, Mnemonic::Jne] },
    // Beginning a section and ending it, in a task without vector state.
    HotPath {
        function: "hot_vector_section",
        promise: &[
            Mnemonic::Inc,
            Mnemonic::Mov,
            Mnemonic::Mov,
            Mnemonic::Mov,
            Mnemonic::And,
            Mnemonic::Or,
            Mnemonic::Jne,
            Mnemonic::And,
            Mnemonic::Mov,
            Mnemonic::Mov,
            Mnemonic::Test,
            Mnemonic::Jne,
            Mnemonic::Ldmxcsr,
            Mnemonic::Mov,
            Mnemonic::Test,
            Mnemonic::Jne,
            Mnemonic::Xor,
            Mnemonic::Mov,
            Mnemonic::Dec,
            Mnemonic::Je,
        ],
    },
];

/// Those that touch what is the same for all CPUs: whether tracing is on, and a pointer.
const SHARED: [&str; 2] = ["hot_trace_point", "hot_rcu_load_without_preemption"];

/// Loops over pages, the registers that each must use, and how many of its instructions do. The compiler that builds the
/// kernel has no vector registers: had it written the loops, they would be scalar.
const VECTOR_LOOPS: [(&str, Register, usize); 4] = [
    ("vector_sum_sse2", Register::XMM0, 14),
    ("vector_sum_avx2", Register::YMM0, 4),
    ("vector_difference_sse2", Register::XMM0, 10),
    ("vector_difference_avx2", Register::YMM0, 4),
];

/// Readers that must not store, except to their own stack, and how many loads each must have: a reader that stores would
/// take the cache line away from all others.
const READERS: [(&str, usize); 2] = [("hot_seqlock_try_read", 5), ("hot_latch_read", 5)];

/// Checks the hot paths of a kernel image with symbols. Returns a line for each.
///
/// # Errors
/// Which function is longer than promised, with its instructions; or that the image cannot be read.
pub(super) fn check(image: &[u8]) -> Result<Vec<String>> {
    let file = object::File::parse(image).context("the kernel image is not an ELF file")?;
    let hot_paths = HOT_PATHS.iter().map(|path| path.check(&file));
    let vector_loops = VECTOR_LOOPS.iter().map(|wanted| check_vector_loop(&file, wanted));
    let readers = READERS.iter().map(|&(function, loads)| check_reader(&file, function, loads));
    hot_paths.chain(vector_loops).chain(readers).collect()
}

fn check_reader(file: &object::File<'_>, function: &str, least: usize) -> Result<String> {
    let mut info = InstructionInfoFactory::new();
    let mut loads = 0;
    for instruction in instructions(file, function)? {
        ensure!(
            !matches!(instruction.flow_control(), FlowControl::Call | FlowControl::IndirectCall),
            "`{function}` should be loads only, and calls: {instruction}"
        );
        let used = info.info(&instruction).used_memory();
        for memory in used.iter().filter(|m| !matches!(m.base(), Register::RSP | Register::RBP)) {
            match memory.access() {
                OpAccess::Read | OpAccess::CondRead => loads += 1,
                // An address that is computed, or that a long `nop` has.
                OpAccess::None | OpAccess::NoMemAccess => (),
                _ => bail!("`{function}` should be loads only, and stores: {instruction}"),
            }
        }
    }
    ensure!(loads >= least, "`{function}` should have {least} loads, and has {loads}");
    Ok(format!("{function}: {loads} loads, no store"))
}

fn check_vector_loop(
    file: &object::File<'_>,
    &(function, register, least): &(&str, Register, usize),
) -> Result<String> {
    let found = body(file, function)?;
    let uses = |i: &&Instruction| {
        (0..i.op_count()).any(|operand| {
            i.op_kind(operand) == OpKind::Register
                && i.op_register(operand).size() == register.size()
                && i.op_register(operand).is_vector_register()
        })
    };
    let count = found.iter().filter(uses).count();
    ensure!(
        count >= least && found.iter().any(|i| matches!(i.mnemonic(), Mnemonic::Jne)),
        "`{function}` should be a loop with {least} instructions on registers of {} bytes, and has {count}",
        register.size()
    );
    Ok(format!("{function}: {count} instructions on registers of {} bytes", register.size()))
}

impl HotPath {
    fn check(&self, file: &object::File<'_>) -> Result<String> {
        let found = body(file, self.function)?;
        let text: Vec<String> = found.iter().map(ToString::to_string).collect();
        let mnemonics: Vec<Mnemonic> = found.iter().map(Instruction::mnemonic).collect();
        ensure!(
            mnemonics == self.promise,
            "`{}` should be {} instructions, and is: {}",
            self.function,
            self.promise.len(),
            text.join("; ")
        );
        // Those that touch memory go through GS, or it is not per-CPU. What MXCSR is loaded from is a constant.
        let touches_memory = |i: &Instruction| {
            i.mnemonic() != Mnemonic::Ldmxcsr
                && !SHARED.contains(&self.function)
                && (0..i.op_count()).any(|operand| i.op_kind(operand) == OpKind::Memory)
        };
        for (instruction, text) in
            found.iter().zip(&text).filter(|(instruction, _)| touches_memory(instruction))
        {
            ensure!(
                instruction.memory_segment() == Register::GS,
                "`{}` does not use GS: {text}",
                self.function
            );
        }
        Ok(format!("{}: {}", self.function, text.join("; ")))
    }
}

/// All instructions of a function.
fn instructions(file: &object::File<'_>, function: &str) -> Result<Vec<Instruction>> {
    let symbol =
        file.symbol_by_name(function).with_context(|| format!("the kernel has no function `{function}`"))?;
    let index = symbol.section_index().with_context(|| format!("`{function}` is in no section"))?;
    let section = file.section_by_index(index)?;
    let code = section
        .data_range(symbol.address(), symbol.size())?
        .with_context(|| format!("`{function}` has no code"))?;
    Ok(Decoder::with_ip(64, code, symbol.address(), DecoderOptions::NONE).into_iter().collect())
}

/// The instructions of a function from its start to its return, without those that keep the frame pointer.
fn body(file: &object::File<'_>, function: &str) -> Result<Vec<Instruction>> {
    let mut body = Vec::new();
    for instruction in instructions(file, function)? {
        match instruction.mnemonic() {
            Mnemonic::Ret => return Ok(body),
            Mnemonic::Push | Mnemonic::Pop | Mnemonic::Mov if touches_only_frame(&instruction) => {}
            _ => body.push(instruction),
        }
    }
    bail!("`{function}` does not return")
}

/// `push rbp`, `pop rbp`, `mov rbp, rsp`.
fn touches_only_frame(instruction: &Instruction) -> bool {
    (0..instruction.op_count()).all(|i| matches!(instruction.op_register(i), Register::RBP | Register::RSP))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_without_the_functions_is_refused() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let error = check(&own).unwrap_err().to_string();
        assert!(error.contains("hot_percpu_increment"), "{error}");
    }

    #[test]
    fn frame_keeping_does_not_count_and_an_extra_move_does() {
        // push rbp; mov rbp, rsp; mov eax, 1; pop rbp; ret
        let code = [0x55, 0x48, 0x89, 0xe5, 0xb8, 1, 0, 0, 0, 0x5d, 0xc3];
        let kept: Vec<_> = Decoder::new(64, &code, DecoderOptions::NONE)
            .into_iter()
            .filter(|i| i.mnemonic() != Mnemonic::Ret && !touches_only_frame(i))
            .collect();
        assert_eq!(kept.len(), 1);
        assert_eq!(kept[0].mnemonic(), Mnemonic::Mov);
    }
}
