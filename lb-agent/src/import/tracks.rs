//! What nodes watch, and whom they tell: `vrrp_script`, `track_script`, `track_interface` and `notify` of
//! all nodes together.

use std::time::Duration;

use super::cluster::Cluster;
use super::directive::Place;
use super::node::Script;
use super::report::{Placed, Report};
use super::value;
use crate::config::{BUILT_IN, duration_text};

const SO: &str = "every node watches the same here, and the first is taken";

/// keepalived's, where a file does not say it.
const INTERVAL: Duration = Duration::from_secs(1);
const ROOT: &str = "root";

/// A `[[track]]`.
pub(super) struct Track {
    pub(super) name: String,
    pub(super) place: Place,
    pub(super) watched: Watched,
    /// Of keepalived: positive ones raise the priority while all is well, 0 is resignation.
    pub(super) weight: Option<Placed<i16>>,
}

pub(super) enum Watched {
    Script(Box<Watch>),
    Interface(String),
}

pub(super) struct Watch {
    pub(super) command: Placed<Vec<String>>,
    pub(super) interval: Placed<Duration>,
    pub(super) timeout: Option<Placed<Duration>>,
    pub(super) rise: Placed<u32>,
    pub(super) fall: Placed<u32>,
    pub(super) user: Placed<String>,
}

/// A `[[notify]]`.
pub(super) struct Notify {
    pub(super) name: String,
    pub(super) command: Placed<Vec<String>>,
    pub(super) user: Option<Placed<String>>,
}

impl Track {
    /// What is added to every priority, for the weight to count downwards.
    pub(super) fn raise(&self) -> i16 {
        self.weight.as_ref().map_or(0, |weight| weight.value.max(0))
    }

    /// As the new file has it: what is added while it fails. None: the node resigns.
    pub(super) fn penalty(&self) -> Option<(i16, &Place)> {
        let weight = self.weight.as_ref().filter(|weight| weight.value != 0)?;
        Some((-weight.value.abs(), &weight.place))
    }
}

pub(super) fn tracks(cluster: &Cluster<'_>, report: &mut Report) -> Vec<Track> {
    let mut tracks: Vec<Track> = Vec::new();
    let mut names: Vec<String> = BUILT_IN.map(str::to_owned).to_vec();
    let mut done: Vec<&str> = Vec::new();
    for (_, instance) in cluster.instances() {
        for Placed { value: (name, _), place } in &instance.scripts {
            if done.contains(&name.as_str()) {
                continue;
            }
            done.push(name);
            everywhere(name, place, cluster, report);
            let Some(watched) = script(name, place, cluster, report) else { continue };
            let weight = script_weight(name, cluster, report);
            tracks.push(Track {
                name: free(name, &mut names),
                place: place.clone(),
                watched,
                weight,
            });
        }
    }
    let mut interfaces: Vec<&str> = Vec::new();
    for (_, instance) in cluster.instances() {
        for Placed { value: (name, weight), place } in &instance.interfaces {
            if interfaces.contains(&name.as_str()) {
                continue;
            }
            interfaces.push(name);
            tracks.push(Track {
                name: free(name, &mut names),
                place: place.clone(),
                watched: Watched::Interface(name.clone()),
                weight: Some(Placed::new(*weight, place)),
            });
        }
    }
    tracks
}

/// A name that no other track has.
fn free(name: &str, names: &mut Vec<String>) -> String {
    let name = value::name(name).unwrap_or_else(|| "track".to_owned());
    let name = value::unique(&name, names);
    names.push(name.clone());
    name
}

/// Says so where only some instances track the script.
fn everywhere(name: &str, place: &Place, cluster: &Cluster<'_>, report: &mut Report) {
    let tracks = |(_, instance): &(usize, &super::instance::Instance)| {
        instance.scripts.iter().any(|script| script.value.0 == name)
    };
    if let Some((_, silent)) = cluster.instances().find(|instance| !tracks(instance)) {
        let text = format!(
            "script {name} is tracked in the one and not in the other; here every node watches it, for all \
             its addresses"
        );
        report.disagreement(vec![place.clone(), silent.name.place.clone()], text);
    }
}

