//! What must hold of a frame whatever it is: what is not ours is neither changed nor dropped, what is
//! sent on goes to whom it may go, is as long as before, has a lower TTL and no checksum that is wrong
//! where none was, and nothing else of it changed. Pure.
//!
//! Why a frame gets the verdict that it gets is for the fixtures and the model to say.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use lb_common::backend::Delivery;

use super::setting::{BACKEND_PORT, BACKENDS, Mac, NODE, PORT, Setting, VIP};
use super::story::End;
use super::wire::{self, Content, Ip, Piece, Tuple};

/// What does not hold, with the frame before and after.
#[derive(Debug)]
pub struct Wrong {
    what: String,
    before: Vec<u8>,
    after: Vec<u8>,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hexadecimal =
            |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
        let (before, after) = (hexadecimal(&self.before), hexadecimal(&self.after));
        write!(f, "{}\n  came {before}\n  is   {after}", self.what)
    }
}

/// Whose a NAT flow is.
struct Flow {
    /// From the client to the VIP.
    client: Tuple,
    /// The sender of its first packet; more where that is not certain.
    macs: Vec<Mac>,
    /// A packet of the client's did not go its way since: the flow may be over.
    doubtful: bool,
}

pub struct Judge<'s> {
    setting: &'s Setting,
    /// By the tuple of the backend's replies.
    flows: HashMap<Tuple, Flow>,
    /// What the clients of UDP sockets here asked, by the tuple of the sockets' replies.
    asked: HashMap<Tuple, SocketAddr>,
    /// How first fragments went on that were changed: the MAC that they are to, and their addresses.
    firsts: HashMap<(Hook, Piece), (Mac, IpAddr, IpAddr)>,
}

/// Where a frame is changed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Hook {
    Steering,
    Delivery,
    Leaving,
}

type Verdict = Result<(), String>;

fn must(holds: bool, what: &str) -> Verdict {
    if holds { Ok(()) } else { Err(what.to_owned()) }
}

impl<'s> Judge<'s> {
    pub fn new(setting: &'s Setting) -> Self {
        Self { setting, flows: HashMap::new(), asked: HashMap::new(), firsts: HashMap::new() }
    }

    /// A frame that came in and was steered.
    ///
    /// # Errors
    /// With what must not be.
    pub fn steered(
        &mut self,
        before: &[u8],
        after: &[u8],
        end: End,
        open: bool,
    ) -> Result<(), Wrong> {
        let verdict = match end {
            // A datagram that stays is addressed to its socket at once; `delivered` looks at it.
            End::Passed => {
                must(before == after || self.setting.stays, "it was passed and is changed")
            }
            End::Dropped => self.dropped(before),
            End::Sent => self.sent(before, after, open),
        };
        if end != End::Sent
            && let Content::Ip(ip) = wire::read(before)
            && let Some(tuple) = ip.tuple(before)
        {
            self.doubt(tuple);
        }
        verdict.map_err(|what| wrong(what, before, after))
    }

    /// The flows of this client may be over.
    fn doubt(&mut self, client: Tuple) {
        let flows = self.flows.values_mut().filter(|flow| flow.client == client);
        flows.for_each(|flow| flow.doubtful = true);
    }

    /// A frame that steering passed, after delivery. `open`: it was changed while its checksum was open.
    ///
    /// # Errors
    /// With what must not be.
    pub fn delivered(&mut self, before: &[u8], after: &[u8], open: bool) -> Result<(), Wrong> {
        if before == after {
            return Ok(());
        }
        self.handed_over(before, after, open).map_err(|what| wrong(what, before, after))
    }

    /// A frame of this node that was about to leave.
    ///
    /// # Errors
    /// With what must not be.
    pub fn left(&mut self, before: &[u8], after: &[u8], end: End) -> Result<(), Wrong> {
        let verdict = match end {
            End::Sent => Err("the guard sent something itself".to_owned()),
            End::Dropped => self.claims_the_vip(before),
            End::Passed if before == after => Ok(()),
            End::Passed => self.corrected(before, after),
        };
        verdict.map_err(|what| wrong(what, before, after))
    }

