//! Loading programs for the verifier's report on them. aya asks for the log of programs that are
//! refused only, so the programs are relocated by its parser and loaded here.

use std::collections::{BTreeMap, HashSet};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, RawFd};

use anyhow::{Context as _, Result, bail};
use aya::maps::Map;
use aya::{Ebpf, EbpfLoader};
use aya_obj::generated::{bpf_attach_type, bpf_insn, bpf_prog_type};
use aya_obj::{Object, ProgramSection};

use super::calls::Calls;
use super::log::Statistics;
use crate::packet::syscall::{self, Instructed, XDP_HAS_FRAGS};

/// What the verifier says of every program of an object.
pub(super) fn statistics(object: &[u8]) -> Result<BTreeMap<String, Statistics>> {
    let maps = EbpfLoader::new()
        .load(object)
        .context("cannot make the object's maps; this needs root (CAP_BPF, CAP_NET_ADMIN)")?;
    let mut object = Object::parse(object).context("cannot read the kernel object")?;
    relocate(&mut object, &maps)?;
    object
        .programs
        .iter()
        .map(|(name, program)| {
            let function = object
                .functions
                .get(&program.function_key())
                .with_context(|| format!("the program {name} has no code"))?;
            let (kind, attach_type, flags) = kind(&program.section)
                .with_context(|| format!("the program {name} is of another kind"))?;
            let (_, log) = syscall::load(&Instructed {
                kind: kind as u32,
                attach_type: attach_type as u32,
                flags,
                instructions: bytes(&function.instructions),
                license: &program.license,
            })
            .with_context(|| format!("the kernel refuses the program {name}"))?;
            let calls = Calls::of(&function.instructions);
            let statistics =
                Statistics::read(&log, &calls).with_context(|| format!("program {name}"))?;
            Ok((name.clone(), statistics))
        })
        .collect()
}

fn relocate(object: &mut Object, loaded: &Ebpf) -> Result<()> {
    let texts: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    let maps = std::mem::take(&mut object.maps);
    let mut descriptors: Vec<(&str, RawFd)> = Vec::new();
    for name in maps.keys() {
        let map = loaded.map(name).with_context(|| format!("no map {name}"))?;
        descriptors.push((name, descriptor(map)?.as_raw_fd()));
    }
    let placed = descriptors.iter().map(|&(name, fd)| (name, fd, &maps[name]));
    object.relocate_maps(placed, &texts).context("placing the maps")?;
    object.relocate_calls(&texts).context("placing the functions")
}

fn descriptor(map: &Map) -> Result<BorrowedFd<'_>> {
    match map {
        Map::Array(data)
        | Map::ProgramArray(data)
        | Map::ArrayOfMaps(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::PerCpuHashMap(data)
        | Map::PerCpuLruHashMap(data)
        | Map::RingBuf(data) => Ok(data.fd().as_fd()),
        _ => bail!("a map is of another kind"),
    }
}

/// Type, type of attachment and flags, as aya loads it.
fn kind(section: &ProgramSection) -> Option<(bpf_prog_type, bpf_attach_type, u32)> {
    match section {
        ProgramSection::Xdp { frags, attach_type } => {
            let flags = if *frags { XDP_HAS_FRAGS } else { 0 };
            Some((bpf_prog_type::BPF_PROG_TYPE_XDP, (*attach_type).into(), flags))
        }
        // The kernel looks at no type of attachment; this one is 0.
        ProgramSection::SchedClassifier => Some((
            bpf_prog_type::BPF_PROG_TYPE_SCHED_CLS,
            bpf_attach_type::BPF_CGROUP_INET_INGRESS,
            0,
        )),
        ProgramSection::CgroupSockAddr { attach_type } => {
            Some((bpf_prog_type::BPF_PROG_TYPE_CGROUP_SOCK_ADDR, (*attach_type).into(), 0))
        }
        _ => None,
    }
}

/// The instructions as they lie in memory: eight bytes each.
fn bytes(instructions: &[bpf_insn]) -> Vec<u8> {
    instructions
        .iter()
        .flat_map(|instruction| {
            let registers = instruction.dst_reg() | instruction.src_reg() << 4;
            let [low, high] = instruction.off.to_ne_bytes();
            let [a, b, c, d] = instruction.imm.to_ne_bytes();
            [instruction.code, registers, low, high, a, b, c, d]
        })
        .collect()
}
