//! The scripts that a file names, as they are on this machine.

use std::path::Path;

use crate::config::{Check, Config, NotifyWay, Watched};
use crate::doctor::judge::script::Seen;
use crate::script::trust;

pub(in crate::doctor) fn all(config: &Config) -> Vec<Seen> {
    let look = |of: String, path: &Path, user: Option<&str>| Seen {
        of,
        path: path.to_owned(),
        distrust: trust::check(path, user).err(),
    };
    let mut seen = Vec::new();
    for track in &config.tracks {
        if let Watched::Script(script) = &track.watched {
            seen.push(look(format!("track `{}`", track.name), &script.path, Some(&script.user)));
        }
    }
    for service in config.services.iter().filter(|service| service.health.enabled) {
        if let Check::Script(script) = &*service.health.check {
            let of = format!("service `{}`", service.name);
            seen.push(look(of, &script.path, Some(&script.user)));
        }
    }
    for hook in &config.notify {
        if let NotifyWay::Script { path, user, .. } = &hook.way {
            seen.push(look(format!("hook `{}`", hook.name), path, user.as_deref()));
        }
    }
    seen
}