    fn dropped(&self, before: &[u8]) -> Verdict {
        match wire::read(before) {
            Content::Ip(ip) if VIP.has(ip.to) => Ok(()),
            Content::Ip(ip) => {
                must(
                    solicited(before, &ip).is_some_and(|t| VIP.has(t)),
                    "what is not ours is gone",
                )?;
                must(!self.setting.lease, "a solicitation for a VIP that is held is gone")
            }
            Content::Arp(at) => {
                let target = wire::address(before, at + 24, 4);
                must(target.is_some_and(|t| VIP.has(t)), "ARP that is not about a VIP is gone")?;
                must(!self.setting.lease, "ARP for a VIP that is held is gone")
            }
            Content::Other => Err("what is neither ARP nor IP is gone".to_owned()),
        }
    }

    fn sent(&mut self, before: &[u8], after: &[u8], open: bool) -> Verdict {
        let Content::Ip(ip) = wire::read(before) else {
            return Err("what is no IP packet was sent on".to_owned());
        };
        must(VIP.has(ip.to), "what is for no VIP was sent on")?;
        must(ip.sound, "a header that nobody can read was sent on")?;
        must(before[..6] == NODE.mac, "what another machine was to get was sent on")?;
        must(after.get(6..12) == Some(&NODE.mac), "it does not come from this node's MAC")?;
        if ip.ttl <= 1 {
            return answered(before, after, &ip);
        }
        if let Some(quoted) = wire::quoted(before, &ip)
            && before[ip.addresses()] != after[ip.addresses()]
        {
            return self.error_translated(before, after, &ip, &quoted);
        }
        let new = alike(before, after, &ip)?;
        must(new.ttl < ip.ttl && new.ttl > 0, "its TTL did not go down, or to nothing")?;
        sums(before, after, &ip, &new, open)?;
        if ip.follows {
            return self.follows(Hook::Steering, after, &ip, &new);
        }
        if before[ip.addresses()] == after[ip.addresses()] && ip.tuple(before) == new.tuple(after) {
            self.carried(after)?;
            // Its connection id may name another backend than the flow's, which ends that.
            if let (true, Some(tuple)) = (self.setting.stays, ip.tuple(before)) {
                self.doubt(tuple);
            }
        } else {
            self.translated(before, after, &ip, &new)?;
        }
        self.led(Hook::Steering, after, &ip, &new);
        Ok(())
    }

    /// Remembers how a first fragment went on.
    fn led(&mut self, hook: Hook, after: &[u8], ip: &Ip, new: &Ip) {
        if let (false, Some(mac)) = (ip.whole, after.first_chunk()) {
            self.firsts.insert((hook, ip.piece()), (*mac, new.from, new.to));
        }
    }

    /// A following fragment goes where the first went.
    fn follows(&self, hook: Hook, after: &[u8], ip: &Ip, new: &Ip) -> Verdict {
        let first = self.firsts.get(&(hook, ip.piece()));
        let (mac, from, to) = first.ok_or("a fragment whose first one was not changed was")?;
        must((new.from, new.to) == (*from, *to), "a fragment has other addresses than the first")?;
        // Only steering says where a frame goes; elsewhere both keep what they came with.
        let same = hook != Hook::Steering || after[..6] == *mac;
        must(same, "a fragment goes to another MAC than the first")
    }

    fn carried(&self, after: &[u8]) -> Verdict {
        let to = |machine: Mac| after[..6] == machine;
        let mut direct = self.setting.backends.iter().filter(|b| b.delivery == Delivery::Direct);
        must(direct.any(|backend| to(backend.machine.mac)), "it was carried to no node")
    }

