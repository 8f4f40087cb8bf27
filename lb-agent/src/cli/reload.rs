//! `lbctl reload`.

use clap::Args;

use super::failure::Failure;
use super::screen::Screen;
use crate::control::client::Client;

/// Read the configuration anew, and do what is different in it
///
/// Everything that is different is done, or nothing where some of it cannot be; what is not different is not touched.
/// SIGHUP to lb-agent does the same. Some settings need a restart, such as those of [vrrp]: the answer names them.
#[derive(Args, Clone, Debug, PartialEq)]
#[command(after_help = "Example:\n  \
    lbctl check && lbctl reload --dry-run && lbctl reload")]
pub struct Arguments {
    /// Only show what would be changed
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(
    arguments: &Arguments,
    client: &Client,
    screen: &mut Screen<'_>,
) -> Result<(), Failure> {
    let reload = client.reload(arguments.dry_run).await?;
    if screen.data(&reload)? {
        return Ok(());
    }
    for change in &reload.changes {
        screen.line(change)?;
    }
    screen.line(&match (reload.changes.len(), reload.applied) {
        (0, _) => "nothing is different".to_owned(),
        (1, true) => "1 change is done".to_owned(),
        (changes, true) => format!("{changes} changes are done"),
        (_, false) => "nothing was changed yet: lbctl reload does it".to_owned(),
    })
}
