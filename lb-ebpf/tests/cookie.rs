//! The answer to a SYN by a cookie: what the kernel made of it stands in a right frame, and what is no
//! honest SYN gets none.

use lb_common::counter::Verdict;

mod plain;

use plain::{Answering, Bytes, frame_v4, frame_v6, sum};

const SEQUENCE: u32 = 0x0102_0304;

fn answered(bytes: Vec<u8>) -> (Verdict, Vec<u8>) {
    let mut frame = Bytes(bytes);
    let node = Answering { sequence: SEQUENCE, segment: 536 };
    let steered = lb_ebpf::cookie::answer(&mut frame, &node);
    (steered.verdict, frame.0)
}

#[test]
fn the_answer_over_ipv4_is_a_whole_segment_to_who_sent_the_syn() {
    let syn = frame_v4(&[]);
    let (verdict, answer) = answered(syn.clone());
    assert_eq!(verdict, Verdict::SynCookie);
    assert_eq!((&answer[..6], &answer[6..12]), (&syn[6..12], &syn[..6]), "MACs");
    let (ip, tcp) = (&answer[14..34], &answer[34..58]);
    assert_eq!((&ip[12..16], &ip[16..20]), (&syn[30..34], &syn[26..30]), "addresses");
    assert_eq!((&tcp[..2], &tcp[2..4]), (&syn[36..38], &syn[34..36]), "ports");
    assert_eq!(tcp[4..8], SEQUENCE.to_be_bytes());
    assert_eq!(tcp[8..12], 78u32.to_be_bytes(), "one more than the SYN's number");
    assert_eq!((tcp[12], tcp[13]), (0x60, 0x12), "SYN and ACK, one option");
    assert_eq!(tcp[20..24], [2, 4, 536u16.to_be_bytes()[0], 536u16.to_be_bytes()[1]]);
    assert_eq!(sum(ip), 0xffff, "the header's checksum");
    let pseudo = [&ip[12..20], &[0, 6, 0, 24], tcp].concat();
    assert_eq!(sum(&pseudo), 0xffff, "the segment's checksum");
    assert_eq!(answer.len(), 60, "the shortest frame");
    assert_eq!(ip[2..4], 44u16.to_be_bytes(), "without the padding");
    assert_eq!(answer[58..], [0, 0]);
}

#[test]
fn the_answer_over_ipv6_is_right_as_well() {
    let syn = frame_v6(&[]);
    let (verdict, answer) = answered(syn.clone());
    assert_eq!(verdict, Verdict::SynCookie);
    let (ip, tcp) = (&answer[14..54], &answer[54..78]);
    assert_eq!((&ip[8..24], &ip[24..40]), (&syn[38..54], &syn[22..38]), "addresses");
    assert_eq!((ip[0], ip[6], ip[4..6].to_vec()), (0x60, 6, vec![0, 24]));
    let pseudo = [&ip[8..40], &[0, 0, 0, 24, 0, 0, 0, 6], tcp].concat();
    assert_eq!(sum(&pseudo), 0xffff, "the segment's checksum");
    assert_eq!(answer.len(), 78);
}

#[test]
fn options_of_the_syn_go_and_the_frame_is_as_long_as_the_answer() {
    let syn = frame_v4(&[2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7]);
    assert_eq!(syn.len(), 74);
    let (verdict, answer) = answered(syn);
    assert_eq!((verdict, answer.len()), (Verdict::SynCookie, 60));
}

#[test]
fn a_header_that_is_longer_than_the_packet_gets_no_answer() {
    let mut syn = frame_v4(&[]);
    syn[46] = 0xf0;
    assert_eq!(answered(syn.clone()).0, Verdict::SynDropped);
    syn[46] = 0x40;
    assert_eq!(answered(syn).0, Verdict::SynDropped);
}

#[test]
fn a_header_with_options_of_ip_gets_no_answer() {
    let mut syn = frame_v4(&[]);
    syn[14] = 0x46;
    syn.splice(34..34, [1, 1, 1, 0]);
    syn[17] += 4;
    assert_eq!(answered(syn).0, Verdict::SynDropped);
}