    fn translated(&mut self, before: &[u8], after: &[u8], ip: &Ip, new: &Ip) -> Verdict {
        let none = || "what has no ports was translated".to_owned();
        let was = ip.tuple(before).ok_or_else(none)?;
        let is = new.tuple(after).ok_or_else(none)?;
        if self.setting.is_nat_port(was.to.port()) {
            let flow = self.flows.get(&was).ok_or("a reply without a flow was translated")?;
            must(is == flow.client.turned(), "a reply goes to another client")?;
            let known = flow.macs.iter().any(|mac| after[..6] == *mac);
            return must(known, "a reply goes to another MAC");
        }
        must(was.to.port() == PORT, "what is for no service was translated")?;
        must(is.from.ip() == was.to.ip(), "its source is not the VIP")?;
        must(self.setting.is_nat_port(is.from.port()), "its port is not one of NAT's")?;
        let mut nat = self.setting.backends.iter().filter(|b| b.delivery == Delivery::Nat);
        let backend = nat.find(|backend| backend.machine.has(is.to.ip()));
        let backend = backend.ok_or("it was translated for no backend")?;
        must(is.to.port() == BACKEND_PORT, "it goes to another port of its backend")?;
        must(after[..6] == backend.machine.mac, "it goes to another MAC than its backend's")?;
        let mac = *before[6..].first_chunk().ok_or("a frame without a sender")?;
        // A connection from an old port goes elsewhere once its backend takes no more.
        self.flows.retain(|reply, flow| flow.client != was || *reply == is.turned());
        let former = self.flows.remove(&is.turned());
        let alone = former.as_ref().is_none_or(|flow| flow.client == was || flow.doubtful);
        let macs = match former {
            Some(flow) if flow.client == was && !flow.doubtful => flow.macs,
            Some(flow) if flow.client == was => [flow.macs, vec![mac]].concat(),
            _ => vec![mac],
        };
        self.flows.insert(is.turned(), Flow { client: was, macs, doubtful: false });
        must(alone, "two clients share a port towards one backend")
    }

    /// An ICMP error about a packet of a flow goes to whom sent that, as if from the VIP, and quotes what
    /// was sent.
    fn error_translated(&self, before: &[u8], after: &[u8], ip: &Ip, was: &Ip) -> Verdict {
        let new = like_an_error(before, after, ip, was)?;
        must(new.ttl < ip.ttl && new.ttl > 0, "its TTL did not go down, or to nothing")?;
        must(new.from == ip.to, "an error does not come from the VIP")?;
        sound(before, after)?;
        let none = || "an error that quotes no ports was translated".to_owned();
        let quoted = was.tuple(before).ok_or_else(none)?.turned();
        let is = wire::quoted(after, &new).and_then(|is| is.tuple(after)).ok_or_else(none)?;
        must(new.to == is.from.ip(), "an error is not to whom sent the packet that it quotes")?;
        let to = |mac: &Mac| after[..6] == *mac;
        if let Some(flow) = self.flows.get(&quoted) {
            must(is == flow.client, "an error quotes another client's packet")?;
            return must(flow.macs.iter().any(to), "an error goes to another MAC");
        }
        let mut flows = self.flows.iter().filter(|(_, flow)| flow.client == quoted);
        let (reply, _) = flows.next().ok_or("an error about no flow was translated")?;
        must(is == *reply, "an error quotes another backend's packet")?;
        let mut backends = self.setting.backends.iter();
        let backend = backends.find(|backend| backend.machine.has(is.from.ip()));
        must(
            backend.is_some_and(|backend| to(&backend.machine.mac)),
            "an error goes to another MAC",
        )
    }

    fn handed_over(&mut self, before: &[u8], after: &[u8], open: bool) -> Verdict {
        let Content::Ip(ip) = wire::read(before) else {
            return Err("what is no IP packet was changed for a socket".to_owned());
        };
        must(VIP.has(ip.to) && ip.sound, "what is for no VIP was changed for a socket")?;
        // IPv6's following fragments need not say what they are of.
        let datagram = ip.protocol == wire::UDP || ip.follows && !ip.v4;
        must(datagram, "what is no datagram was changed for a socket")?;
        must(before[..12] == after[..12], "its MACs changed")?;
        let new = alike(before, after, &ip)?;
        must(new.ttl == ip.ttl, "its TTL changed on the way to a socket")?;
        sums(before, after, &ip, &new, open)?;
        if ip.follows {
            return self.follows(Hook::Delivery, after, &ip, &new);
        }
        let (Some(was), Some(is)) = (ip.tuple(before), new.tuple(after)) else {
            return Err("a datagram without ports was changed".to_owned());
        };
        must(is.from == was.from, "its source changed on the way to a socket")?;
        must(was.to.port() == PORT, "what is for no service was changed for a socket")?;
        let socket = BACKENDS.iter().any(|m| m.has(is.to.ip())) && is.to.port() == BACKEND_PORT;
        must(socket && self.setting.listening, "it goes to no socket")?;
        self.asked.insert(is.turned(), was.to);
        self.led(Hook::Delivery, after, &ip, &new);
        Ok(())
    }

