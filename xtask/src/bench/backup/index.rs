//! A repository whose index names a terabyte of blobs: how much memory a backup into it takes. Restic makes the repository
//! and says its key; the index files are written here, as restic's `doc/design.rst` describes them. The packs that they
//! name do not exist, and nobody asks for them.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use aes::cipher::{BlockEncrypt as _, KeyInit as _, KeyIvInit as _, StreamCipher as _};
use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use poly1305::Poly1305;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::tools::{Store, Tool as _};
use super::{Part, Tools, data};
use crate::bench::process::cost;
use crate::bench::requirement::Requirement;
use crate::step;

/// The blobs of a terabyte,
const BLOBS: u64 = 1 << 20;
/// with so many bytes each, which is what restic and opsctl cut on average,
const BLOB_BYTES: u64 = 1 << 20;
/// in packs of sixteen,
const BLOBS_OF_A_PACK: u64 = 16;
/// which index files name as restic writes them.
const PACKS_OF_A_FILE: u64 = 3000;
/// What is backed up.
const SIZE_MIB: usize = 256;
/// The most memory that a backup may take.
const MEGABYTES: f64 = 300.0;

/// The master key as `restic cat masterkey` prints it.
#[derive(Deserialize)]
struct MasterKey {
    mac: MacKey,
    encrypt: String,
}

#[derive(Deserialize)]
struct MacKey {
    k: String,
    r: String,
}

/// Measures a backup with opsctl, then one with restic.
pub(super) async fn measure(tools: &Tools) -> Result<Part> {
    let scratch = tempfile::tempdir().context("could not make a scratch folder")?;
    let data = scratch.path().join("data");
    fs::create_dir(&data)?;
    data::random(&data.join("payload"), SIZE_MIB)?;
    tools.restic.prepare(scratch.path(), Store::Folder, &data)?;
    tools.opsctl.prepare(scratch.path(), Store::Folder, &data)?;
    let said = step::output(tools.restic.command(scratch.path()).args(["cat", "masterkey"]))?;
    let key: MasterKey = serde_json::from_str(&said).context("restic prints its key as JSON")?;
    write(&scratch.path().join("repo/index"), &key)?;
    let ours = cost(tools.opsctl.backup(scratch.path(), &data)).await?;
    let restic = cost(tools.restic.backup(scratch.path(), &data)).await?;
    println!("a large index: opsctl {ours:.2?}, restic {restic:.2?}");
    let megabytes = [ours.mib, restic.mib].map(|mib| mib * super::MIB / 1e6);
    let mut part = Part {
        method: format!(
            "A large index: {BLOBS} blobs of 1 MiB in {} packs, which is a repository of 1 TiB; into it a backup of \
             {SIZE_MIB} MiB of random data.",
            BLOBS / BLOBS_OF_A_PACK
        ),
        ..Part::default()
    };
    let memory = "memory of a backup into a repository of 1 TiB";
    part.required
        .push(Requirement::at_most(memory, Some(megabytes[0]), MEGABYTES, "MB"));
    part.row("backup, index of 1 TiB", "peak MB", &megabytes, 0);
    part.row("backup, index of 1 TiB", "CPU s", &[ours.cpu, restic.cpu], 2);
    part.row("backup, index of 1 TiB", "wall s", &[ours.wall, restic.wall], 2);
    Ok(part)
}

/// Writes the index files.
fn write(folder: &Path, key: &MasterKey) -> Result<()> {
    let length = BLOB_BYTES + OVERHEAD as u64;
    let packs = BLOBS / BLOBS_OF_A_PACK;
    let name = |kind: &str, number: u64| hex::encode(Sha256::digest(format!("{kind} {number}")));
    for first in (0..packs).step_by(usize::try_from(PACKS_OF_A_FILE)?) {
        let mut json = "{\"packs\":[".to_owned();
        for pack in first..packs.min(first + PACKS_OF_A_FILE) {
            let comma = if pack > first { "," } else { "" };
            write!(json, "{comma}{{\"id\":\"{}\",\"blobs\":[", name("pack", pack))?;
            for blob in 0..BLOBS_OF_A_PACK {
                let comma = if blob > 0 { "," } else { "" };
                let id = name("blob", pack * BLOBS_OF_A_PACK + blob);
                let offset = blob * length;
                write!(
                    json,
                    "{comma}{{\"id\":\"{id}\",\"type\":\"data\",\"offset\":{offset},\"length\":{length}}}"
                )?;
            }
            json.push_str("]}");
        }
        json.push_str("]}");
        let sealed = seal(key, json.as_bytes(), first)?;
        fs::write(folder.join(hex::encode(Sha256::digest(&sealed))), sealed)?;
    }
    Ok(())
}

/// The nonce before, and the authentication code behind.
const OVERHEAD: usize = 32;

/// AES-256 in counter mode, then Poly1305-AES.
fn seal(key: &MasterKey, plain: &[u8], number: u64) -> Result<Vec<u8>> {
    let decode = |text: &str| BASE64_STANDARD.decode(text).context("keys are base64");
    // Restic refuses one of zeros alone.
    let nonce = [(number + 1).to_be_bytes(), [0; 8]].concat();
    let mut sealed = [&nonce, plain].concat();
    let cipher_key = decode(&key.encrypt)?;
    ctr::Ctr128BE::<aes::Aes256>::new_from_slices(&cipher_key, &nonce)
        .context("a key of 32 bytes")?
        .apply_keystream(&mut sealed[nonce.len()..]);
    let mut pad = aes::Block::clone_from_slice(&nonce);
    let pad_key = decode(&key.mac.k)?;
    aes::Aes128::new_from_slice(&pad_key)
        .context("a key of 16 bytes")?
        .encrypt_block(&mut pad);
    let code_key = [decode(&key.mac.r)?, pad.to_vec()].concat();
    let code = Poly1305::new_from_slice(&code_key).context("a key of 32 bytes")?;
    let code = code.compute_unpadded(&sealed[nonce.len()..]);
    sealed.extend_from_slice(&code);
    Ok(sealed)
}
