//! The programs on interfaces: XDP, tc ingress, tc egress.

#![expect(unsafe_code, reason = "link sections, the redirect helper")]

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_REDIRECT, XDP_TX};
use aya_ebpf::helpers::generated::bpf_redirect;
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use lb_common::Address;
use lb_common::counter::{Outcome, Verdict};
use lb_common::layout::stage;
use lb_ebpf::answer::{QUOTED, answer};
use lb_ebpf::cookie;
use lb_ebpf::deep::DEPTH;
use lb_ebpf::deliver::{deliver, deliver_rare};
use lb_ebpf::egress::{Leaving, is_dropped, leave, leave_rare};
use lb_ebpf::environment::{Frame, Node};
use lb_ebpf::parse::{Parsed, parse, parse_network};
use lb_ebpf::rare::{Rare, steer_deep, steer_rare};
use lb_ebpf::stay::steer_datagram;
use lb_ebpf::steer::{Steered, steer};
use lb_ebpf::virtual_mac;

use crate::kernel::maps::{self, TC_STAGES, XDP_STAGES, go_on};
use crate::kernel::memory::{SkbFrame, XdpFrame};
use crate::kernel::node::Kernel;

// include/uapi/linux/pkt_cls.h. "Unspecified" leaves the frame to whoever comes next.
const TC_ACT_UNSPEC: i32 = -1;
const TC_ACT_SHOT: i32 = 2;
const TC_ACT_REDIRECT: i32 = 7;

/// Steers at XDP.
#[xdp(frags)]
#[inline(always)]
pub(crate) fn lb_xdp(context: XdpContext) -> u32 {
    let node = Kernel::new(&context.ctx);
    let mut frame = XdpFrame { context: context.ctx };
    let steered = steer(&mut frame, &node);
    if let Some(stage) = steered.stage() {
        go_on(&XDP_STAGES, &context, stage);
    }
    if let Some(mtu) = steered.answered() {
        maps::leave_mtu(mtu);
        go_on(&XDP_STAGES, &context, stage::ANSWER);
    }
    answer_xdp(&frame, &node, steered)
}

/// Goes on at XDP with a frame that `lb_xdp` left to it.
#[xdp(frags)]
#[inline(always)]
pub(crate) fn lb_xdp_rare(context: XdpContext) -> u32 {
    let node = Kernel::new(&context.ctx);
    let mut frame = XdpFrame { context: context.ctx };
    let steered = match steer_rare(&mut frame, &node) {
        Rare::Steered(steered) => steered,
        Rare::Deep(packet) => {
            maps::leave_deep(&packet);
            go_on(&XDP_STAGES, &context, stage::DEEP);
            Steered::here(Verdict::Inconsistent)
        }
    };
    answer_xdp(&frame, &node, steered)
}

/// Goes on at XDP with a packet that `lb_xdp_rare` left to it.
#[xdp(frags)]
#[inline(always)]
pub(crate) fn lb_xdp_deep(context: XdpContext) -> u32 {
    let node = Kernel::new(&context.ctx);
    let mut frame = XdpFrame { context: context.ctx };
    let steered = match maps::deep() {
        Some(packet) => steer_deep(&mut frame, &node, packet),
        None => Steered::here(Verdict::Inconsistent),
    };
    if let Some(stage) = steered.stage() {
        go_on(&XDP_STAGES, &context, stage);
    }
    answer_xdp(&frame, &node, steered)
}

/// Goes on at XDP with a datagram that `lb_xdp` or `lb_xdp_deep` left to it.
#[xdp(frags)]
#[inline(always)]
pub(crate) fn lb_xdp_stay(context: XdpContext) -> u32 {
    let node = Kernel::new(&context.ctx);
    let mut frame = XdpFrame { context: context.ctx };
    let steered = steer_datagram(&mut frame, &node, maps::deep());
    if let Some(mtu) = steered.answered() {
        maps::leave_mtu(mtu);
        go_on(&XDP_STAGES, &context, stage::ANSWER);
    }
    answer_xdp(&frame, &node, steered)
}

/// Answers at XDP what `lb_xdp` lets go no further.
#[xdp(frags)]
#[inline(always)]
pub(crate) fn lb_xdp_answer(context: XdpContext) -> u32 {
    let node = Kernel::new(&context.ctx);
    let mut frame = XdpFrame { context: context.ctx };
    let mtu = maps::deep().map_or(0, |packet| packet.id);
    let steered = answer(&mut frame, &node, mtu).unwrap_or_else(|| unanswered(mtu));
    answer_xdp(&frame, &node, steered)
}