    fn claims_the_vip(&self, before: &[u8]) -> Verdict {
        must(!self.setting.lease, "the node holds the VIP and may not say so")?;
        let about = match wire::read(before) {
            Content::Arp(at) => wire::address(before, at + 14, 4),
            Content::Ip(ip) if before.get(ip.transport) == Some(&136) => solicited(before, &ip),
            Content::Ip(ip) => solicited(before, &ip).map(|_| ip.from),
            Content::Other => None,
        };
        must(about.is_some_and(|address| VIP.has(address)), "what claims no VIP may not leave")
    }

    fn corrected(&mut self, before: &[u8], after: &[u8]) -> Verdict {
        let ip = match wire::read(before) {
            Content::Ip(ip) => ip,
            Content::Other => return Err("what is neither ARP nor IP was changed".to_owned()),
            Content::Arp(at) => {
                let sender = wire::address(before, at + 14, 4);
                must(sender.is_some_and(|s| VIP.has(s)), "ARP that names no VIP was changed")?;
                must(!self.setting.lease, "ARP of a VIP that is held was changed")?;
                let IpAddr::V4(own) = NODE.address(4) else { return Err("no IPv4".to_owned()) };
                let mut expected = before.to_vec();
                expected[at + 14..at + 18].copy_from_slice(&own.octets());
                return must(expected == after, "more of ARP changed than its sender");
            }
        };
        must(before[..12] == after[..12], "its MACs changed")?;
        let new = alike(before, after, &ip)?;
        must(new.ttl == ip.ttl, "its TTL changed on the way out")?;
        sums(before, after, &ip, &new, false)?;
        if ip.follows {
            return self.follows(Hook::Leaving, after, &ip, &new);
        }
        let was = ip.tuple(before).ok_or("what has no ports was changed")?;
        let asked = self.asked.get(&was).ok_or("what answers nobody was changed")?;
        let expected = Tuple { from: *asked, ..was };
        must(new.tuple(after) == Some(expected), "an answer comes from where nobody asked")?;
        self.led(Hook::Leaving, after, &ip, &new);
        Ok(())
    }
}

fn wrong(what: String, before: &[u8], after: &[u8]) -> Wrong {
    Wrong { what, before: before.to_vec(), after: after.to_vec() }
}

/// What has no hop left is answered, if it goes anywhere: by this node's own address, to its sender, with a
/// time-exceeded that quotes it and is in order.
fn answered(before: &[u8], after: &[u8], ip: &Ip) -> Verdict {
    let Content::Ip(new) = wire::read(after) else {
        return Err("what has no hop left was sent on".to_owned());
    };
    let (protocol, kind) = if ip.v4 { (wire::ICMP, 11) } else { (wire::ICMPV6, 3) };
    let is = new.protocol == protocol && after.get(new.transport) == Some(&kind);
    must(is, "what has no hop left was sent on")?;
    must(after[..6] == before[6..12], "an answer goes to another MAC than the sender's")?;
    must(after[12..ip.at] == before[12..ip.at], "an answer has another link header")?;
    must(new.from == NODE.address(if ip.v4 { 4 } else { 6 }), "an answer is from elsewhere")?;
    must(new.to == ip.from, "an answer is to somebody else")?;
    let quoted = after.get(new.transport + 8..).unwrap_or_default();
    must(before[ip.at..].starts_with(quoted), "an answer does not quote what it answers")?;
    wire::verify(after).map_err(|what| format!("an answer is not in order: {what}"))
}

/// The target of a neighbour solicitation or advertisement.
fn solicited(frame: &[u8], ip: &Ip) -> Option<IpAddr> {
    let is = !ip.v4 && ip.protocol == wire::ICMPV6;
    let kind = frame.get(ip.transport).filter(|_| is)?;
    matches!(kind, 135 | 136).then(|| wire::address(frame, ip.transport + 8, 6)).flatten()
}

