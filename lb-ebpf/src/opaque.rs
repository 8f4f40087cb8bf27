//! Numbers that the verifier, or the compiler, should not know exactly.
//!
//! The verifier follows a program once for each combination of what it knows. Offsets that differ
//! by a VLAN tag would make it walk everything behind the parser three times; as one range they are
//! one state.

#![cfg_attr(target_arch = "bpf", expect(unsafe_code, reason = "inline assembly"))]

/// `value`, at most `LARGEST` (a power of two less one), which the verifier knows only to be in that
/// range. `noise` is any number that it doesn't know, such as a word of the frame.
#[inline(always)]
pub(crate) fn opaque<const LARGEST: usize>(value: usize, noise: u16) -> usize {
    #[cfg(target_arch = "bpf")]
    let value = {
        let mut value = value as u64;
        // SAFETY: arithmetic on registers: what is added is subtracted again.
        unsafe {
            core::arch::asm!(
                "{value} += {noise}",
                "{value} -= {noise}",
                value = inout(reg) value,
                noise = in(reg) noise as u64,
                options(pure, nomem, nostack),
            );
        }
        value as usize
    };
    #[cfg(not(target_arch = "bpf"))]
    let _ = noise;
    value & LARGEST
}

/// `value`, of which neither the compiler nor the verifier knows anything: what is checked of it from here on
/// is checked in the program.
#[inline(always)]
pub(crate) fn unknown(value: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    let value = {
        let mut value = value;
        // SAFETY: a register onto itself.
        unsafe { core::arch::asm!("{0} = {0}", inout(reg) value, options(pure, nomem, nostack)) };
        value
    };
    value
}
