//! `peercompute serve`: hosts a run for browsers too. One port has the page, the bundle and the link's other end.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use peercompute::launch::LaunchError;
use peercompute::serve::{ServeConfig, Server};
use peercompute_kernels::executor::any::Choice;
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;

use super::host::{self, HostArgs};

#[derive(Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    host: HostArgs,
    /// A certificate chain in PEM, for https; browsers give WebGPU to pages from elsewhere over https alone.
    #[arg(long, value_name = "FILE", requires = "key")]
    certificate: Option<PathBuf>,
    /// The certificate's key, in PEM.
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
    /// How others reach this port, where that differs: behind a proxy, or by name.
    #[arg(long, value_name = "URL")]
    public: Option<String>,
}

pub(crate) fn run(args: &ServeArgs, choice: &Choice, json: bool) -> Result<(), LaunchError> {
    let listen = args.host.listen().unwrap_or(SocketAddr::from(([127, 0, 0, 1], 8080)));
    let tls = args.certificate.clone().zip(args.key.clone());
    let server = Server::bind(&ServeConfig { listen, tls, public: args.public.clone() })?;
    if !server.is_trustworthy() {
        eprintln!(
            "warning: browsers give WebGPU and shared memory to pages over https alone, except at home; the cpu executor computes there, in one thread"
        );
    }
    host::serve(&args.host, server, choice, json)
}

/// A link to point a phone at; empty if it is too long for that.
pub(super) fn picture(link: &str) -> String {
    QrCode::new(link).map_or_else(|_| String::new(), |code| code.render::<Dense1x2>().quiet_zone(true).build())
}
