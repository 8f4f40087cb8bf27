//! A frame in memory, and a node that knows nothing but a cookie.

#![expect(unsafe_code, reason = "headers are read from bytes as the kernel reads them")]

use std::ptr;

use lb_common::Address;
use lb_common::affinity::Affinity;
use lb_common::backend::Backend;
use lb_common::bucket::Bucket;
use lb_common::checksum::Difference;
use lb_common::connection::Connection;
use lb_common::counter::Verdict;
use lb_common::flow::{Endpoint, FlowKey};
use lb_common::fragment::{Fragment, FragmentKey};
use lb_common::interface::Interface;
use lb_common::nat::NatEntry;
use lb_common::protection::{Protection, SourceKey};
use lb_common::quic::ServerId;
use lb_common::service::{Service, ServiceKey};
use lb_common::settings::Settings;
use lb_common::vip::Vip;
use lb_ebpf::environment::{Cookies, Frame, InsertError, Node, Owner, SynCookie};
use lb_ebpf::parse::Packet;
use lb_ebpf::wire::Mac;

pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl Frame for Bytes {
    fn load<T: Copy>(&self, offset: usize) -> Option<T> {
        let bytes = self.0.get(offset..offset + size_of::<T>())?;
        // SAFETY: as many bytes as T has; the trait demands that any bytes are a valid T.
        Some(unsafe { ptr::read_unaligned(bytes.as_ptr().cast()) })
    }
    fn store<T: Copy>(&mut self, offset: usize, value: T) -> Option<()> {
        let bytes = self.0.get_mut(offset..offset + size_of::<T>())?;
        // SAFETY: as many bytes as T has.
        unsafe { ptr::write_unaligned(bytes.as_mut_ptr().cast(), value) };
        Some(())
    }
    fn correct_checksum(&mut self, _: usize, _: Difference, _: Difference, _: bool) -> Option<()> {
        unreachable!("the answer is summed from the whole")
    }
    fn length(&self) -> u32 {
        self.0.len() as u32
    }
    fn interface_index(&self) -> u32 {
        2
    }
    fn grow(&mut self, _: usize) -> Option<()> {
        None
    }
    fn end_at(&mut self, length: usize) -> Option<()> {
        // What was there before is not what a sender may see.
        self.0.resize(length, 0xaa);
        Some(())
    }
}

/// Makes always the same cookie.
pub(crate) struct Answering {
    pub(crate) sequence: u32,
    pub(crate) segment: u16,
}

const SETTINGS: Settings = Settings {
    peers: 0,
    nat_key: 0,
    nat_port_first: 0,
    nat_port_count: 0,
    flags: 0,
    syn_interval_ns: 0,
    reserved: 0,
};

impl Cookies for Answering {
    fn cookie(&self, _: &Packet, _: u64) -> Option<SynCookie> {
        Some(SynCookie { sequence: self.sequence, segment: self.segment })
    }
    fn way(&self, _: &Packet, _: u32) -> Option<(Mac, Mac, u32)> {
        None
    }
}

