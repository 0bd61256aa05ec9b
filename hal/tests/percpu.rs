//! Per-CPU variables on real areas.

mod common;

use std::cell::Cell;
use std::sync::atomic::{
    AtomicI32, AtomicI64, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering::*,
};

use common::{NoIrqs, NoPreempt};
use hal::hosted::run_cpus;
use hal::percpu::{self, AREA_ALIGN, area_of, area_size, template_size};
use hal::{CpuId, Native, Platform};
use proptest::prelude::*;

#[repr(align(64))]
struct Line(AtomicU8);

hal::percpu! {
    static BYTE: AtomicU8 = AtomicU8::new(0);
    static LINE: Line = Line(AtomicU8::new(1));
    static WORD: AtomicU16 = AtomicU16::new(0);
    static OTHER_LINE: Line = Line(AtomicU8::new(2));
    static DWORD: AtomicU32 = AtomicU32::new(0);
    static QWORD: AtomicU64 = AtomicU64::new(0);
    static SIZE: AtomicUsize = AtomicUsize::new(0);
    static SIGNED_DWORD: AtomicI32 = AtomicI32::new(0);
    static SIGNED_QWORD: AtomicI64 = AtomicI64::new(0);

    static REMOTE: AtomicU64 = AtomicU64::new(0xfeed);
    static LOCAL: Cell<u64> = Cell::new(5);
    static OWN_ADDRESS: AtomicUsize = AtomicUsize::new(0);
    static OWNER: AtomicU32 = AtomicU32::new(u32::MAX);
    static INITIALIZED: AtomicU32 = AtomicU32::new(0);
}

// ---- Integers ----

#[derive(Clone, Copy, Debug)]
enum Step {
    Write(u64),
    Add(u64),
    Sub(u64),
    Or(u64),
    And(u64),
    Exchange(u64),
    /// Of the present value or of another.
    CompareExchange(Option<u64>, u64),
    Inc,
    Dec,
    DecIsZero,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Values that wrap, that carry into the next byte, and that come back to zero.
    let value =
        || prop_oneof![any::<u64>(), 0..3u64, Just(u64::MAX), (0..8u32).prop_map(|byte| 0xff << (8 * byte))];
    let step = prop_oneof![
        value().prop_map(Step::Write),
        value().prop_map(Step::Add),
        value().prop_map(Step::Sub),
        value().prop_map(Step::Or),
        value().prop_map(Step::And),
        value().prop_map(Step::Exchange),
        (proptest::option::of(value()), value()).prop_map(|(old, new)| Step::CompareExchange(old, new)),
        Just(Step::Inc),
        Just(Step::Dec),
        Just(Step::DecIsZero),
    ];
    prop::collection::vec(step, 1..60)
}

macro_rules! integer_operations_agree_with_plain_arithmetic {
    ($($name:ident: $variable:ident, $int:ty;)*) => {proptest! {$(
        #[test]
        fn $name(steps in steps()) {
            let mut model: $int = 0;
            $variable.write(0);
            for step in steps {
                match step {
                    Step::Write(value) => {
                        model = value as $int;
                        $variable.write(value as $int);
                    }
                    Step::Add(value) => {
                        model = model.wrapping_add(value as $int);
                        $variable.add(value as $int);
                    }
                    Step::Sub(value) => {
                        model = model.wrapping_sub(value as $int);
                        $variable.sub(value as $int);
                    }
                    Step::Or(value) => {
                        model |= value as $int;
                        $variable.or(value as $int);
                    }
                    Step::And(value) => {
                        model &= value as $int;
                        $variable.and(value as $int);
                    }
                    Step::Exchange(value) => {
                        prop_assert_eq!($variable.exchange(value as $int), model);
                        model = value as $int;
                    }
                    Step::CompareExchange(old, new) => {
                        let old = old.map_or(model, |old| old as $int);
                        let expected = if old == model { Ok(model) } else { Err(model) };
                        prop_assert_eq!($variable.compare_exchange(old, new as $int), expected);
                        if expected.is_ok() {
                            model = new as $int;
                        }
                    }
                    Step::Inc => {
                        model = model.wrapping_add(1);
                        $variable.inc();
                    }
                    Step::Dec => {
                        model = model.wrapping_sub(1);
                        $variable.dec();
                    }
                    Step::DecIsZero => {
                        model = model.wrapping_sub(1);
                        prop_assert_eq!($variable.dec_is_zero(), model == 0);
                    }
                }
                prop_assert_eq!($variable.read(), model);
                prop_assert_eq!($variable.on(Native::cpu()).load(Relaxed), model);
            }
        }
    )*}};
}

