//! Fields and tables as files: NumPy arrays in and out, grey pictures in.
//!
//! Invariant: files hold row-major grid order; a file that does not fit is refused before anything
//! of the run has changed.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use peercompute_buffers::layout::{ElementKind, Scalar};
use peercompute_buffers::npy;
use peercompute_kernels::Program;

use crate::state::extents;

/// The largest buffer that is imported, in bytes.
pub const IMPORT_BYTES_MAX: u64 = 64 << 30;

/// Why a file cannot be imported or exported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// There is no such buffer.
    #[error("the workload has no buffer `{name}`; there is {}", known.join(", "))]
    NoBuffer {
        /// The name given.
        name: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// The file cannot be read or written.
    #[error("cannot {action} `{}`: {cause}", path.display())]
    File {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What went wrong.
        cause: String,
    },
    /// The content does not fit the buffer.
    #[error("`{}` does not fit `{buffer}`: {cause}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The buffer.
        buffer: String,
        /// What is wrong.
        cause: String,
    },
}

/// Whether a file can be written, without writing it: its folder takes new files, or it is one that can be changed.
///
/// **Errors:** [`FileError::File`].
pub fn check_writable(path: &Path) -> Result<(), FileError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let tried = match path.metadata() {
        Ok(known) if known.is_file() => File::options().write(true).open(path).map(drop),
        Ok(known) if known.is_dir() => Err(std::io::ErrorKind::IsADirectory.into()),
        // A pipe or a terminal would notice.
        Ok(_) => Ok(()),
        Err(_) => tempfile::NamedTempFile::new_in(folder).map(drop),
    };
    tried.map_err(|cause| FileError::File { action: "write", path: path.into(), cause: cause.to_string() })
}

/// The number of a buffer that a user named.
///
/// **Errors:** [`FileError::NoBuffer`].
pub fn buffer_named(program: &Program, name: &str) -> Result<usize, FileError> {
    program
        .buffer(name)
        .ok_or_else(|| FileError::NoBuffer { name: name.into(), known: program.manifest.buffers.iter().map(|buffer| buffer.name.clone()).collect() })
}

/// Reads a whole field or table in row-major order: `.npy`, or `.png` for a scalar float field (0 to 1).
///
/// **Errors:** [`FileError`].
pub fn import(program: &Program, buffer: usize, path: &Path) -> Result<Vec<u8>, FileError> {
    let element = &program.elements[buffer];
    let shape = extents(program, buffer);
    let content = |cause: String| FileError::Content { path: path.into(), buffer: program.manifest.buffers[buffer].name.clone(), cause };
    if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("png")) {
        let picture = image::open(path).map_err(|error| FileError::File { action: "read", path: path.into(), cause: error.to_string() })?;
        if element.kind != ElementKind::Scalar(Scalar::F32) || shape.len() != 2 {
            return Err(content("a picture fills a 2-D field of f32".into()));
        }
        if [picture.width(), picture.height()] != shape[..] {
            return Err(content(format!(
                "the picture has {}×{} pixels, the grid {}×{} points",
                picture.width(),
                picture.height(),
                shape[0],
                shape[1]
            )));
        }
        return Ok(picture.to_luma32f().into_raw().iter().flat_map(|value| value.to_le_bytes()).collect());
    }
    let file = File::open(path).map_err(|error| FileError::File { action: "read", path: path.into(), cause: error.to_string() })?;
    npy::read(&mut BufReader::new(file), &shape, element, IMPORT_BYTES_MAX).map_err(|error| content(error.to_string()))
}

/// Writes a whole field or table as `.npy`.
///
/// **Errors:** the file cannot be written.
pub fn export(program: &Program, buffer: usize, bytes: &[u8], path: &Path) -> Result<(), FileError> {
    let shape = extents(program, buffer);
    let write = || {
        let mut file = BufWriter::new(File::create(path)?);
        npy::write(&mut file, &shape, &program.elements[buffer], bytes)?;
        file.flush()
    };
    write().map_err(|error: std::io::Error| FileError::File { action: "write", path: path.into(), cause: error.to_string() })
}
