//! What the agent and its maps take of the machine's memory, and how full they are.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::{FloatGauge, gauge};
use crate::control::api::Memory;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartLabels {
    part: &'static str,
}

/// All 0 where the kernel does not tell.
pub(super) fn register(registry: &mut Registry, memory: Option<&Memory>) {
    let nothing = Memory::default();
    let memory = memory.unwrap_or(&nothing);
    let parts = Family::<PartLabels, FloatGauge>::default();
    for (part, bytes) in [
        ("agent", memory.agent_bytes),
        ("nat_flows", memory.nat_flows.bytes),
        ("services", memory.services.bytes),
        ("backends", memory.backends.bytes),
        ("tables", memory.table_slots.bytes),
        ("other_maps", memory.other_bytes),
    ] {
        parts.get_or_create(&PartLabels { part }).set(bytes as f64);
    }
    registry.register("memory_bytes", "Of the agent's process, and of the kernel's maps", parts);
    for (name, help, value) in [
        ("memory_flow_bytes", "Of the maps, for one translated flow", memory.flow_bytes),
        (
            "memory_service_bytes",
            "Of the maps, for one service with its backends and its part of the tables, on average",
            memory.service_bytes,
        ),
        ("services", "Services, once for each address", memory.services.used),
        ("services_limit", "Services that the maps have room for", memory.services.limit),
        ("backends", "Backends, once for each service and address", memory.backends.used),
        ("backends_limit", "Backends that the maps have room for", memory.backends.limit),
        ("tables", "Different tables", memory.tables),
        ("table_slots", "Slots of all tables", memory.table_slots.used),
        ("table_slots_limit", "Slots that all tables may have", memory.table_slots.limit),
    ] {
        gauge(registry, name, help, value as f64);
    }
}
