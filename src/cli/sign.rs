//! `peercompute keygen`, `sign` and `verify`.

use std::path::PathBuf;

use clap::Args;
use peercompute::keys;
use peercompute::launch::LaunchError;
use peercompute_buffers::digest::hex;
use peercompute_kernels::{Manifest, Overrides, Trust, VerifiedBundle};
use serde_json::json;

use super::{GridExtents, assignment, extents, say, say_json, warn_of};

#[derive(Args)]
pub(crate) struct KeygenArgs {
    /// The secret key's file, `root.key`; the public one goes beside it as `root.pub`.
    file: PathBuf,
}

#[derive(Args)]
pub(crate) struct SignArgs {
    /// The workload's folder.
    workload: PathBuf,
    /// The secret key's file.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The bundle to write.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Another tile, x first.
    #[arg(long, value_name = "[GRID=]X,Y,Z", value_parser = extents)]
    tile: Vec<GridExtents>,
    /// Another shape of the grid, x first.
    #[arg(long, value_name = "[GRID=]X,Y,Z", value_parser = extents)]
    shape: Vec<GridExtents>,
    /// Another value of a parameter, as TOML.
    #[arg(long, value_name = "NAME=VALUE", value_parser = assignment)]
    set: Vec<(String, String)>,
}

#[derive(Args)]
pub(crate) struct VerifyArgs {
    /// The bundle.
    bundle: PathBuf,
    /// A key to trust: a file, or the key itself.
    #[arg(long, value_name = "KEY", required = true)]
    trust: Vec<String>,
}

pub(crate) fn keygen(args: &KeygenArgs, json: bool) -> Result<(), LaunchError> {
    let (public, path) = keys::generate(&args.file)?;
    if json {
        say_json(&json!({ "secret_key": args.file, "public_key": path, "key": public.to_string() }));
    } else {
        say(format!("secret key  {} (keep it to yourself)\npublic key  {}\n{public}", args.file.display(), path.display()));
    }
    Ok(())
}

pub(crate) fn sign(args: &SignArgs, json: bool) -> Result<(), LaunchError> {
    let overrides = Overrides { tiles: args.tile.clone(), shapes: args.shape.clone(), params: args.set.clone() };
    let manifest = Manifest::from_folder(&args.workload, &overrides).map_err(keys::KeyFileError::from)?;
    let key = keys::read_secret(&args.key)?;
    // Nothing is signed that would not run.
    let signed = keys::sign(manifest, &key)?;
    let (program, bytes) = (signed.program(), signed.bytes());
    let manifest = &program.manifest;
    peercompute::launch::make_folder(&args.output)?;
    std::fs::write(&args.output, bytes).map_err(|cause| LaunchError::System { action: "write the bundle", cause })?;
    keep(&keys::read_bundle(&args.output, &Trust::key(key.public()))?);
    if json {
        say_json(&json!({ "workload": manifest.name, "version": manifest.version, "bundle": hex(&program.hash), "bytes": bytes.len(),
            "file": args.output, "key": key.public().to_string(), "warnings": program.warnings }));
    } else {
        warn_of(program);
        say(format!(
            "{} {} signed: {}, {} bytes\nbundle {}",
            manifest.name,
            manifest.version,
            args.output.display(),
            bytes.len(),
            hex(&program.hash)
        ));
    }
    Ok(())
}

pub(crate) fn verify(args: &VerifyArgs, json: bool) -> Result<(), LaunchError> {
    let trusted = args.trust.iter().map(|key| keys::read_public(key)).collect::<Result<Vec<_>, _>>()?;
    let mut trust = keys::trust(&trusted)?;
    let bundle: VerifiedBundle = keys::read_bundle(&args.bundle, &trust)?;
    keys::remember(&mut trust, &bundle)?;
    keep(&bundle);
    let program = bundle.program();
    let (name, version, hash) = (&program.manifest.name, &program.manifest.version, hex(&program.hash));
    if json {
        say_json(&json!({ "workload": name, "version": version, "bundle": hash, "key": bundle.signer().to_string(), "verified": true }));
    } else {
        say(format!("{name} {version} verified\nbundle {hash}\nsigned by {}", bundle.signer()));
    }
    Ok(())
}

/// Keeps a bundle for links to its runs. Without a place for it, a link just needs `--bundle`.
pub(crate) fn keep(bundle: &VerifiedBundle) {
    if let Err(error) = keys::keep(bundle) {
        eprintln!("warning: {error}");
    }
}
