//! Fewer and plainer steps that differ in the same way.

use anyhow::Result;

use super::step::{ProtectionChange, ServiceChange, Step};
use super::trial::{Benches, Failure};
use crate::packet::frame::Frame;

/// Sequences that are tried at most; one takes about a millisecond.
const MOST_TRIES: usize = 5_000;

/// A difference, and the steps that show it.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) steps: Vec<Step>,
    pub(super) failure: Failure,
}

/// The sequence, as small as it gets.
///
/// # Errors
/// Where the kernel refuses what ought to work.
pub(super) fn shrink(benches: &mut Benches, found: Found) -> Result<Found> {
    let mut shrinker = Shrinker { benches, found, tries: 0 };
    // What comes after the difference did nothing for it.
    shrinker.found.steps.truncate(shrinker.found.failure.step + 1);
    loop {
        let before = shrinker.found.steps.clone();
        shrinker.remove_steps()?;
        shrinker.simplify_steps()?;
        if shrinker.found.steps == before || shrinker.tries >= MOST_TRIES {
            return Ok(shrinker.found);
        }
    }
}

struct Shrinker<'a> {
    benches: &'a mut Benches,
    found: Found,
    tries: usize,
}

impl Shrinker<'_> {
    /// Takes the steps over where they differ as the ones before did.
    fn try_steps(&mut self, steps: Vec<Step>) -> Result<bool> {
        self.tries += 1;
        if self.tries >= MOST_TRIES {
            return Ok(false);
        }
        // Simplified frames may be none: what cannot be run is no improvement.
        let Ok(Err(failure)) = self.benches.run(&steps) else { return Ok(false) };
        let (is, was) = (&failure, &self.found.failure);
        if is.program != was.program || is.difference.kind != was.difference.kind {
            return Ok(false);
        }
        self.found = Found { steps, failure };
        self.found.steps.truncate(self.found.failure.step + 1);
        Ok(true)
    }

    fn remove_steps(&mut self) -> Result<()> {
        let mut size = self.found.steps.len().div_ceil(2);
        while size > 0 {
            let mut at = 0;
            while at < self.found.steps.len() {
                let mut steps = self.found.steps.clone();
                steps.drain(at..(at + size).min(steps.len()));
                if !self.try_steps(steps)? {
                    at += size;
                }
            }
            size /= 2;
        }
        Ok(())
    }

    fn simplify_steps(&mut self) -> Result<()> {
        let mut at = 0;
        while at < self.found.steps.len() {
            let plainer = plainer(&self.found.steps[at]);
            let mut simpler = false;
            for step in plainer {
                let mut steps = self.found.steps.clone();
                steps[at] = step;
                if self.try_steps(steps)? {
                    simpler = true;
                    break;
                }
            }
            if !simpler {
                at += 1;
            }
        }
        Ok(())
    }
}

/// Steps that do less.
fn plainer(step: &Step) -> Vec<Step> {
    match step {
        Step::Arrive(frame) => frames(frame).map(Step::Arrive).collect(),
        Step::Leave(frame) => frames(frame).map(Step::Leave).collect(),
        Step::Reply(number, frame) => {
            let fewer = (*number > 0).then(|| Step::Reply(number / 2, frame.clone()));
            fewer.into_iter().chain(frames(frame).map(|it| Step::Reply(*number, it))).collect()
        }
        Step::Service(number, Some(change)) => {
            services(change).into_iter().map(|it| Step::Service(*number, Some(it))).collect()
        }
        Step::Protect(number, Some(change)) => {
            protections(change).map(|it| Step::Protect(*number, Some(it))).collect()
        }
        _ => Vec::new(),
    }
}

/// With one field less that is not the usual one.
fn frames(frame: &Frame) -> impl Iterator<Item = Frame> {
    let fields = frame.fields();
    let names: Vec<String> = fields.keys().cloned().collect();
    let fewer_bytes = (0..frame.replaced.len()).filter(|_| frame.replaced.len() > 1).map(|at| {
        let mut fewer = frame.clone();
        fewer.replaced.remove(at);
        fewer
    });
    let fewer_tags =
        (frame.vlan.len() > 1).then(|| Frame { vlan: frame.vlan[1..].to_vec(), ..frame.clone() });
    let quoted = frame.quote.as_deref().map(frames_boxed).unwrap_or_default();
    let quoting = quoted
        .into_iter()
        .map(|quote| Frame { quote: Some(Box::new(quote)), ..frame.clone() })
        .collect::<Vec<_>>();
    names
        .into_iter()
        .filter_map(move |name| {
            let mut fewer = fields.clone();
            fewer.remove(&name);
            fewer.try_into().ok()
        })
        .chain(fewer_bytes.collect::<Vec<_>>())
        .chain(fewer_tags)
        .chain(quoting)
}

fn frames_boxed(frame: &Frame) -> Vec<Frame> {
    Box::<dyn Iterator<Item = Frame>>::from(Box::new(frames(frame))).collect()
}

fn protections(change: &ProtectionChange) -> impl Iterator<Item = ProtectionChange> {
    let mut plainer = Vec::new();
    for at in 0..change.list.len() {
        let mut fewer = change.clone();
        fewer.list.remove(at);
        plainer.push(fewer);
    }
    plainer.push(ProtectionChange { rate: None, ..change.clone() });
    plainer.push(ProtectionChange { mask: 128, ..change.clone() });
    plainer.push(ProtectionChange { connections: None, ..change.clone() });
    let change = change.clone();
    plainer.into_iter().filter(move |it| *it != change)
}

fn services(change: &ServiceChange) -> Vec<ServiceChange> {
    let mut plainer = Vec::new();
    for at in 0..change.backends.len() {
        let mut fewer = change.clone();
        fewer.backends.remove(at);
        plainer.push(fewer);
    }
    for at in 0..change.backends.len() {
        let mut usual = change.clone();
        usual.backends[at].interface = crate::packet::scene::INTERFACE;
        plainer.push(usual);
        let mut healthy = change.clone();
        healthy.backends[at].state = crate::packet::scene::State::Up;
        plainer.push(healthy);
    }
    plainer.push(ServiceChange { many_buckets: false, ..change.clone() });
    plainer.push(ServiceChange { shuffle: 0, ..change.clone() });
    plainer.push(ServiceChange { hash_port: false, ..change.clone() });
    plainer.push(ServiceChange { noted: false, ..change.clone() });
    plainer.retain(|it| it != change);
    plainer
}
