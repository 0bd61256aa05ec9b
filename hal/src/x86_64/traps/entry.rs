//! Entry stubs: from the hardware's frame to a Rust call and back.
//!
//! Every vector has a stub of 16 bytes that makes the frame complete (error code, vector) and jumps to one of three
//! tails, but for four, which have an entry of their own:
//!
//! * **exceptions** run on the stack they hit (or the one that the interrupt table gives them);
//! * **interrupts** move to the CPU's interrupt stack when they are the first, so that task stacks need no room for
//!   them, and come back to the task's stack before they leave, where the task may be replaced;
//! * **NMI** is below;
//! * the four that **CPUs send each other**, and themselves, come most often, and nobody looks at what they interrupt. Their
//!   entries know the vector, leave alone what functions give back as it was (RBX and RBP excepted, which are needed), call
//!   the kernel's function without another in between, and tell the APIC that it is over. The frame has its usual shape,
//!   for whoever walks through it; R12 to R15 are not in it.
//!
//! The tails set RBP to the frame's address plus one before they call Rust. No real frame pointer is odd, so a backtrace
//! recognises the mark and continues with the interrupted code.
//!
//! # NMI
//! The hardware blocks NMIs until the next IRET, *any* IRET: a breakpoint inside the handler unblocks them, and the next
//! NMI starts at the same top of the same stack, over the first one's frame. So the entry, while NMIs are surely still
//! blocked, copies the frame to a second stack and runs the handler there; `NMI_STATE` says what the second stack is
//! doing:
//!
//! 1. 0: free. The NMI takes it (sets 1).
//! 2. not 0: a handler is running. The NMI only notes that it came (sets 2), and returns. Leaving decrements, and if
//!    that does not give 0 runs the handler again.
//! 3. 0, but the interrupted instruction is one of the two between the decrement and the end of the IRET: the frame on
//!    the second stack is still needed. All registers already have the values that they go back to, so the handler runs
//!    once more above that same frame.

use crate::context::{COUNTS, HARDIRQ_MASK, HARDIRQ_UNIT, IRQ_DEPTH_OFFSET, NMI_MASK};
use crate::percpu;
use crate::x86_64::softirq::PENDING;
use crate::x86_64::upcalls::{TABLE, Upcalls};
use crate::x86_64::{apic, vectors};
use core::mem::offset_of;
use core::sync::atomic::{AtomicU32, AtomicU64};

percpu! {
    /// The top of this CPU's interrupt stack.
    pub(crate) static IRQ_STACK_TOP: AtomicU64 = AtomicU64::new(0);
    /// The top of this CPU's NMI handler stack (not the one where NMIs arrive).
    pub(crate) static NMI_STACK_TOP: AtomicU64 = AtomicU64::new(0);
    /// What the NMI handler stack is doing; see the module's documentation.
    static NMI_STATE: AtomicU32 = AtomicU32::new(0);
}

// The stubs. Vectors 8, 10-14, 17, 21, 29 and 30 come with an error code (Intel SDM volume 3, table 6-1).
core::arch::global_asm!(
    r#"
    .pushsection .text.trap_stubs, "ax", @progbits
    .global __trap_stubs
    .balign 16
    __trap_stubs:
    .set trap_vector, 0
    .rept 256
        .balign 16
        .if trap_vector == 8 || (trap_vector >= 10 && trap_vector <= 14) || trap_vector == 17 || trap_vector == 21 || trap_vector == 29 || trap_vector == 30
        .else
            pushq $0
        .endif
        pushq $trap_vector
        .if trap_vector == 2
            jmp __trap_nmi
        .elseif trap_vector < 32
            jmp __trap_exception
        .else
            jmp __trap_interrupt
        .endif
        .set trap_vector, trap_vector + 1
    .endr
    .popsection
    "#,
    options(att_syntax)
);