/// The definitions of a script in the nodes' files.
fn definitions<'c>(name: &str, cluster: &'c Cluster<'_>) -> Vec<(usize, &'c Script)> {
    let files = cluster.nodes.iter().enumerate();
    let scripts = files.flat_map(|(index, node)| node.file.scripts.iter().map(move |s| (index, s)));
    scripts.filter(|(_, script)| script.name.value == name).collect()
}

fn script(
    name: &str,
    place: &Place,
    cluster: &Cluster<'_>,
    report: &mut Report,
) -> Option<Watched> {
    let all = definitions(name, cluster);
    let what = |key: &str| format!("{key} of vrrp_script {name}");
    let commands: Vec<_> = all.iter().filter_map(|(_, script)| script.command.clone()).collect();
    let command = report.agree(&what("script"), commands, |words| words.join(" "), SO);
    let Some(command) = command else {
        let text = format!("no vrrp_script {name} says what to run: write its [[track]]");
        report.missing(vec![place.clone()], text);
        return None;
    };
    let or = |said: &Option<Placed<Duration>>, script: &Script| {
        said.clone().unwrap_or_else(|| Placed::new(INTERVAL, &script.name.place))
    };
    let intervals: Vec<_> = all.iter().map(|(_, script)| or(&script.interval, script)).collect();
    let interval = report.agree(&what("interval"), intervals, |time| duration_text(*time), SO)?;
    let timeouts: Vec<_> = all.iter().filter_map(|(_, script)| script.timeout.clone()).collect();
    let timeout = report.agree(&what("timeout"), timeouts, |time| duration_text(*time), SO);
    let mut count = |key: &str, of: fn(&Script) -> &Option<Placed<u32>>| {
        let said = all.iter().map(|(_, script)| {
            of(script).clone().unwrap_or_else(|| Placed::new(1, &script.name.place))
        });
        report.agree(&what(key), said.collect::<Vec<_>>(), u32::to_string, SO)
    };
    let rise = count("rise", |script| &script.rise)?;
    let fall = count("fall", |script| &script.fall)?;
    let users: Vec<_> = all
        .iter()
        .map(|(node, script)| {
            let said = script.user.as_ref().or(cluster.nodes[*node].file.script_user.as_ref());
            said.cloned().unwrap_or_else(|| Placed::new(ROOT.to_owned(), &script.name.place))
        })
        .collect();
    let user = report.agree(&what("user"), users, String::clone, SO)?;
    let watch = Watch { command, interval, timeout, rise, fall, user };
    Some(Watched::Script(Box::new(watch)))
}

/// Of the instance, else of the script.
fn script_weight(name: &str, cluster: &Cluster<'_>, report: &mut Report) -> Option<Placed<i16>> {
    let mut weights: Vec<Placed<i16>> = Vec::new();
    let own = definitions(name, cluster);
    for (node, instance) in cluster.instances() {
        let of_script = own.iter().find(|(index, _)| *index == node).map(|(_, script)| *script);
        let of_script = of_script.and_then(|script| script.weight.clone());
        for tracked in instance.scripts.iter().filter(|script| script.value.0 == name) {
            let said = tracked.value.1.map(|weight| Placed::new(weight, &tracked.place));
            let none = || Placed::new(0, &tracked.place);
            weights.push(said.or(of_script.clone()).unwrap_or_else(none));
        }
    }
    report.agree(&format!("weight of script {name}"), weights, i16::to_string, SO)
}

/// Each script once, whoever calls it.
pub(super) fn hooks(cluster: &Cluster<'_>) -> Vec<Notify> {
    let mut hooks: Vec<Notify> = Vec::new();
    for (node, instance) in cluster.instances() {
        for Placed { value: (command, user), place } in &instance.notify {
            if hooks.iter().any(|hook| hook.command.value == *command) {
                continue;
            }
            let user = user.clone().map(|user| Placed::new(user, place));
            let names: Vec<String> = hooks.iter().map(|hook| hook.name.clone()).collect();
            hooks.push(Notify {
                name: value::unique("notify", &names),
                command: Placed::new(command.clone(), place),
                user: user.or_else(|| cluster.nodes[node].file.script_user.clone()),
            });
        }
    }
    hooks
}
