//! The loops in vector registers. Each is a function of its own, so that a test can look at its machine code.

use core::arch::asm;

use hal::x86_64::fpu::FpuGuard;

use super::{Page, Pattern, Sum, Width, scalar};

/// The checksum of a page. The processor has `width`.
pub(super) fn sum(page: &Page, width: Width, _vectors: &FpuGuard) -> Sum {
    let mut sum = Sum::default();
    match width {
        Width::Scalar => sum = scalar::sum(page),
        // SAFETY: the guard says that the registers are ours, and the caller that the processor has them.
        Width::Sse2 => unsafe { vector_sum_sse2(page, &mut sum) },
        // SAFETY: as above.
        Width::Avx2 => unsafe { vector_sum_avx2(page, &mut sum) },
    }
    sum
}

/// The bits in which a page differs from a pattern. The processor has `width`.
pub(super) fn difference(page: &Page, pattern: &Pattern, width: Width, _vectors: &FpuGuard) -> u64 {
    let mut bits = [0; 4];
    match width {
        Width::Scalar => bits[0] = scalar::difference(page, pattern),
        // SAFETY: the guard says that the registers are ours, and the caller that the processor has them.
        Width::Sse2 => unsafe { vector_difference_sse2(page, pattern, &mut bits) },
        // SAFETY: as above.
        Width::Avx2 => unsafe { vector_difference_avx2(page, pattern, &mut bits) },
    }
    bits.into_iter().fold(0, |union, bits| union | bits)
}

/// # Safety
/// The vector registers are the caller's.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn vector_sum_sse2(page: &Page, sum: &mut Sum) {
    // SAFETY: reads the page, 32 bytes a turn, and writes the sum's 64 bytes. Lanes 0 and 1 are in xmm0 (words) and xmm2
    // (sums), lanes 2 and 3 in xmm1 and xmm3.
    unsafe {
        asm!(
            "pxor xmm0, xmm0",
            "pxor xmm1, xmm1",
            "pxor xmm2, xmm2",
            "pxor xmm3, xmm3",
            "2:",
            "movdqu xmm4, [{at}]",
            "movdqu xmm5, [{at} + 16]",
            "paddq xmm0, xmm4",
            "paddq xmm1, xmm5",
            "paddq xmm2, xmm0",
            "paddq xmm3, xmm1",
            "add {at}, 32",
            "cmp {at}, {end}",
            "jne 2b",
            "movdqu [{sum}], xmm0",
            "movdqu [{sum} + 16], xmm1",
            "movdqu [{sum} + 32], xmm2",
            "movdqu [{sum} + 48], xmm3",
            at = inout(reg) page.as_ptr() => _,
            end = in(reg) page.as_ptr_range().end,
            sum = in(reg) sum,
            out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _,
            options(nostack),
        );
    }
}

/// # Safety
/// The vector registers are the caller's, and the processor has AVX2, with its state enabled.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn vector_sum_avx2(page: &Page, sum: &mut Sum) {
    // SAFETY: reads the page, 32 bytes a turn, and writes the sum's 64 bytes. `vzeroupper` ends the use of upper halves,
    // which would make SSE code after it slow, and saving them dear.
    unsafe {
        asm!(
            "vpxor xmm0, xmm0, xmm0",
            "vpxor xmm1, xmm1, xmm1",
            "2:",
            "vpaddq ymm0, ymm0, [{at}]",
            "vpaddq ymm1, ymm1, ymm0",
            "add {at}, 32",
            "cmp {at}, {end}",
            "jne 2b",
            "vmovdqu [{sum}], ymm0",
            "vmovdqu [{sum} + 32], ymm1",
            "vzeroupper",
            at = inout(reg) page.as_ptr() => _,
            end = in(reg) page.as_ptr_range().end,
            sum = in(reg) sum,
            out("xmm0") _, out("xmm1") _,
            options(nostack),
        );
    }
}

/// # Safety
/// The vector registers are the caller's.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn vector_difference_sse2(page: &Page, pattern: &Pattern, bits: &mut [u64; 4]) {
    // SAFETY: reads the page, 32 bytes a turn, and the pattern; writes the first 16 of the 32 bytes of `bits`.
    unsafe {
        asm!(
            "movdqu xmm0, [{pattern}]",
            "movdqu xmm1, [{pattern} + 16]",
            "pxor xmm2, xmm2",
            "2:",
            "movdqu xmm3, [{at}]",
            "movdqu xmm4, [{at} + 16]",
            "pxor xmm3, xmm0",
            "pxor xmm4, xmm1",
            "por xmm2, xmm3",
            "por xmm2, xmm4",
            "add {at}, 32",
            "cmp {at}, {end}",
            "jne 2b",
            "movdqu [{bits}], xmm2",
            at = inout(reg) page.as_ptr() => _,
            end = in(reg) page.as_ptr_range().end,
            pattern = in(reg) pattern,
            bits = in(reg) bits,
            out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _,
            options(nostack),
        );
    }
}

/// # Safety
/// The vector registers are the caller's, and the processor has AVX2, with its state enabled.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn vector_difference_avx2(page: &Page, pattern: &Pattern, bits: &mut [u64; 4]) {
    // SAFETY: reads the page, 32 bytes a turn, and the pattern; writes the 32 bytes of `bits`. `vzeroupper` as above.
    unsafe {
        asm!(
            "vmovdqu ymm0, [{pattern}]",
            "vpxor xmm1, xmm1, xmm1",
            "2:",
            "vpxor ymm2, ymm0, [{at}]",
            "vpor ymm1, ymm1, ymm2",
            "add {at}, 32",
            "cmp {at}, {end}",
            "jne 2b",
            "vmovdqu [{bits}], ymm1",
            "vzeroupper",
            at = inout(reg) page.as_ptr() => _,
            end = in(reg) page.as_ptr_range().end,
            pattern = in(reg) pattern,
            bits = in(reg) bits,
            out("xmm0") _, out("xmm1") _, out("xmm2") _,
            options(nostack),
        );
    }
}