#[inline(always)]
const fn unanswered(mtu: u32) -> Steered {
    Steered::here(if mtu == 0 { Verdict::TtlExceeded } else { Verdict::TooBig })
}

/// Answers at XDP a SYN that `lb_xdp` left to it. tc has no such program: there the stack has the SYN
/// anyway, and answers by a cookie itself.
#[xdp(frags)]
#[inline(always)]
pub(crate) fn lb_xdp_cookie(context: XdpContext) -> u32 {
    let node = Kernel::new(&context.ctx);
    let mut frame = XdpFrame { context: context.ctx };
    let steered = cookie::answer(&mut frame, &node);
    answer_xdp(&frame, &node, steered)
}

#[inline(always)]
fn answer_xdp(frame: &XdpFrame, node: &impl Node, steered: Steered) -> u32 {
    node.count(steered.verdict);
    match steered.verdict.outcome() {
        Outcome::Forward if steered.interface == frame.interface_index() => XDP_TX,
        Outcome::Forward => redirect(steered) as u32,
        Outcome::Drop => XDP_DROP,
        _ => XDP_PASS,
    }
}

/// Steers at tc ingress, where XDP is not to be had. `lb_tc_deliver` comes after it.
#[classifier]
#[inline(always)]
pub(crate) fn lb_tc_steer(context: TcContext) -> i32 {
    let raw = context.skb.skb;
    let node = Kernel::new(&raw);
    let mut frame = SkbFrame::new(raw);
    let steered = steer(&mut frame, &node);
    if let Some(stage) = steered.stage() {
        go_on(&TC_STAGES, &context, stage);
    }
    if let Some(mtu) = steered.answered() {
        maps::leave_mtu(mtu);
        go_on(&TC_STAGES, &context, stage::ANSWER);
    }
    answer_tc(&node, steered)
}

/// Goes on at tc ingress with a frame that `lb_tc_steer` left to it.
#[classifier]
#[inline(always)]
pub(crate) fn lb_tc_rare(context: TcContext) -> i32 {
    let raw = context.skb.skb;
    let node = Kernel::new(&raw);
    let mut frame = SkbFrame::reaching(raw, DEPTH);
    let steered = match steer_rare(&mut frame, &node) {
        Rare::Steered(steered) => steered,
        Rare::Deep(packet) => {
            maps::leave_deep(&packet);
            go_on(&TC_STAGES, &context, stage::DEEP);
            Steered::here(Verdict::Inconsistent)
        }
    };
    answer_tc(&node, steered)
}

/// Goes on at tc ingress with a packet that `lb_tc_rare` left to it.
#[classifier]
#[inline(always)]
pub(crate) fn lb_tc_deep(context: TcContext) -> i32 {
    let raw = context.skb.skb;
    let node = Kernel::new(&raw);
    let mut frame = SkbFrame::reaching(raw, DEPTH);
    let steered = match maps::deep() {
        Some(packet) => steer_deep(&mut frame, &node, packet),
        None => Steered::here(Verdict::Inconsistent),
    };
    if let Some(stage) = steered.stage() {
        go_on(&TC_STAGES, &context, stage);
    }
    answer_tc(&node, steered)
}

/// Goes on at tc ingress with a datagram that `lb_tc_steer` or `lb_tc_deep` left to it.
#[classifier]
#[inline(always)]
pub(crate) fn lb_tc_stay(context: TcContext) -> i32 {
    let raw = context.skb.skb;
    let node = Kernel::new(&raw);
    let mut frame = SkbFrame::reaching(raw, DEPTH);
    let steered = steer_datagram(&mut frame, &node, maps::deep());
    if let Some(mtu) = steered.answered() {
        maps::leave_mtu(mtu);
        go_on(&TC_STAGES, &context, stage::ANSWER);
    }
    answer_tc(&node, steered)
}

/// Answers at tc ingress what `lb_tc_steer` lets go no further.
#[classifier]
#[inline(always)]
pub(crate) fn lb_tc_answer(context: TcContext) -> i32 {
    let raw = context.skb.skb;
    let node = Kernel::new(&raw);
    let mut frame = SkbFrame::reaching(raw, QUOTED);
    let mtu = maps::deep().map_or(0, |packet| packet.id);
    let steered = answer(&mut frame, &node, mtu).unwrap_or_else(|| unanswered(mtu));
    answer_tc(&node, steered)
}

#[inline(always)]
fn answer_tc(node: &impl Node, steered: Steered) -> i32 {
    node.count(steered.verdict);
    match steered.verdict.outcome() {
        Outcome::Forward => redirect(steered),
        Outcome::Drop => TC_ACT_SHOT,
        _ => TC_ACT_UNSPEC,
    }
}

