//! A frame described field by field, and its bytes. Every checksum is computed from the whole, as a
//! sender does: nothing here knows of incremental updates.

use std::net::IpAddr;

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::checksum;
use super::names::{self, Mac};

/// IPv6 extension headers.
const FRAGMENT: u8 = 44;
const ROUTING: u8 = 43;

/// What a frame holds behind its Ethernet header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    #[default]
    Tcp,
    Udp,
    /// An ICMP or ICMPv6 message of type `icmp`, quoting `quote` where there is one.
    Icmp,
    /// ARP: `sender` and `target`.
    Arp,
    /// A neighbour solicitation or advertisement, as `icmp` says, of `target`.
    Nd,
    /// An IP packet of protocol `protocol`.
    Other,
    /// The bytes of `payload` behind `ethertype`.
    Raw,
}

/// Fields of a frame; what a fixture does not name is a SYN of the client to the VIP's service.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Frame {
    pub kind: Kind,
    /// 4 or 6.
    pub family: u8,
    pub mac_to: String,
    pub mac_from: String,
    /// VLAN identifiers, the outer one first.
    pub vlan: Vec<u16>,
    pub from: String,
    pub to: String,
    pub port_from: u16,
    pub port_to: u16,
    /// Letters of SFRPAU, as tcpdump prints them (A for the dot).
    pub flags: String,
    pub ttl: u8,
    /// IPv4's.
    pub tos: u8,
    pub dont_fragment: bool,
    pub payload: String,
    /// How often it stands there.
    pub times: usize,
    /// UDP without a checksum.
    pub unsummed: bool,
    /// The IPv4 checksum is off by one.
    pub damaged: bool,
    /// IPv4 options in hexadecimal digits, a multiple of four bytes.
    pub options: String,
    /// IPv6 extension headers, in order: which, and its length in units of eight bytes, the first not
    /// counted. 44 is the fragment header, which else comes last where there is one.
    pub extensions: Vec<(u8, u8)>,
    /// In a routing header.
    pub segments_left: u8,
    /// The fragment's offset in units of eight bytes.
    pub fragment: Option<u16>,
    pub more_fragments: bool,
    /// IPv4's, and that of IPv6's fragment header.
    pub identification: u16,
    /// Instead of the right ones.
    pub version: Option<u8>,
    pub ihl: Option<u8>,
    pub data_offset: Option<u8>,
    pub total_length: Option<u16>,
    pub protocol: u8,
    pub ethertype: Option<u16>,
    pub icmp: u8,
    /// Of an ICMP message, and the four bytes behind its checksum.
    pub code: u8,
    pub rest: u32,
    pub quote: Option<Box<Frame>>,
    /// 1 is a request.
    pub operation: u16,
    pub sender: String,
    pub target: String,
    /// Bytes that are others than they ought to be: at this offset, this value.
    pub replaced: Vec<(usize, u8)>,
    /// Only so many bytes arrive.
    pub cut: Option<usize>,
}

impl Default for Frame {
    fn default() -> Self {
        Self {
            kind: Kind::Tcp,
            family: 4,
            mac_to: "master1".to_owned(),
            mac_from: "client".to_owned(),
            vlan: Vec::new(),
            from: "client".to_owned(),
            to: "vip".to_owned(),
            port_from: 40000,
            port_to: 8443,
            flags: "S".to_owned(),
            ttl: 64,
            tos: 0,
            dont_fragment: false,
            payload: "an odd payload!".to_owned(),
            times: 1,
            unsummed: false,
            damaged: false,
            options: String::new(),
            extensions: Vec::new(),
            segments_left: 0,
            fragment: None,
            more_fragments: false,
            identification: 0x1234,
            version: None,
            ihl: None,
            data_offset: None,
            total_length: None,
            protocol: 0,
            ethertype: None,
            icmp: 3,
            code: 1,
            rest: 0,
            quote: None,
            operation: 1,
            sender: "client".to_owned(),
            target: "vip".to_owned(),
            replaced: Vec::new(),
            cut: None,
        }
    }
}

