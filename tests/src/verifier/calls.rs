//! Which of a program's functions call which, for the stack that a chain of them takes. The verifier
//! tells the depth of each only.

use aya_obj::generated::bpf_insn;

/// `BPF_JMP | BPF_CALL` and `BPF_PSEUDO_CALL` (include/uapi/linux/bpf.h).
const CALL: u8 = 0x85;
const TO_FUNCTION: u8 = 1;

/// As kernels round it until 6.8 (`check_max_stack_depth`): a function without a frame costs as much.
/// Newer ones round to 16, and take nothing for nothing.
const FRAME_BYTES: u64 = 32;

/// No chain is longer (`MAX_CALL_FRAMES`); recursion is refused.
const CHAIN_MAX: usize = 8;

/// For each function, in the verifier's order, which others it calls.
#[derive(Debug)]
pub(super) struct Calls(Vec<Vec<usize>>);

impl Calls {
    pub(super) fn of(instructions: &[bpf_insn]) -> Self {
        let targets = instructions.iter().enumerate().filter_map(|(at, instruction)| {
            let is_call = instruction.code == CALL && instruction.src_reg() == TO_FUNCTION;
            let target = usize::try_from(at as i64 + 1 + i64::from(instruction.imm));
            is_call.then_some((at, target.ok()?))
        });
        let targets: Vec<(usize, usize)> = targets.collect();
        let mut starts: Vec<usize> = targets.iter().map(|(_, target)| *target).collect();
        starts.push(0);
        starts.sort_unstable();
        starts.dedup();
        let function = |at: usize| starts.partition_point(|start| *start <= at) - 1;
        let mut calls = vec![Vec::new(); starts.len()];
        for (at, target) in targets {
            calls[function(at)].push(function(target));
        }
        Self(calls)
    }

    #[cfg(test)]
    pub(super) fn none() -> Self {
        Self(Vec::new())
    }

    /// Of the deepest chain of calls that begins with the program, with each function's own depth.
    pub(super) fn stack_bytes(&self, depths: &[u64]) -> u64 {
        self.chain(0, depths, CHAIN_MAX)
    }

    fn chain(&self, function: usize, depths: &[u64], left: usize) -> u64 {
        let own = depths.get(function).copied().unwrap_or_default().max(1);
        let own = own.next_multiple_of(FRAME_BYTES);
        let called = self.0.get(function).into_iter().flatten();
        let below = match left {
            0 => 0,
            _ => called.map(|&other| self.chain(other, depths, left - 1)).max().unwrap_or(0),
        };
        own + below
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instruction(code: u8, src: u8, imm: i32) -> bpf_insn {
        let registers = bpf_insn::new_bitfield_1(0, src);
        bpf_insn { code, _bitfield_align_1: [], _bitfield_1: registers, off: 0, imm }
    }

    #[test]
    fn the_deepest_chain_counts_and_every_frame_is_rounded_up() {
        // 0: call 3; 1: call 4; 2: exit; 3 (function 1): call 4; exit is left out; 4 (function 2).
        let exit = || instruction(0x95, 0, 0);
        let code =
            [instruction(CALL, 1, 2), instruction(CALL, 1, 2), exit(), instruction(CALL, 1, 0)];
        let calls = Calls::of(&code);
        assert_eq!(calls.stack_bytes(&[0, 100, 8]), 32 + 128 + 32);
        assert_eq!(calls.stack_bytes(&[0, 0, 490]), 32 + 32 + 512);
        // A helper is no function: it has a stack of its own.
        assert_eq!(Calls::of(&[instruction(CALL, 0, 2), exit()]).stack_bytes(&[8, 100]), 32);
    }
}
