//! The files that clusters run today, as `tests/peers/today` has them, and how they are used here:
//! with the script's path changed. The interface has the files' name already.

use std::path::Path;

use anyhow::{Result, bail};

/// What the files call the interface.
pub const INTERFACE: &str = "ens33";
/// In seconds, of every file.
pub const INTERVAL_S: u64 = 2;
pub const ROUTER_ID: u8 = 51;
/// keepalived cuts it to eight bytes.
pub const PASSWORD: &str = "K8SHA_KA_AUTH";

const SCRIPT: &str = "/usr/local/keepalived/conf/check_nginx.sh";

pub const NGINX: &str = include_str!("../../../peers/today/nginx.conf");
pub const NGINX_STREAM: &str = include_str!("../../../peers/today/stream/stream.conf");

const MASTER1_MULTICAST: &str =
    include_str!("../../../peers/today/keepalived-master1-multicast.conf");
const MASTER1_UNICAST: &str = include_str!("../../../peers/today/keepalived-master1-unicast.conf");
const MASTER2_MULTICAST: &str =
    include_str!("../../../peers/today/keepalived-master2-multicast.conf");
const MASTER2_UNICAST: &str = include_str!("../../../peers/today/keepalived-master2-unicast.conf");

/// A master's priority in the files: 100, 90, and so on.
pub const fn priority(master: u8) -> u8 {
    110 - 10 * master
}

/// A master's keepalived file. Of the third one there is none: it is made from the second's in the
/// way in which that differs from the first's.
///
/// # Errors
/// Where there is no such master, or the third is to speak unicast.
pub fn keepalived(master: u8, unicast: bool, script: &Path) -> Result<String> {
    let text = match (master, unicast) {
        (1, false) => MASTER1_MULTICAST.to_owned(),
        (1, true) => MASTER1_UNICAST.to_owned(),
        (2, false) => MASTER2_MULTICAST.to_owned(),
        (2, true) => MASTER2_UNICAST.to_owned(),
        (3, false) => MASTER2_MULTICAST
            .replace("192.168.139.134", "192.168.139.135")
            .replace("priority 90", "priority 80"),
        _ => bail!("there is no file for master{master}, unicast: {unicast}"),
    };
    Ok(text.replace(SCRIPT, &script.display().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_the_scripts_path_differs_from_the_files() {
        for (master, unicast, original) in [
            (1, false, MASTER1_MULTICAST),
            (1, true, MASTER1_UNICAST),
            (2, false, MASTER2_MULTICAST),
            (2, true, MASTER2_UNICAST),
        ] {
            let text = keepalived(master, unicast, Path::new("/x/check.sh")).unwrap();
            let changed: Vec<_> = text
                .lines()
                .zip(original.lines())
                .filter(|(ours, theirs)| ours != theirs)
                .collect();
            let [(ours, theirs)] = changed[..] else { panic!("{changed:?}") };
            assert_eq!(ours.trim(), "script \"/x/check.sh\"");
            assert_eq!(theirs.trim(), format!("script \"{SCRIPT}\""));
            assert_eq!(text.lines().count(), original.lines().count());
        }
    }

    #[test]
    fn the_files_say_what_the_constants_do() {
        for master in [1, 2, 3] {
            let text = keepalived(master, false, Path::new("/x")).unwrap();
            for line in [
                format!("interface {INTERFACE}"),
                format!("virtual_router_id {ROUTER_ID}"),
                format!("priority {}", priority(master)),
                format!("advert_int {INTERVAL_S}"),
                format!("auth_pass {PASSWORD}"),
                format!("mcast_src_ip 192.168.139.{}", 132 + master),
            ] {
                assert!(text.contains(&line), "{line} in {text}");
            }
        }
        assert!(keepalived(3, true, Path::new("/x")).is_err());
    }
}