impl Frame {
    /// Its bytes, from the destination's MAC to the end of the payload.
    ///
    /// # Errors
    /// Where a name, an option or a quotation is missing or wrong.
    pub fn bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        bytes.extend(names::mac(&self.mac_to)?);
        bytes.extend(names::mac(&self.mac_from)?);
        for (at, tag) in self.vlan.iter().enumerate() {
            let outer = at + 1 < self.vlan.len();
            bytes.extend(if outer { [0x88, 0xa8] } else { [0x81, 0x00] });
            bytes.extend(tag.to_be_bytes());
        }
        let (ethertype, packet) = match self.kind {
            Kind::Arp => (0x0806, self.arp()?),
            Kind::Raw => (0x88cc, self.payload()),
            _ if self.family == 4 => (0x0800, self.packet()?),
            _ => (0x86dd, self.packet()?),
        };
        bytes.extend(self.ethertype.unwrap_or(ethertype).to_be_bytes());
        bytes.extend(packet);
        for (at, value) in &self.replaced {
            let length = bytes.len();
            let byte = bytes.get_mut(*at);
            *byte.with_context(|| format!("replaced byte {at}, but the frame has {length}"))? =
                *value;
        }
        if let Some(length) = self.cut {
            ensure!(length <= bytes.len(), "cut = {length}, but the frame has {}", bytes.len());
            bytes.truncate(length);
        }
        Ok(bytes)
    }

    /// The fields that are not the usual ones, as a fixture writes them.
    pub fn fields(&self) -> toml::Table {
        let table = |frame: &Self| toml::Table::try_from(frame).unwrap_or_default();
        let usual = table(&Self::default());
        let mut fields = table(self);
        fields.retain(|name, value| usual.get(name) != Some(value));
        if let Some(quoted) = &self.quote {
            fields.insert("quote".to_owned(), quoted.fields().into());
        }
        fields
    }

    fn payload(&self) -> Vec<u8> {
        self.payload.repeat(self.times).into_bytes()
    }

    /// From the IP header on.
    fn packet(&self) -> Result<Vec<u8>> {
        let from = names::address(&self.from, self.family)?;
        let to = names::address(&self.to, self.family)?;
        let (protocol, body) = match self.kind {
            Kind::Tcp => (6, self.tcp()?),
            Kind::Udp => (17, self.udp()),
            Kind::Icmp => (if self.family == 4 { 1 } else { 58 }, self.icmp_message()?),
            Kind::Nd => (58, self.nd()?),
            Kind::Other => (self.protocol, self.payload()),
            Kind::Arp | Kind::Raw => bail!("{:?} is no IP packet", self.kind),
        };
        let body = self.summed(protocol, body, from, to);
        match (from, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => self.ipv4(protocol, &body, from, to),
            (IpAddr::V6(from), IpAddr::V6(to)) => Ok(self.ipv6(protocol, &body, from, to)),
            _ => bail!("{} and {} are of different families", self.from, self.to),
        }
    }

    /// Fills in the transport's checksum.
    fn summed(&self, protocol: u8, mut body: Vec<u8>, from: IpAddr, to: IpAddr) -> Vec<u8> {
        let at = match protocol {
            // Behind a packet's first fragment there is none.
            _ if self.fragment.is_some_and(|offset| offset != 0) => return body,
            6 => 16,
            17 if self.unsummed => return body,
            17 => 6,
            1 | 58 => 2,
            _ => return body,
        };
        if body.len() < at + 2 {
            return body;
        }
        let mut sum = if protocol == 1 {
            checksum::of(&[&body])
        } else {
            checksum::of(&[&checksum::pseudo_header(from, to, protocol, body.len()), &body])
        };
        if protocol == 17 && sum == 0 {
            sum = 0xffff;
        }
        body[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        body
    }

    fn ipv4(
        &self,
        protocol: u8,
        body: &[u8],
        from: std::net::Ipv4Addr,
        to: std::net::Ipv4Addr,
    ) -> Result<Vec<u8>> {
        let options = hexadecimal(&self.options)?;
        ensure!(options.len().is_multiple_of(4), "IPv4 options come in units of four bytes");
        let length = 20 + options.len();
        let words = self.ihl.unwrap_or((length / 4) as u8);
        let total = self.total_length.unwrap_or((length + body.len()) as u16);
        let flags = u16::from(self.dont_fragment) << 1 | u16::from(self.more_fragments);
        let fragment = self.fragment.unwrap_or(0) | flags << 13;
        let mut header = vec![self.version.unwrap_or(4) << 4 | words, self.tos];
        header.extend(total.to_be_bytes());
        header.extend(self.identification.to_be_bytes());
        header.extend(fragment.to_be_bytes());
        header.extend([self.ttl, protocol, 0, 0]);
        header.extend(from.octets());
        header.extend(to.octets());
        header.extend(options);
        let sum = checksum::of(&[&header]).wrapping_add(u16::from(self.damaged));
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        header.extend(body);
        Ok(header)
    }

    fn ipv6(
        &self,
        protocol: u8,
        body: &[u8],
        from: std::net::Ipv6Addr,
        to: std::net::Ipv6Addr,
    ) -> Vec<u8> {
        let mut kinds = self.extensions.clone();
        if self.fragment.is_some() && !kinds.iter().any(|(kind, _)| *kind == FRAGMENT) {
            kinds.push((FRAGMENT, 0));
        }
        let mut extension = Vec::new();
        let mut next = protocol;
        for (kind, length) in kinds.into_iter().rev() {
            extension.splice(0..0, self.extension(kind, length, next));
            next = kind;
        }
        let length = self.total_length.unwrap_or((extension.len() + body.len()) as u16);
        let mut header = vec![self.version.unwrap_or(6) << 4, 0, 0, 0];
        header.extend(length.to_be_bytes());
        header.extend([next, self.ttl]);
        header.extend(from.octets());
        header.extend(to.octets());
        header.extend(extension);
        header.extend(body);
        header
    }

    /// An IPv6 extension header before `next`.
    fn extension(&self, kind: u8, length: u8, next: u8) -> Vec<u8> {
        let mut header = vec![next, length];
        match kind {
            FRAGMENT => {
                let offset = self.fragment.unwrap_or(0) << 3 | u16::from(self.more_fragments);
                header = vec![next, 0];
                header.extend(offset.to_be_bytes());
                header.extend(u32::from(self.identification).to_be_bytes());
                return header;
            }
            ROUTING => header.extend([4, self.segments_left]),
            // Padding: PadN with so many bytes, then Pad1.
            _ => header.extend([1, 4]),
        }
        header.resize((usize::from(length) + 1) * 8, 0);
        header
    }

    fn tcp(&self) -> Result<Vec<u8>> {
        let mut flags = 0;
        for letter in self.flags.chars() {
            let bit = "FSRPAU".find(letter).with_context(|| format!("no TCP flag {letter}"))?;
            flags |= 1 << bit;
        }
        let mut header = Vec::new();
        header.extend(self.port_from.to_be_bytes());
        header.extend(self.port_to.to_be_bytes());
        header.extend(0x0102_0304u32.to_be_bytes());
        header.extend(0x0506_0708u32.to_be_bytes());
        header.extend([self.data_offset.unwrap_or(5) << 4, flags, 0xfa, 0xf0, 0, 0, 0, 0]);
        header.extend(self.payload());
        Ok(header)
    }

    fn udp(&self) -> Vec<u8> {
        let mut header = Vec::new();
        header.extend(self.port_from.to_be_bytes());
        header.extend(self.port_to.to_be_bytes());
        header.extend(((8 + self.payload().len()) as u16).to_be_bytes());
        header.extend([0, 0]);
        header.extend(self.payload());
        header
    }

    /// The quotation is the packet's headers and the first bytes behind them.
    fn icmp_message(&self) -> Result<Vec<u8>> {
        let mut message = vec![self.icmp, self.code, 0, 0];
        message.extend(self.rest.to_be_bytes());
        match &self.quote {
            Some(quoted) => message.extend(quoted.packet()?),
            None => message.extend(self.payload()),
        }
        Ok(message)
    }

    fn nd(&self) -> Result<Vec<u8>> {
        let IpAddr::V6(target) = names::address(&self.target, 6)? else {
            bail!("{} is no IPv6 address", self.target)
        };
        let mut message = vec![self.icmp, 0, 0, 0, 0, 0, 0, 0];
        message.extend(target.octets());
        message.extend([1, 1]);
        message.extend(names::mac(&self.mac_from)?);
        Ok(message)
    }

    fn arp(&self) -> Result<Vec<u8>> {
        let mut message = vec![0, 1, 8, 0, 6, 4];
        message.extend(self.operation.to_be_bytes());
        let sides: [(Mac, &str); 2] =
            [(names::mac(&self.mac_from)?, &self.sender), ([0; 6], &self.target)];
        for (mac, name) in sides {
            let IpAddr::V4(address) = names::address(name, 4)? else {
                bail!("{name} is no IPv4 address")
            };
            message.extend(mac);
            message.extend(address.octets());
        }
        Ok(message)
    }
}

fn hexadecimal(text: &str) -> Result<Vec<u8>> {
    let digits: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16))
        .collect::<Result<_, _>>()
        .with_context(|| format!("{text} are no hexadecimal digits"))
}
