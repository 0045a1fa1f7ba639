//! `portcullis-postbox`: a mailbox in a folder, as an MCP server over standard input and output.
//!
//! Letters are `*.eml` files in the folder, whoever put them there; what is sent is a file in
//! `sent/`. No mail leaves this machine: something else may take `sent/` from here. It knows nothing
//! of the gateway, and any MCP client can start it.
//!
//! Reading order: `mailbox` (the folder), `tools` (what a model sees), `demo`.

mod demo;
mod mailbox;
mod tools;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;
use rmcp::{ServiceExt as _, transport::stdio};

use mailbox::Mailbox;
use tools::Postbox;

/// A mailbox in a folder, as an MCP server.
#[derive(Debug, Parser)]
#[command(name = "portcullis-postbox", version)]
struct Options {
    /// Where the letters are; `$HOME/mail` unless said.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Whom letters are sent from.
    #[arg(long, value_name = "ADDRESS", default_value = demo::OWNER)]
    address: String,
    /// Puts three letters into the folder at its first start.
    #[arg(long)]
    demo: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let folder = match options.folder {
        Some(folder) => folder,
        None => std::env::var_os("HOME")
            .map(|home| PathBuf::from(home).join("mail"))
            .context("HOME is not set; say where the letters are with `--folder DIR`")?,
    };
    let mailbox = Mailbox::open(&folder, options.address).with_context(|| {
        format!(
            "cannot use `{}`; choose another with `--folder`",
            folder.display()
        )
    })?;
    if options.demo {
        demo::seed(&mailbox, jiff::Timestamp::now())
            .with_context(|| format!("cannot put letters into `{}`", folder.display()))?;
    }
    let service = Postbox::new(mailbox).serve(stdio()).await?;
    service.waiting().await?;
    Ok(())
}