core::arch::global_asm!(
    r#"
    .pushsection .text.trap_entry, "ax", @progbits

    .macro TRAP_SAVE
        push rax
        push rbx
        push rcx
        push rdx
        push rsi
        push rdi
        push rbp
        push r8
        push r9
        push r10
        push r11
        push r12
        push r13
        push r14
        push r15
        cld
        inc dword ptr gs:[rip + {word} + {irq_depth}]
        mov rdi, rsp
        mov rbx, rsp
        lea rbp, [rsp + 1]
    .endm

    .macro TRAP_RESTORE
        dec dword ptr gs:[rip + {word} + {irq_depth}]
        pop r15
        pop r14
        pop r13
        pop r12
        pop r11
        pop r10
        pop r9
        pop r8
        pop rbp
        pop rdi
        pop rsi
        pop rdx
        pop rcx
        pop rbx
        pop rax
        add rsp, 16
    .endm

    __trap_exception:
        TRAP_SAVE
        call {exception}
        mov rsp, rbx
        TRAP_RESTORE
        iretq

    __trap_interrupt:
        TRAP_SAVE
        test dword ptr gs:[rip + {word}], {in_hardirq}
        jnz 2f
        mov rsp, gs:[rip + {irq_stack_top}]
    2:  add dword ptr gs:[rip + {word}], {hardirq}
        call {interrupt}
        mov rsp, rbx
        sub dword ptr gs:[rip + {word}], {hardirq}
        // Most interrupts leave nobody for whom to reschedule, and no softirq.
        jz 4f
        cmp dword ptr gs:[rip + {pending}], 0
        jne 4f
    3:  TRAP_RESTORE
        iretq
    4:  mov rdi, rbx
        call {leave}
        mov rsp, rbx
        jmp 3b

    .macro BETWEEN_CPUS name, vector, function
    \name:
        push 0
        push \vector
        push rax
        push rbx
        push rcx
        push rdx
        push rsi
        push rdi
        push rbp
        push r8
        push r9
        push r10
        push r11
        sub rsp, 32                     // room for R12 to R15, which functions give back as they were
        cld
        inc dword ptr gs:[rip + {word} + {irq_depth}]
        inc qword ptr gs:[rip + {counts} + 8 * \vector]
        mov rbx, rsp
        lea rbp, [rsp + 1]
        test dword ptr gs:[rip + {word}], {in_hardirq}
        jnz 2f
        mov rsp, gs:[rip + {irq_stack_top}]
    2:  add dword ptr gs:[rip + {word}], {hardirq}
        mov rax, [rip + {table}]
        call [rax + \function]
        mov rax, [rip + {apic}]
        cmp rax, {apic_by_msr}
        jbe 5f
        mov dword ptr [rax + {end_of_interrupt}], 0
    3:  sub dword ptr gs:[rip + {word}], {hardirq}
        jz 6f
        cmp dword ptr gs:[rip + {pending}], 0
        jne 6f
    4:  dec dword ptr gs:[rip + {word} + {irq_depth}]
        lea rsp, [rbx + 32]
        pop r11
        pop r10
        pop r9
        pop r8
        pop rbp
        pop rdi
        pop rsi
        pop rdx
        pop rcx
        pop rbx
        pop rax
        add rsp, 16
        iretq
    5:  call {end_by_msr}
        jmp 3b
    6:  mov rsp, rbx
        mov rdi, rbx
        call {leave}
        jmp 4b
    .endm

    BETWEEN_CPUS __trap_kick, {kick_vector}, {kick}
    BETWEEN_CPUS __trap_call, {call_vector}, {call}
    BETWEEN_CPUS __trap_tlb, {tlb_vector}, {tlb}
    BETWEEN_CPUS __trap_softirq, {softirq_vector}, {softirq_raised}

    __trap_nmi:
        cmp dword ptr gs:[rip + {nmi_state}], 0
        jne 4f
        cmp qword ptr [rsp + 16], offset __nmi_leave_start
        jb 2f
        cmp qword ptr [rsp + 16], offset __nmi_leave_end
        jb 5f

    2:  // Free: move the frame (vector, error, rip, cs, flags, rsp, ss) to the handler stack.
        mov dword ptr gs:[rip + {nmi_state}], 1
        push rax
        push rdx
        mov rax, gs:[rip + {nmi_stack_top}]
        mov rdx, [rsp + 64]
        mov [rax - 8], rdx
        mov rdx, [rsp + 56]
        mov [rax - 16], rdx
        mov rdx, [rsp + 48]
        mov [rax - 24], rdx
        mov rdx, [rsp + 40]
        mov [rax - 32], rdx
        mov rdx, [rsp + 32]
        mov [rax - 40], rdx
        mov qword ptr [rax - 48], 0
        mov qword ptr [rax - 56], 2
        mov rdx, [rsp + 8]
        mov [rax - 64], rdx             // rax as it was
        mov rdx, [rsp]
        lea rsp, [rax - 64]
        pop rax

    3:  TRAP_SAVE
        call {nmi}
        mov rsp, rbx
        TRAP_RESTORE
        dec dword ptr gs:[rip + {nmi_state}]
    __nmi_leave_start:
        jnz 6f
        iretq
    __nmi_leave_end:

    4:  // Busy: note it.
        mov dword ptr gs:[rip + {nmi_state}], 2
        add rsp, 16
        iretq

    5:  // Leaving: go on above the frame that is about to be returned through.
        mov dword ptr gs:[rip + {nmi_state}], 1
        mov rsp, gs:[rip + {nmi_stack_top}]
        sub rsp, 40

    6:  // Once more.
        push 0
        push 2
        jmp 3b
    .popsection
    "#,
    irq_depth = const IRQ_DEPTH_OFFSET,
    word = sym COUNTS,
    in_hardirq = const HARDIRQ_MASK | NMI_MASK,
    hardirq = const HARDIRQ_UNIT,
    pending = sym PENDING,
    irq_stack_top = sym IRQ_STACK_TOP,
    nmi_stack_top = sym NMI_STACK_TOP,
    nmi_state = sym NMI_STATE,
    exception = sym super::exception,
    counts = sym super::COUNTS,
    table = sym TABLE,
    kick = const offset_of!(Upcalls, kick),
    call = const offset_of!(Upcalls, call),
    tlb = const offset_of!(Upcalls, tlb),
    softirq_raised = const offset_of!(Upcalls, softirq_raised),
    kick_vector = const vectors::KICK,
    call_vector = const vectors::CALL,
    tlb_vector = const vectors::TLB,
    softirq_vector = const vectors::SOFTIRQ,
    apic = sym apic::LOCAL,
    apic_by_msr = const apic::BY_MSR,
    end_of_interrupt = const apic::END_OF_INTERRUPT_OFFSET,
    end_by_msr = sym super::end_by_msr,
    interrupt = sym super::interrupt,
    leave = sym super::leave,
    nmi = sym super::nmi,
);

/// The address of a vector's stub.
pub(crate) fn stub_address(vector: usize) -> u64 {
    unsafe extern "C" {
        static __trap_stubs: u8;
        static __trap_kick: u8;
        static __trap_call: u8;
        static __trap_tlb: u8;
        static __trap_softirq: u8;
    }
    assert!(vector < 256);
    match vector as u8 {
        vectors::KICK => (&raw const __trap_kick) as u64,
        vectors::CALL => (&raw const __trap_call) as u64,
        vectors::TLB => (&raw const __trap_tlb) as u64,
        vectors::SOFTIRQ => (&raw const __trap_softirq) as u64,
        _ => (&raw const __trap_stubs) as u64 + 16 * vector as u64,
    }
}
