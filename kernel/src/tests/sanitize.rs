//! Mistakes made on purpose, each of which a build with address checks reports.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::alloc::Layout;
use core::hint::black_box;

use hal::x86_64::layout::phys_to_virt;

use crate::{check, kernel_test, memory, testing};

/// Expects a report of `what` that was done so many lines further down.
macro_rules! expect {
    ($what:literal, $lines:literal) => {
        expect!($what, $lines, "")
    };
    ($what:literal, $lines:literal, $($more:tt)+) => {
        testing::expect_report(&alloc::format!(
            "BUG: {} in {}:{}{}",
            $what,
            file!(),
            line!() + $lines,
            format_args!($($more)+)
        ))
    };
}

// Each report names three lines: of the access, of who allocated, and of who freed. So the steps of a test are at a
// distance that its expectation says.

kernel_test! {
    fn smoke_a_read_behind_an_object_is_reported() {
        let (file, line) = (file!(), line!());
        let object: Vec<u8> = black_box(alloc::vec![7; 13]);
        let end = object.as_ptr().wrapping_add(13);
        expect!(
            "overflow of a heap object: read of 1 bytes",
            7,
            ", 0 bytes behind an object of 13 bytes allocated in {file}:{}",
            line + 1
        );
        // SAFETY: the byte is in the object's block, which is longer than the object, and any byte is one.
        black_box(unsafe { end.read_volatile() });
        Ok(())
    }
}

kernel_test! {
    fn smoke_a_write_in_front_of_an_object_is_reported() {
        let object = black_box(Box::new(1_u64));
        let before = core::ptr::from_ref(&*object).wrapping_sub(1).cast_mut();
        // SAFETY: the word is the last of the record in front of the object; it is written as it is.
        unsafe {
            let there: u64;
            core::arch::asm!("mov {}, [{}]", out(reg) there, in(reg) before, options(nostack, readonly));
            expect!("underflow of a heap object: write of 8 bytes", 1, ", 8 bytes before an object of 8 bytes");
            before.write_volatile(there);
        }
        Ok(())
    }
}

kernel_test! {
    fn smoke_a_read_of_a_freed_object_is_reported() {
        let (file, line) = (file!(), line!());
        let object = black_box(Box::into_raw(Box::new([3_u64; 5])));
        // SAFETY: just made from a box.
        drop(unsafe { Box::from_raw(object) });
        expect!(
            "use after free: read of 8 bytes",
            8,
            ", 16 bytes into an object of 40 bytes allocated in {file}:{} and freed in {file}:{}",
            line + 1,
            line + 3
        );
        // SAFETY: none in the language's terms, which is the point; the memory is in the quarantine, mapped and nobody's.
        let seen = unsafe { object.cast::<u64>().add(2).read_volatile() };
        check!(seen == 3, "somebody else has it already: {seen}");
        Ok(())
    }
}

kernel_test! {
    fn smoke_a_copy_that_is_too_long_is_reported() {
        let source = black_box(alloc::vec![1_u8; 24]);
        let mut target = black_box(alloc::vec![0_u8; 64]);
        expect!("overflow of a heap object: read of 32 bytes", 2, ", 0 bytes into an object of 24 bytes");
        // SAFETY: what is copied beyond the source is in its block, and is not looked at.
        unsafe { source.as_ptr().copy_to_nonoverlapping(target.as_mut_ptr(), black_box(32)) };
        Ok(())
    }
}

kernel_test! {
    fn smoke_a_fill_that_is_too_long_is_reported() {
        let mut target = black_box(alloc::vec![0_u8; 24]);
        expect!("overflow of a heap object: write of 32 bytes", 2, ", 0 bytes into an object of 24 bytes");
        // SAFETY: none, as above; the bytes behind the object belong to nobody.
        unsafe { target.as_mut_ptr().write_bytes(1, black_box(32)) };
        Ok(())
    }
}

kernel_test! {
    fn smoke_a_write_to_a_freed_frame_is_reported() {
        let Some(frame) = memory::allocate_frames(0) else { crate::skip!("no memory") };
        memory::free_frames(frame, 0);
        expect!("use of a freed frame: write of 1 bytes", 2);
        // SAFETY: none, as above; free frames are not looked at, and if another CPU has this one by now, the test fails.
        unsafe { phys_to_virt(frame).write_volatile(0) };
        Ok(())
    }
}

kernel_test! {
    fn smoke_a_second_free_is_reported() {
        let (file, line) = (file!(), line!());
        let object = black_box(Box::into_raw(Box::new([3_u64; 5])));
        // SAFETY: just made from a box.
        drop(unsafe { Box::from_raw(object) });
        expect!(
            "double free",
            8,
            ", 0 bytes into an object of 40 bytes allocated in {file}:{} and freed in {file}:{}",
            line + 1,
            line + 3
        );
        // SAFETY: none, as above; the allocator under test refuses it.
        drop(unsafe { Box::from_raw(object) });
        Ok(())
    }
}

kernel_test! {
    fn smoke_a_free_of_another_size_is_reported() {
        let layout = Layout::new::<[u8; 24]>();
        // SAFETY: the layout has a size.
        let object = black_box(unsafe { alloc::alloc::alloc(layout) });
        expect!("free of 32 bytes", 2, ", 0 bytes into an object of 24 bytes");
        // SAFETY: none, as above; the allocator under test knows what it gave.
        unsafe { alloc::alloc::dealloc(object, Layout::new::<[u8; 32]>()) };
        Ok(())
    }
}
