//! Frames that come and go, in the programs' pure half as XDP and tc run it: no panic, and all that a
//! [judge](lb_fuzz::made_up::judge) of theirs demands. An input is a
//! [story](lb_fuzz::made_up::story).

#![no_main]

use lb_fuzz::made_up::setting::Setting;
use lb_fuzz::made_up::story::{self, Ends, Failure, Programs, Step};
use lb_fuzz::plain::node::Plain;
use libfuzzer_sys::{Corpus, fuzz_target};

fuzz_target!(|input: &[u8]| -> Corpus {
    let Some((setting, steps)) = story::read(input) else { return Corpus::Reject };
    let xdp = tell("XDP", &mut Plain::<false>::new(&setting), &setting, &steps);
    let tc = tell("tc", &mut Plain::<true>::new(&setting), &setting, &steps);
    // A frame in pieces, and a checksum that the card completes, are not the same to both.
    if setting.linear.is_none() && !steps.iter().any(|step| step.open) {
        assert!(story::alike(&xdp, &tc), "XDP and tc differ: {xdp:02x?}\n{tc:02x?}");
    }
    Corpus::Keep
});

fn tell<P: Programs>(place: &str, programs: &mut P, setting: &Setting, steps: &[Step<'_>]) -> Ends {
    match story::tell(programs, setting, steps) {
        Ok(ends) => ends,
        Err(Failure::Wrong(wrong)) => panic!("{place}: {wrong}\n{setting:?}"),
        Err(Failure::Run(_)) => panic!("{place} did not run"),
    }
}
