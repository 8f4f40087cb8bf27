//! Other kernels: virtual machines with the kernels that the system's packages offer, and in each the
//! same binaries that run here. Nothing is installed: packages are unpacked below the build's
//! directory, and a guest's whole file system is an archive in memory.
//!
//! [`kernel`] finds and unpacks kernels, [`image`] packs the guest's files with [`archive`],
//! [`machine`] runs it, [`inside`] is what runs in there as its first process, and [`check`] is what is
//! tried.

pub mod archive;
pub mod check;
pub mod image;
pub mod inside;
pub mod kernel;
pub mod machine;
pub mod report;

/// The guest's second serial port, which carries the report and nothing else.
const REPORT_PORT: &str = "/dev/ttyS1";

/// Where our binaries, the fixtures and the modules lie in the guest.
const BINARIES: &str = "/lab";
const FIXTURES: &str = "/fixtures";
const MODULES: &str = "/modules";

/// What makes our own program the guest's first process.
const FIRST_PROCESS: &str = "rdinit=/lab/lb-lab";

/// Whether this machine is a guest of ours.
pub fn is_here() -> bool {
    let line = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    line.split_ascii_whitespace().any(|word| word == FIRST_PROCESS)
}
