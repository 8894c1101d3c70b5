//! Files written whole or not at all.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;
use tempfile::NamedTempFile;

use crate::error::CliError;

/// Files that are written, but not in place yet: either all of them take their places, or the
/// files that stand there stay as they were.
#[derive(Debug, Default)]
pub(crate) struct Outputs {
    staged: Vec<(PathBuf, NamedTempFile)>,
}

impl Outputs {
    /// Writes a file to a temporary one beside its place.
    pub(crate) fn add(&mut self, path: &Path, bytes: &[u8]) -> Result<(), CliError> {
        let folder = match path.parent() {
            Some(p) if !p.as_os_str().is_empty() => p,
            _ => Path::new("."),
        };
        let write = || {
            let mut builder = tempfile::Builder::new();
            builder.prefix(".quaver-").suffix(".tmp");
            #[cfg(unix)]
            {
                use std::os::unix::fs::PermissionsExt as _;
                // Temporary files are private by default; a result is an ordinary file.
                builder.permissions(std::fs::Permissions::from_mode(0o644));
            }
            let mut file = builder.tempfile_in(folder)?;
            file.write_all(bytes)?;
            file.as_file().sync_all()?;
            Ok(file)
        };
        let file = write().map_err(CliError::io(path))?;
        self.staged.push((path.to_owned(), file));
        Ok(())
    }

    /// Adds a value as indented JSON, with a newline at the end.
    pub(crate) fn add_json(&mut self, path: &Path, value: &impl Serialize) -> Result<(), CliError> {
        let mut bytes = serde_json::to_vec_pretty(value).map_err(|e| CliError::Io {
            path: path.to_owned(),
            source: e.into(),
        })?;
        bytes.push(b'\n');
        self.add(path, &bytes)
    }

    /// Renames every file to its place.
    pub(crate) fn commit(self) -> Result<(), CliError> {
        // What a rename could fail at is found out before the first one.
        if let Some((path, _)) = self.staged.iter().find(|(path, _)| path.is_dir()) {
            return Err(CliError::Io {
                path: path.clone(),
                source: std::io::ErrorKind::IsADirectory.into(),
            });
        }
        for (path, file) in self.staged {
            file.persist(&path).map_err(|e| CliError::Io {
                path,
                source: e.error,
            })?;
        }
        Ok(())
    }
}

/// Writes one file.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    let mut outputs = Outputs::default();
    outputs.add(path, bytes)?;
    outputs.commit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_replaced_whole_and_leave_nothing_beside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.json");
        for value in [&[1, 2][..], &[3]] {
            let mut outputs = Outputs::default();
            outputs.add_json(&path, &value).unwrap();
            outputs.commit().unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "[\n  3\n]\n");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(write(&folder.path().join("no/such/file"), b"x").is_err());
    }

    #[test]
    fn one_file_that_cannot_be_written_keeps_all_from_being_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        write(&path, b"old").unwrap();
        let taken = folder.path().join("taken");
        std::fs::create_dir(&taken).unwrap();
        let mut outputs = Outputs::default();
        outputs.add(&path, b"new").unwrap();
        outputs.add(&taken, b"new").unwrap();
        assert!(outputs.commit().is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