/// Delivers at tc ingress what steering left here.
#[classifier]
#[inline(always)]
pub(crate) fn lb_tc_deliver(context: TcContext) -> i32 {
    let raw = context.skb.skb;
    let node = Kernel::new(&raw);
    let mut frame = SkbFrame::new(raw);
    if frame.is_another_host_s() {
        virtual_mac::recognise(&mut frame, &node);
    }
    let parsed = parse(&frame, |address| node.may_be_ours(address));
    hand_over(&context, frame, &node, parsed)
}

/// As `lb_tc_deliver`, behind generic XDP. The kernel copies most frames for it and forgets the
/// length of the link header on the way (`skb_pp_cow_data` does not copy `mac_len`; seen with
/// 6.18), so that tc finds the network header where it expects the link header.
#[classifier]
#[inline(always)]
pub(crate) fn lb_tc_deliver_g(context: TcContext) -> i32 {
    let raw = context.skb.skb;
    let node = Kernel::new(&raw);
    let frame = SkbFrame::new(raw);
    let parsed = parse_anywhere(&frame, &node);
    hand_over(&context, frame, &node, parsed)
}

/// Parses also where the link header is out of sight.
#[inline(always)]
fn parse_anywhere(frame: &SkbFrame, node: &impl Node) -> Parsed {
    let ours = |address: &Address| node.may_be_ours(address);
    if frame.has_link_header() {
        parse(frame, ours)
    } else {
        parse_network(frame, ours, 0, frame.protocol_be())
    }
}

/// Goes on with a frame that one of the two above left to it.
#[classifier]
#[inline(always)]
pub(crate) fn lb_tc_deliver_rare(context: TcContext) -> i32 {
    let raw = context.skb.skb;
    let node = Kernel::new(&raw);
    let mut frame = SkbFrame::reaching(raw, DEPTH);
    if let Parsed::Deep(network) = parse_anywhere(&frame, &node)
        && let Some(verdict) = deliver_rare(&mut frame, &node, network)
    {
        node.count(verdict);
    }
    TC_ACT_UNSPEC
}

#[inline(always)]
fn hand_over(
    context: &TcContext,
    mut frame: SkbFrame,
    node: &Kernel<'_, *mut aya_ebpf::bindings::__sk_buff>,
    parsed: Parsed,
) -> i32 {
    if let Parsed::Deep(_) = parsed {
        go_on(&TC_STAGES, context, stage::DELIVER_RARE);
    }
    if let Some(verdict) = deliver(&mut frame, node, parsed) {
        node.count(verdict);
    }
    TC_ACT_UNSPEC
}

/// Guards what leaves, at tc egress.
#[classifier]
#[inline(always)]
pub(crate) fn lb_tc_egress(context: TcContext) -> i32 {
    let raw = context.skb.skb;
    let node = Kernel::new(&raw);
    let mut frame = SkbFrame::new(raw);
    let verdict = match leave(&mut frame, &node) {
        Leaving::Untouched => return TC_ACT_UNSPEC,
        Leaving::Decided(verdict) => verdict,
        Leaving::Rare => {
            go_on(&TC_STAGES, &context, stage::EGRESS_RARE);
            Verdict::Inconsistent
        }
    };
    node.count(verdict);
    if is_dropped(verdict) { TC_ACT_SHOT } else { TC_ACT_UNSPEC }
}

/// Goes on with a frame that `lb_tc_egress` left to it.
#[classifier]
#[inline(always)]
pub(crate) fn lb_tc_egress_rare(context: TcContext) -> i32 {
    let raw = context.skb.skb;
    let node = Kernel::new(&raw);
    let mut frame = SkbFrame::reaching(raw, DEPTH);
    if let Some(verdict) = leave_rare(&mut frame, &node) {
        node.count(verdict);
    }
    TC_ACT_UNSPEC
}

/// Sends the frame out of an interface. The helper answers with the code for its program type.
#[inline(always)]
fn redirect(steered: Steered) -> i32 {
    // SAFETY: a helper on an interface index; one that is gone makes the kernel drop the frame.
    unsafe { bpf_redirect(steered.interface, 0) as i32 }
}

const _: () = assert!(TC_ACT_REDIRECT == 7 && XDP_REDIRECT == 4 && Verdict::NotIp as u32 == 0);

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses a program in which this could be reached.
    loop {}
}

/// The kernel lets only programs under the GPL use some helpers.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