/// Whether nothing changed but what may: MACs, TTL, addresses, ports, checksums. The new header.
fn alike(before: &[u8], after: &[u8], ip: &Ip) -> Result<Ip, String> {
    must(before.len() == after.len(), "its length changed")?;
    let Content::Ip(new) = wire::read(after) else {
        return Err("it is no IP packet any more".to_owned());
    };
    let mut may_differ = vec![0..12, ip.ttl_at()..ip.ttl_at() + 1, ip.addresses()];
    if ip.v4 {
        may_differ.push(ip.at + 10..ip.at + 12);
    }
    if let Some(at) = ip.checksum_at() {
        may_differ.extend([ip.transport..ip.transport + 4, at..at + 2]);
    }
    let expected = with(before, after, may_differ);
    must(expected == after, "more of it changed than its tuple, TTL and checksums")?;
    Ok(new)
}

/// As `alike`, for an ICMP error with what it quotes.
fn like_an_error(before: &[u8], after: &[u8], ip: &Ip, quoted: &Ip) -> Result<Ip, String> {
    must(before.len() == after.len(), "its length changed")?;
    let Content::Ip(new) = wire::read(after) else {
        return Err("it is no IP packet any more".to_owned());
    };
    let mut may_differ = vec![0..12, ip.ttl_at()..ip.ttl_at() + 1];
    may_differ.push(ip.transport + 2..ip.transport + 4);
    for header in [ip, quoted] {
        may_differ.push(header.addresses());
        if header.v4 {
            may_differ.push(header.at + 10..header.at + 12);
        }
    }
    if let Some(at) = quoted.checksum_at() {
        may_differ.extend([quoted.transport..quoted.transport + 4, at..at + 2]);
    }
    let expected = with(before, after, may_differ);
    must(expected == after, "more of an error changed than addresses, ports, TTL and checksums")?;
    Ok(new)
}

/// The frame with these parts of another one.
fn with(frame: &[u8], other: &[u8], parts: Vec<std::ops::Range<usize>>) -> Vec<u8> {
    let mut frame = frame.to_vec();
    for part in parts {
        if let Some(new) = other.get(part.clone()) {
            frame[part].copy_from_slice(new);
        }
    }
    frame
}

/// Checksums: what was right is right, and what was wrong is as wrong as before, so that nobody takes
/// a frame for sound that was damaged on its way here.
fn sums(before: &[u8], after: &[u8], ip: &Ip, new: &Ip, open: bool) -> Verdict {
    if ip.v4 {
        let header = |frame: &[u8]| wire::sum(frame.get(ip.at..ip.transport).unwrap_or_default());
        must(same(header(before), header(after)), "its IPv4 checksum is not that of the change")?;
    }
    let Some(at) = ip.checksum_at() else { return sound(before, after) };
    let (Some(was), Some(is)) = (wire::word(before, at), wire::word(after, at)) else {
        return sound(before, after);
    };
    let ends = |frame: &[u8], ip: &Ip| wire::sum(frame.get(ip.addresses()).unwrap_or_default());
    if ip.protocol == wire::UDP && was == 0 {
        must(is == 0, "a datagram without a checksum got one")?;
        return sound(before, after);
    }
    if open {
        // The field holds the pseudo-header's sum, and the card adds the rest.
        let (was, is) = (u32::from(was), u32::from(is));
        let moved = same(was + ends(after, new), is + ends(before, ip));
        return must(moved, "the sum that its card completes is not that of its addresses");
    }
    must(ip.protocol != wire::UDP || is != 0, "a datagram lost its checksum")?;
    let ports = ip.transport..ip.transport + 4;
    let ports = |frame: &[u8]| wire::sum(frame.get(ports.clone()).unwrap_or_default());
    let covered = |frame, ip, sum: u16| ends(frame, ip) + ports(frame) + u32::from(sum);
    let kept = same(covered(before, ip, was), covered(after, new, is));
    must(kept, "the checksum of TCP or UDP is not that of the change")?;
    sound(before, after)
}

fn sound(before: &[u8], after: &[u8]) -> Verdict {
    match (wire::verify(before), wire::verify(after)) {
        (Ok(()), Err(what)) => Err(format!("it came in order, and {what}")),
        _ => Ok(()),
    }
}

/// Whether two sums of one's complement are the same: 0 and 0xffff are.
const fn same(a: u32, b: u32) -> bool {
    a % 0xffff == b % 0xffff
}