impl Node for Answering {
    fn settings(&self) -> Option<&Settings> {
        Some(&SETTINGS)
    }
    fn may_be_ours(&self, _: &Address) -> bool {
        true
    }
    fn interface(&self, _: u32) -> Option<&Interface> {
        None
    }
    fn vip(&self, _: &Address) -> Option<&Vip> {
        None
    }
    fn is_peer(&self, _: Mac) -> bool {
        false
    }
    fn service(&self, _: &ServiceKey) -> Option<&Service> {
        None
    }
    fn bucket(&self, _: u32, _: u32) -> Option<&Bucket> {
        None
    }
    fn backend(&self, _: u32) -> Option<&Backend> {
        None
    }
    fn protection(&self, _: u32) -> Option<&Protection> {
        None
    }
    fn listed(&self, _: u32, _: &Address) -> u32 {
        0
    }
    fn spend(&self, _: &SourceKey, _: impl Fn(u64) -> Option<u64>) -> bool {
        false
    }
    fn connection(&self, _: &FlowKey) -> Option<&Connection> {
        unreachable!("nothing is protected here")
    }
    fn connection_begin(&self, _: &FlowKey, _: &Connection) {}
    fn connection_touch(&self, _: &FlowKey, _: &Connection, _: u32) {}
    fn connection_close(&self, _: &FlowKey, _: &Connection) {}
    fn connection_forget(&self, _: &FlowKey) {}
    fn open_connections(&self, _: [u32; 2]) -> u64 {
        unreachable!("nothing is protected here")
    }
    fn syn_flood(&self, _: u32) -> bool {
        true
    }
    fn leave_syn(&self, _: u32) -> bool {
        false
    }
    fn note_refused(&self, _: u32) {}
    fn note_unanswered(&self, _: u32) {}
    fn syn_again(&self, _: u64) -> bool {
        false
    }
    fn tcp_owner(&self, _: &Packet) -> Owner {
        Owner::Nobody
    }
    fn tcp_listener(&self, _: &Packet, _: &Backend) -> bool {
        false
    }
    fn tcp_cookie(&self, _: &Packet, _: &Backend) -> bool {
        false
    }
    fn udp_socket(&self, _: &Packet, _: &Backend) -> bool {
        false
    }
    fn nat_entry(&self, _: &FlowKey) -> Option<&NatEntry> {
        None
    }
    fn nat_insert(&self, _: &FlowKey, _: &NatEntry) -> Result<(), InsertError> {
        Err(InsertError::Full)
    }
    fn nat_remove(&self, _: &FlowKey) {}
    fn nat_touch(&self, _: &FlowKey, _: &NatEntry, _: u8, _: u64, _: bool) {}
    fn affinity(&self, _: &FlowKey) -> Option<&Affinity> {
        None
    }
    fn affinity_note(&self, _: &FlowKey, _: &Affinity) {}
    fn affinity_touch(&self, _: &FlowKey, _: &Affinity) {}
    fn flow_touch(&self, _: &FlowKey, _: u32, _: u32) -> bool {
        false
    }
    fn flow_add(&self, _: &FlowKey, _: u32, _: u32, _: u32) {}
    fn flow_forget(&self, _: &FlowKey) {}
    fn server(&self, _: &ServerId) -> Option<u32> {
        None
    }

    fn udp_reply(&self, _: &FlowKey) -> Option<&Endpoint> {
        None
    }
    fn udp_remember(&self, _: &FlowKey, _: &Endpoint) {}
    fn fragment(&self, _: &FragmentKey) -> Option<&Fragment> {
        None
    }
    fn fragment_remember(&self, _: &FragmentKey, _: &Fragment) {}
    fn fragment_forget(&self, _: &FragmentKey) {}
    fn may_answer(&self) -> bool {
        false
    }
    fn note_cookie(&self) {}
    fn cookies_about(&self) -> bool {
        false
    }
    fn now_ns(&self) -> u64 {
        0
    }
    fn count(&self, _: Verdict) {}
    fn count_backend(&self, _: u32, _: u32, _: bool) {}
}

const MACS: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];

/// From port 40000 to 8443, numbered 77.
fn syn(options: &[u8]) -> Vec<u8> {
    let mut tcp = [40000u16.to_be_bytes(), 8443u16.to_be_bytes()].concat();
    tcp.extend(77u32.to_be_bytes());
    tcp.extend([0; 4]);
    let words = 5 + options.len() as u8 / 4;
    tcp.extend([words << 4, 2, 0xfa, 0xf0, 0, 0, 0, 0]);
    tcp.extend(options);
    tcp
}

/// A SYN without padding and checksums.
pub(crate) fn frame_v4(options: &[u8]) -> Vec<u8> {
    let tcp = syn(options);
    let mut frame = [&MACS[..], &[8, 0]].concat();
    let length = (20 + tcp.len() as u16).to_be_bytes();
    frame.extend([0x45, 0, length[0], length[1], 1, 2, 0x40, 0, 63, 6, 0, 0]);
    frame.extend([192, 0, 2, 7, 192, 0, 2, 100]);
    frame.extend(tcp);
    frame
}

pub(crate) fn frame_v6(options: &[u8]) -> Vec<u8> {
    let tcp = syn(options);
    let mut frame = [&MACS[..], &[0x86, 0xdd]].concat();
    let length = (tcp.len() as u16).to_be_bytes();
    frame.extend([0x60, 0, 0, 0, length[0], length[1], 6, 63]);
    frame.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
    frame.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    frame.extend(tcp);
    frame
}

/// The one's-complement sum of these bytes, all ones where a checksum in them is right.
pub(crate) fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
