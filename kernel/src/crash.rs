//! Crashing on purpose, so that one can see what a crash looks like.

use core::arch::asm;
use core::hint::black_box;
use core::sync::atomic::{AtomicUsize, Ordering};

use ::rcu::Domain;
use hal::x86_64::fpu::FpuGuard;
use hal::x86_64::{apic, layout};
use hal::{Native, Platform};
use sync::TaskCx;

use crate::rcu::Kernel;
use crate::{cpus, log, panic, rcu, testing, trace};

/// A way to crash.
pub struct Kind {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it does.
    pub help: &'static str,
    run: fn(),
}

/// All ways.
pub const KINDS: &[Kind] = &[
    Kind { name: "panic", help: "a Rust panic", run: || panic!("crash requested") },
    Kind { name: "null-read", help: "read through a null pointer", run: null_read },
    Kind { name: "null-write", help: "write through a null pointer", run: null_write },
    Kind { name: "null-exec", help: "call a null pointer", run: || call(0) },
    Kind {
        name: "stack-overflow",
        help: "recurse without end",
        run: || {
            black_box(recurse(1));
        },
    },
    Kind {
        name: "irq-stack-overflow",
        help: "recurse without end in an interrupt handler",
        run: irq_stack_overflow,
    },
    Kind { name: "exec-data", help: "execute data", run: exec_data },
    Kind { name: "write-text", help: "write to the kernel's code", run: write_text },
    Kind { name: "write-rodata", help: "write to constants", run: write_rodata },
    Kind { name: "divide", help: "divide by zero", run: divide },
    Kind { name: "invalid-opcode", help: "execute an undefined instruction", run: invalid_opcode },
    Kind { name: "gpf", help: "access a non-canonical address", run: general_protection },
    Kind { name: "double-panic", help: "panic on all CPUs at once", run: double_panic },
    Kind { name: "panic-in-nmi", help: "panic inside an NMI handler", run: panic_in_nmi },
    Kind { name: "panic-with-console-busy", help: "panic while this CPU prints", run: panic_while_printing },
    Kind {
        name: "nested-vectors",
        help: "open a vector section inside of another one",
        run: || {
            let _outer = FpuGuard::begin();
            drop(FpuGuard::begin());
        },
    },
    Kind { name: "sleep-in-atomic", help: "block with preemption off", run: sleep_in_atomic },
    Kind {
        name: "synchronize-in-reader",
        help: "wait for a grace period in a read-side section",
        run: || wait_in_reader(|cx| Kernel::synchronize(cx)),
    },
    Kind {
        name: "expedite-in-reader",
        help: "wait for an expedited grace period in a read-side section",
        run: || wait_in_reader(|cx| Kernel::synchronize_expedited(cx)),
    },
    Kind {
        name: "barrier-in-reader",
        help: "wait for RCU callbacks in a read-side section",
        run: || wait_in_reader(|cx| Kernel::barrier(cx)),
    },
    Kind {
        name: "synchronize-bh-off",
        help: "wait for a grace period with bottom halves off",
        run: || wait_illegally(sync::bh::disable()),
    },
    Kind {
        name: "synchronize-preempt-off",
        help: "wait for a grace period with preemption off",
        run: || wait_illegally(sync::preempt::disable()),
    },
    Kind { name: "task-stack-overflow", help: "recurse without end in a task", run: task_stack_overflow },
    Kind { name: "failing-test", help: "fail a test, and then panic", run: fail_a_test },
    Kind { name: "hang", help: "hang in a test, until the watchdog bites", run: hang },
];

/// Crashes in the named way. Returns if there is no such way.
pub fn crash(name: &str) {
    if let Some(kind) = KINDS.iter().find(|kind| kind.name == name) {
        ::log::info!("crashing on purpose: {}", kind.help);
        log::drain();
        (kind.run)();
        // A crash that did not happen is one, too.
        panic!("the crash `{name}` did nothing");
    }
}

fn null_read() {
    // SAFETY: none; the point is that the page is not mapped and the machine stops.
    unsafe { asm!("mov {0}, [{0}]", inout(reg) 8_u64 => _) }
}

fn null_write() {
    // SAFETY: none, as in `null_read`.
    unsafe { asm!("mov qword ptr [{0}], 0", in(reg) 8_u64) }
}

fn call(address: u64) {
    // SAFETY: none: the address is not code, and the machine stops.
    unsafe { asm!("call {0}", in(reg) address, clobber_abi("C")) }
}

