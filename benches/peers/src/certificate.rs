//! A certificate for the comparison over TLS.

use std::path::PathBuf;

use crate::load::SERVER_NAME;

/// Where to write it.
#[derive(clap::Args)]
pub(crate) struct Settings {
    /// Folder for `certificate.pem` and `key.pem`.
    #[arg(long)]
    folder: PathBuf,
}

/// Writes a self-signed ECDSA P-256 certificate and its key.
pub(crate) fn run(settings: &Settings) -> anyhow::Result<()> {
    let made = rcgen::generate_simple_self_signed([SERVER_NAME.to_owned()])?;
    std::fs::write(settings.folder.join("certificate.pem"), made.cert.pem())?;
    std::fs::write(settings.folder.join("key.pem"), made.signing_key.serialize_pem())?;
    Ok(())
}