integer_operations_agree_with_plain_arithmetic! {
    u8_operations: BYTE, u8;
    u16_operations: WORD, u16;
    u32_operations: DWORD, u32;
    u64_operations: QWORD, u64;
    usize_operations: SIZE, usize;
    i32_operations: SIGNED_DWORD, i32;
    i64_operations: SIGNED_QWORD, i64;
}

#[test]
fn an_operation_touches_its_own_bytes_only() {
    hal::percpu! {
        static FOUR: [AtomicU8; 4] = [const { AtomicU8::new(0x55) }; 4];
        static A: AtomicU8 = AtomicU8::new(0x55);
        static B: AtomicU8 = AtomicU8::new(0x55);
        static C: AtomicU8 = AtomicU8::new(0x55);
    }
    let pinned = NoPreempt::new();
    A.write(0xff);
    A.inc();
    C.write(0);
    C.dec();
    assert_eq!((A.read(), B.read(), C.read()), (0, 0x55, 0xff));
    assert!(FOUR.get(&pinned).iter().all(|byte| byte.load(Relaxed) == 0x55));
}

// ---- Areas ----

#[test]
fn areas_and_variables_are_aligned_and_apart() {
    run_cpus(8, |_| {
        let pinned = NoPreempt::new();
        let area = area_of(Native::cpu()).unwrap();
        assert_eq!(area % AREA_ALIGN, 0);
        let (line, other) = (LINE.get(&pinned), OTHER_LINE.get(&pinned));
        assert_eq!((line.0.load(Relaxed), other.0.load(Relaxed)), (1, 2), "copied from the template");
        for (address, offset) in [
            (line as *const Line as usize, LINE.offset()),
            (other as *const Line as usize, OTHER_LINE.offset()),
            (QWORD.local_ptr() as usize, QWORD.offset()),
        ] {
            assert_eq!(address, area + offset);
            assert!(offset < template_size() && template_size() < area_size());
        }
        assert_eq!((line as *const Line as usize) % 64, 0);
        assert_eq!((other as *const Line as usize) % 64, 0);
    });
}

#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn each_cpu_has_its_own_and_can_read_the_others() {
    let places = run_cpus(8, |call| {
        REMOTE.write(call as u64);
        for _ in 0..1000 {
            REMOTE.add(8);
            Native::relax();
        }
        let theirs = percpu::cpus().filter(|cpu| *cpu != Native::cpu());
        // Whoever it is, it is before, in the middle of, or after its own counting.
        assert!(theirs.map(|cpu| REMOTE.on(cpu).load(Relaxed)).all(|value| value == 0xfeed || value <= 8007));
        assert_eq!(REMOTE.read(), 8000 + call as u64);
        Native::cpu()
    });
    // Areas outlive their threads; the next thread may have counted in one already.
    assert!(places.iter().all(|cpu| REMOTE.on(*cpu).load(Relaxed) <= 8007));
}

#[test]
#[should_panic(expected = "has no per-CPU area")]
fn a_cpu_without_an_area_has_no_variables() {
    REMOTE.on(CpuId::new(hal::MAX_CPUS as u32 - 1).unwrap());
}

#[test]
fn cells_are_local_with_interrupts_off() {
    run_cpus(2, |_| {
        let masked = NoIrqs::new();
        let cell = LOCAL.get_local(&masked);
        let before = cell.get();
        cell.set(before + 1);
        assert_eq!(LOCAL.get_local(&masked).get(), before + 1);
    });
}

// ---- Initializers ----

hal::percpu_init!(set_up);

fn set_up(cpu: CpuId) {
    OWN_ADDRESS.on(cpu).store(OWN_ADDRESS.on(cpu) as *const _ as usize, Relaxed);
    OWNER.on(cpu).store(cpu.as_u32(), Relaxed);
    INITIALIZED.on(cpu).fetch_add(1, Relaxed);
}

mod elsewhere {
    //! A module of which nothing is named, but which registers an initializer.
    hal::percpu_init!(another);

    fn another(cpu: hal::CpuId) {
        super::INITIALIZED.on(cpu).fetch_add(0x100, std::sync::atomic::Ordering::Relaxed);
    }
}

#[test]
fn initializers_run_once_before_the_cpu_does() {
    for _ in 0..3 {
        run_cpus(4, |_| {
            assert_eq!(OWN_ADDRESS.read(), OWN_ADDRESS.local_ptr() as usize);
            assert_eq!(OWNER.read(), Native::cpu().as_u32());
            assert_eq!(INITIALIZED.read(), 0x101, "each exactly once, however often the area is used");
        });
    }
}