fn fail_a_test() {
    let fails: fn(&mut TaskCx) -> testing::Outcome = |_| {
        trace::mark(0xfa11);
        Err(testing::failed(format_args!("as was asked for")))
    };
    let test =
        testing::KernelTest { name: "crash::fails", limit_ms: 1_000, body: testing::Body::Task(fails) };
    trace::start();
    // SAFETY: the task that crashes has one token, whose borrow has ended for good: this does not return.
    let cx = &mut unsafe { TaskCx::new() };
    let outcome = testing::run_and_tell(&test, cx);
    panic!("the test ended: {outcome:?}");
}

fn exec_data() {
    static DATA: core::sync::atomic::AtomicU64 = core::sync::atomic::AtomicU64::new(0xc3c3_c3c3_c3c3_c3c3);
    call(&raw const DATA as u64);
}

fn write_text() {
    write(layout::sections()[0].range.start);
}

fn write_rodata() {
    write(layout::sections()[1].range.start);
}

fn write(address: u64) {
    // SAFETY: none: the page is read-only, and the machine stops.
    unsafe { asm!("mov qword ptr [{0}], 0", in(reg) address) }
}

fn divide() {
    // SAFETY: none: the division faults, and the machine stops.
    unsafe { asm!("div {0:e}", in(reg) 0, inout("eax") 1 => _, inout("edx") 0 => _) }
}

fn invalid_opcode() {
    // SAFETY: none: the instruction faults, and the machine stops.
    unsafe { asm!("ud2") }
}

fn general_protection() {
    // SAFETY: none: the address is not canonical, and the machine stops.
    unsafe { asm!("mov {0}, [{0}]", inout(reg) 0x8000_0000_0000_0000_u64 => _) }
}

#[inline(never)]
#[expect(unconditional_recursion, reason = "the point is to run out of stack")]
fn recurse(depth: u64) -> u64 {
    let room = black_box([depth; 32]);
    room[0] + recurse(depth + 1)
}

fn irq_stack_overflow() {
    testing::watchdog::in_next_tick(|| {
        black_box(recurse(1));
    });
    wait();
}

/// The boot CPU panics while all others are in NMI handlers, out of reach of the NMI by which it would stop them, and
/// panic as well as soon as it has: they come second.
fn double_panic() {
    static READY: AtomicUsize = AtomicUsize::new(0);
    testing::nmi::set_hook(Some(|_| {
        READY.fetch_add(1, Ordering::Relaxed);
        while !panic::is_underway() {
            Native::relax();
        }
        panic!("CPU {} panics with the boot CPU", Native::cpu());
    }));
    apic::send_nmi_all_but_self();
    while READY.load(Ordering::Relaxed) + 1 < cpus::online_count() {
        Native::relax();
    }
    panic!("CPU 0 panics with all others");
}

fn panic_in_nmi() {
    testing::nmi::set_hook(Some(|_| panic!("crash requested in an NMI")));
    apic::send_nmi_to_cpu(Native::cpu());
    wait();
}

fn panic_while_printing() {
    struct Bomb;
    impl core::fmt::Display for Bomb {
        fn fmt(&self, _: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
            panic!("crash requested while printing");
        }
    }
    log::raw_line(format_args!("this line never ends: {Bomb}"));
}

fn sleep_in_atomic() {
    let _here = sync::preempt::disable();
    Native::block(None);
}

fn wait_illegally<G>(held: G) {
    // SAFETY: a task's; that something forbids sleeping is the point, and must be found out.
    Kernel::synchronize(&mut unsafe { TaskCx::new() });
    drop(held);
}

fn wait_in_reader(wait: fn(&mut TaskCx)) {
    let _section = rcu::read();
    // SAFETY: a task's; that something forbids sleeping is the point, and must be found out.
    wait(&mut unsafe { TaskCx::new() });
}

fn task_stack_overflow() {
    let deep = crate::task::spawn("deep", |_cx| _ = black_box(recurse(1)));
    assert!(deep.is_ok(), "no memory for a task");
    Native::block(None);
}

fn hang() {
    // As in a test.
    trace::start();
    testing::watchdog::arm("crash::hang", 500);
    Native::irq_disable();
    if cpus::online_count() == 1 {
        // Nobody else could notice: hang with interrupts on.
        Native::irq_enable();
    }
    wait();
}

fn wait() -> ! {
    loop {
        Native::relax();
    }
}
