//! Programs that somebody else attached to an interface, at XDP or at tc.

use crate::finding::Finding;

/// Where a program is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::doctor) enum Hook {
    /// Natively, in the stack, or in the card.
    Xdp,
    TcIngress,
    TcEgress,
}

/// A program, or a filter of another kind, on an interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::doctor) struct Program {
    pub(in crate::doctor) hook: Hook,
    /// As the kernel names it, at most 15 bytes of it; the kind of the filter where it is none of BPF.
    pub(in crate::doctor) name: String,
    /// Of BPF.
    pub(in crate::doctor) id: Option<u32>,
    /// Of a filter of a qdisc: its priority, by which it is deleted.
    pub(in crate::doctor) priority: Option<u16>,
    /// The link that holds it there, where one does.
    pub(in crate::doctor) link: Option<u32>,
}

/// Our programs begin so, in the kernel object.
const OWN: [&str; 2] = ["lb_xdp", "lb_tc_"];

impl Program {
    fn is_own(&self) -> bool {
        self.id.is_some() && OWN.iter().any(|own| self.name.starts_with(own))
    }

    fn described(&self) -> String {
        match self.id {
            Some(id) if self.name.is_empty() => format!("a program without a name ({id})"),
            Some(id) => format!("{} (program {id})", self.name),
            None => format!("a filter of kind {}", self.name),
        }
    }
}

/// What is there, by interface; why it is not known, where it is not.
pub(in crate::doctor) fn judge(
    interface: &str,
    programs: &Result<Vec<Program>, String>,
) -> Vec<Finding> {
    const NAME: &str = "foreign_program";
    let subject = format!("programs on {interface}");
    let programs = match programs {
        Ok(programs) => programs,
        Err(why) => {
            return vec![Finding::not_looked_at(NAME, subject, why, Some("sudo lbctl doctor"))];
        }
    };
    let foreign: Vec<&Program> = programs.iter().filter(|program| !program.is_own()).collect();
    if foreign.is_empty() {
        let found = match programs.len() {
            0 => "none, at XDP or tc".to_owned(),
            own => format!("{own} of the agent, no others"),
        };
        return vec![Finding::good(NAME, subject, found)];
    }
    foreign.into_iter().map(|program| finding(interface, program)).collect()
}

fn finding(interface: &str, program: &Program) -> Finding {
    const NAME: &str = "foreign_program";
    let what = program.described();
    let delete = |direction: &str| match (program.priority, program.link) {
        (Some(priority), _) => format!("tc filter del dev {interface} {direction} pref {priority}"),
        (None, Some(link)) => format!("bpftool link detach id {link}, or end who made it"),
        (None, None) => {
            format!("bpftool net show dev {interface} and bpftool link list: end who made it")
        }
    };
    let off = match program.link {
        // Such a one cannot be taken away by rtnetlink.
        Some(link) => format!("bpftool link detach id {link}, or end who made it"),
        None => format!("ip link set dev {interface} xdp off"),
    };
    match program.hook {
        Hook::Xdp => Finding::bad(
            NAME,
            format!("XDP on {interface}"),
            format!(
                "{what} is attached, which is not the agent's: the agent can attach at tc only"
            ),
            format!("{off}, or modes = [\"tc\"] in [data_path]"),
        ),
        Hook::TcIngress => Finding::doubtful(
            NAME,
            format!("tc ingress of {interface}"),
            format!(
                "{what} is attached, which is not the agent's: what it drops, changes or redirects, the agent's \
                 programs behind it do not see as it came"
            ),
            delete("ingress"),
        ),
        Hook::TcEgress => Finding::doubtful(
            NAME,
            format!("tc egress of {interface}"),
            format!(
                "{what} is attached, which is not the agent's: it may drop answers, which have the VIP as source"
            ),
            delete("egress"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Severity;

    fn program(hook: Hook, name: &str) -> Program {
        Program { hook, name: name.to_owned(), id: Some(7), priority: None, link: None }
    }

    #[test]
    fn the_agents_own_programs_are_no_finding() {
        let own = [
            program(Hook::Xdp, "lb_xdp"),
            program(Hook::TcIngress, "lb_tc_deliver_g"),
            program(Hook::TcEgress, "lb_tc_egress"),
        ];
        let found = judge("ens33", &Ok(own.to_vec()));
        assert_eq!((found.len(), found[0].severity), (1, Severity::Good));
    }

    #[test]
    fn a_foreign_program_at_xdp_is_bad_and_one_at_tc_doubtful() {
        let foreign = [
            program(Hook::Xdp, "xdp_dispatcher"),
            Program { priority: Some(49_152), ..program(Hook::TcIngress, "cil_from_netdev") },
        ];
        let found = judge("ens33", &Ok(foreign.to_vec()));
        assert_eq!(found[0].severity, Severity::Bad);
        assert_eq!(found[1].severity, Severity::Doubtful);
        assert_eq!(found[1].remedy.as_deref(), Some("tc filter del dev ens33 ingress pref 49152"));
    }

    #[test]
    fn what_a_link_holds_is_taken_away_by_the_link() {
        let held = Program { link: Some(9), ..program(Hook::Xdp, "pass") };
        for (program, command) in [
            (held, "bpftool link detach id 9, or end"),
            (program(Hook::Xdp, "pass"), "ip link set dev ens33 xdp off, or"),
        ] {
            let found = judge("ens33", &Ok(vec![program]));
            assert!(found[0].remedy.as_ref().unwrap().starts_with(command), "{found:?}");
        }
    }

    #[test]
    fn a_filter_that_is_no_program_is_foreign_by_any_name() {
        let filter =
            Program { id: None, priority: Some(1), ..program(Hook::TcEgress, "lb_tc_egress") };
        assert_eq!(judge("ens33", &Ok(vec![filter]))[0].severity, Severity::Doubtful);
    }
}
