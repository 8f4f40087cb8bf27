//! Scripts that the file names and that would not be run.

use std::path::PathBuf;

use crate::finding::Finding;
use crate::script::trust::Distrust;

/// One, and whether it would be.
#[derive(Debug)]
pub(in crate::doctor) struct Seen {
    /// What runs it, such as "track `x`".
    pub(in crate::doctor) of: String,
    pub(in crate::doctor) path: PathBuf,
    pub(in crate::doctor) distrust: Option<Distrust>,
}

pub(in crate::doctor) fn judge(seen: &Seen) -> Finding {
    const NAME: &str = "script";
    let subject = format!("script of {}", seen.of);
    let path = seen.path.display();
    match &seen.distrust {
        None => Finding::good(NAME, subject, format!("{path} would be run")),
        // An ordinary user may not see what root may.
        Some(Distrust::Unreadable { .. }) => {
            let why = format!("{path} cannot be looked at");
            Finding::not_looked_at(NAME, subject, why, Some("sudo lbctl doctor"))
        }
        Some(distrust) => {
            let found = format!("it would not be run, which counts as a failure: {distrust}");
            Finding::bad(NAME, subject, found, remedy(distrust))
        }
    }
}

fn remedy(distrust: &Distrust) -> String {
    match distrust {
        Distrust::Missing { path } => {
            format!("install -m 755 -o root -g root SCRIPT {}", path.display())
        }
        Distrust::NoUser { name } | Distrust::UnknownUser { name, .. } => {
            format!("useradd --system {name}")
        }
        Distrust::NotAFile { path } => {
            format!("ls -ld {}: name a file in the configuration", path.display())
        }
        Distrust::NotExecutable { path, .. } => format!("chmod 755 {}", path.display()),
        Distrust::NotEntered { path, .. } => format!("chmod a+x {}", path.display()),
        Distrust::Writable { path, .. } => format!("chmod go-w {}", path.display()),
        Distrust::Owner { path, .. } => format!("chown root {}", path.display()),
        Distrust::Unreadable { path, .. } | Distrust::Links { path } => {
            format!("namei -l {}", path.display())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Severity;

    fn judged(distrust: Option<Distrust>) -> Finding {
        judge(&Seen { of: "track `x`".to_owned(), path: "/s".into(), distrust })
    }

    #[test]
    fn what_is_wrong_has_the_command_that_mends_it() {
        assert_eq!(judged(None).severity, Severity::Good);
        for (distrust, command) in [
            (Distrust::Writable { path: "/s".into(), mode: 0o777 }, "chmod go-w /s"),
            (
                Distrust::NotExecutable { path: "/s".into(), user: "nobody".to_owned() },
                "chmod 755 /s",
            ),
            (
                Distrust::Owner { path: "/s".into(), owner: 1, user: "nobody".to_owned() },
                "chown root /s",
            ),
            (Distrust::NoUser { name: "lb".to_owned() }, "useradd --system lb"),
        ] {
            let found = judged(Some(distrust));
            assert_eq!((found.severity, found.remedy.as_deref()), (Severity::Bad, Some(command)));
        }
    }
}
