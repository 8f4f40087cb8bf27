//! What is tried on a kernel, on the host's own as in a guest: our own programs, one after the other.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use serde_json::Value;

use super::report::Check;

/// The checks' names and commands. `FIXTURES` stands for their directory.
const CHECKS: [(&str, &[&str]); 6] = [
    ("doctor", &["lbctl", "doctor", "--seconds", "0", "--output", "json"]),
    ("verifier", &["lb-lab", "verifier", "--json"]),
    ("fixtures", &["lb-lab", "fixtures", "FIXTURES", "--json"]),
    ("attach", &["lb-lab", "run", "attach", "--json"]),
    ("vlan", &["lb-lab", "run", "vlan", "--json"]),
    ("vrrp-vlan", &["lb-lab", "run", "vrrp-vlan", "--json"]),
];

/// It takes the machine's network cards.
const IN_GUESTS: (&str, &[&str]) = ("virtio", &["lb-lab", "run", "virtio", "--json"]);

/// Runs those that disturb nobody.
pub fn everywhere(binaries: &Path, fixtures: &Path) -> Vec<Check> {
    CHECKS.iter().map(|check| run(check, binaries, fixtures)).collect()
}

/// Runs all.
pub fn in_guest(binaries: &Path, fixtures: &Path) -> Vec<Check> {
    let mut checks = everywhere(binaries, fixtures);
    checks.push(run(&IN_GUESTS, binaries, fixtures));
    checks
}

fn run((name, words): &(&str, &[&str]), binaries: &Path, fixtures: &Path) -> Check {
    let started = Instant::now();
    tell(&format!("{name} begins"));
    let mut command = Command::new(binaries.join(words[0]));
    for word in &words[1..] {
        match *word {
            "FIXTURES" => command.arg(fixtures),
            word => command.arg(word),
        };
    }
    let output = command.output();
    let seconds = started.elapsed().as_secs_f64();
    let (ok, result, words) = match output {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout);
            // A scenario's object is its last line; lbctl's has many.
            let result = serde_json::from_str(&text).ok();
            let last = || serde_json::from_str(text.lines().last()?).ok();
            let words = String::from_utf8_lossy(&output.stderr).into_owned();
            (output.status.success(), result.or_else(last), words)
        }
        Err(error) => (false, None, format!("cannot run it: {error}")),
    };
    tell(&format!("{name} ends after {seconds:.0} s, ok {ok}: {words}"));
    Check { name: (*name).to_owned(), ok, seconds, result, words }
}

/// Says how far it is, for a guest that never reports: its console is quoted.
fn tell(line: &str) {
    use std::io::Write as _;
    if std::process::id() == 1 {
        let _ = writeln!(std::io::stderr(), "{line}");
    }
}

impl Check {
    /// One sentence on what was seen.
    pub fn seen(&self) -> String {
        let seconds = self.seconds;
        let part = |name: &str| self.result.as_ref().and_then(|result| result.get(name));
        let text = match (self.name.as_str(), self.ok) {
            (_, false) => {
                let refuted = part("refuted").map(Value::to_string).unwrap_or_default();
                format!("{} {refuted}", self.words.trim())
            }
            ("fixtures", _) => part("runs").map_or_else(String::new, |runs| format!("{runs} runs")),
            ("doctor", _) => part("summary").and_then(Value::as_str).unwrap_or_default().to_owned(),
            _ => part("figures").map(Value::to_string).unwrap_or_default(),
        };
        format!("{seconds:.1} s {text}")
    }
}
