//! The rules of this network namespace's firewalls, by the programs that print them: their answer over netlink would
//! have to be decompiled, which is what `nft` does.

use std::process::{Command, Stdio};

use serde_json::Value;

use super::machine::read;

/// What there is to follow packets through.
#[derive(Debug, Default)]
pub(in crate::doctor) struct Rulesets {
    pub(in crate::doctor) nft: Option<Value>,
    /// Of iptables' own tables, for IPv4 and IPv6.
    pub(in crate::doctor) legacy: [Option<String>; 2],
    /// Why something could not be read.
    pub(in crate::doctor) unread: Vec<String>,
}

pub(in crate::doctor) fn rulesets() -> Rulesets {
    let mut found = Rulesets::default();
    match print("nft", &["-j", "list", "ruleset"]) {
        Ok(text) => match serde_json::from_str(&text) {
            Ok(ruleset) => found.nft = Some(ruleset),
            Err(error) => found.unread.push(format!("nft's answer is no JSON: {error}")),
        },
        Err(why) => found.unread.push(why),
    }
    let families =
        [("/proc/net/ip_tables_names", "iptables"), ("/proc/net/ip6_tables_names", "ip6tables")];
    for (at, (names, program)) in families.into_iter().enumerate() {
        // Tables of its own: those that are nftables' in truth are not listed there.
        if read(names).is_none_or(|text| text.is_empty()) {
            continue;
        }
        let text = print(&format!("{program}-legacy-save"), &[])
            .or_else(|_| print(&format!("{program}-save"), &[]));
        match text {
            Ok(text) => found.legacy[at] = Some(text),
            Err(why) => found.unread.push(why),
        }
    }
    found
}

fn print(program: &str, arguments: &[&str]) -> Result<String, String> {
    // sbin is not on every user's way.
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let mut command = Command::new(program);
    let output =
        command.args(arguments).env("PATH", path).env("LC_ALL", "C").stdin(Stdio::null()).output();
    match output {
        Ok(output) if output.status.success() => String::from_utf8(output.stdout)
            .map_err(|_| format!("the answer of {program} is not UTF-8")),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let first = said.lines().next().unwrap_or("it said nothing");
            Err(format!("{program} failed: {first}"))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(format!("{program} is not installed"))
        }
        Err(error) => Err(format!("{program} cannot be run: {error}")),
    }
}
