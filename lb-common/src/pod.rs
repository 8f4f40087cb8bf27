//! `aya::Pod` for everything that the agent reads from or writes to a map.

// SAFETY (each): `repr(C)`, made of integers only, padding explicit, valid for any bytes.
#![expect(unsafe_code, reason = "aya::Pod is an unsafe trait")]

macro_rules! pod {
    ($($name:ty),* $(,)?) => {
        $(
            // SAFETY: see the head of this file.
            unsafe impl aya::Pod for $name {}
        )*
    };
}

pod!(
    crate::address::Address,
    crate::affinity::Affinity,
    crate::answers::Answers,
    crate::backend::Backend,
    crate::backend::BackendCounters,
    crate::bucket::Bucket,
    crate::connection::Connection,
    crate::deep::DeepPacket,
    crate::filter::AddressFilter,
    crate::flow::Endpoint,
    crate::flow::Flow,
    crate::flow::FlowKey,
    crate::fragment::Fragment,
    crate::fragment::FragmentKey,
    crate::host::OriginKey,
    crate::interface::Interface,
    crate::nat::NatEntry,
    crate::passive::BackendFailures,
    crate::protection::PrefixKey,
    crate::protection::Protection,
    crate::protection::SourceKey,
    crate::quic::ServerId,
    crate::service::Service,
    crate::service::ServiceKey,
    crate::service::ServiceVersions,
    crate::settings::PeerKey,
    crate::settings::Runtime,
    crate::settings::Settings,
    crate::syn_flood::SynFlood,
    crate::vip::Vip,
);
