//! Every packet fixture, through the programs as the kernel verified them. Needs root; says so where
//! it is not.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use lb_tests::packet::fixture::File;
use lb_tests::packet::kernel::{self, Kernel};

fn files() -> Result<Vec<PathBuf>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/packets");
    let entries = std::fs::read_dir(&directory)
        .with_context(|| format!("cannot read {}", directory.display()))?;
    let mut files =
        entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, std::io::Error>>()?;
    files.sort();
    Ok(files)
}

#[test]
#[expect(clippy::print_stderr, reason = "the runner shows it: which fixtures, what came of them")]
fn every_packet_gets_its_verdict_and_leaves_as_described() -> Result<()> {
    let files = files()?;
    ensure!(!files.is_empty(), "no fixtures");
    let (runs, failures) = kernel::apart(|| {
        let mut kernel = Kernel::load()?;
        let (mut runs, mut failures) = (0, Vec::new());
        for path in &files {
            let file = File::read(path)?;
            let (of_file, wrong) = file.run(&mut kernel);
            eprintln!("{}: {of_file} runs, {} failed", file.about, wrong.len());
            runs += of_file;
            failures.extend(wrong);
        }
        Ok((runs, failures))
    })?;
    let count = failures.len();
    ensure!(runs > 0, "no fixtures ran");
    ensure!(count == 0, "{count} of {runs} runs failed:\n{}", failures.join("\n"));
    Ok(())
}
