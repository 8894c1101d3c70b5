//! Files written whole or not at all.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use tempfile::NamedTempFile;

use crate::error::CliError;

/// The most links that lead from one to the next; as many as Linux follows.
const MAX_LINKS: usize = 40;

/// Where an output goes.
#[derive(Debug)]
enum Place {
    /// A file, new or to be replaced. The path is that behind all links, so that a link stays a
    /// link; the permissions are those of the file that is there.
    File {
        path: PathBuf,
        permissions: Option<Permissions>,
    },
    /// A pipe or a device, which no file may replace: it is written to.
    Stream(PathBuf),
    /// Standard output, under its name as a path. It may be a file that other text goes to as
    /// well, so it is neither replaced nor opened a second time.
    Stdout,
}

impl Place {
    fn of(path: &Path) -> io::Result<Place> {
        if path == Path::new("/dev/stdout") {
            return Ok(Place::Stdout);
        }
        match std::fs::metadata(path) {
            Ok(m) if m.is_dir() => Err(ErrorKind::IsADirectory.into()),
            Ok(m) if m.is_file() => Ok(Place::File {
                path: path.canonicalize()?,
                permissions: Some(m.permissions()),
            }),
            Ok(_) => Ok(Place::Stream(path.to_owned())),
            Err(e) if e.kind() == ErrorKind::NotFound => {
                let end = end_of_links(path)?;
                let (folder, name) = split(&end)?;
                Ok(Place::File {
                    path: folder.canonicalize()?.join(name),
                    permissions: None,
                })
            }
            Err(e) => Err(e),
        }
    }

    /// The path by which two places are the same one; `None` for places that any number of
    /// writers may share.
    fn identity(&self) -> Option<PathBuf> {
        match self {
            Place::File { path, .. } => Some(path.clone()),
            Place::Stream(path) if path == Path::new("/dev/null") => None,
            Place::Stream(path) => Some(path.canonicalize().unwrap_or_else(|_| path.clone())),
            Place::Stdout => Some(PathBuf::from("/dev/stdout")),
        }
    }
}

/// Where the links end that lead to a file which does not exist.
fn end_of_links(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        match std::fs::read_link(&path) {
            Ok(to) => path = path.parent().unwrap_or(Path::new("")).join(to),
            Err(_) => return Ok(path),
        }
    }
    Err(io::Error::other("too many links lead from one to the next"))
}

/// The folder and the name of a file.
fn split(path: &Path) -> io::Result<(&Path, OsString)> {
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "this is no name of a file"))?;
    let folder = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    Ok((folder, name.to_owned()))
}

/// A temporary file beside the place that it will take.
fn temporary(place: &Path) -> io::Result<NamedTempFile> {
    let (folder, _) = split(place)?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(".quaver-").suffix(".tmp");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        // Temporary files are private by default; a result is an ordinary file.
        builder.permissions(Permissions::from_mode(0o666));
    }
    // The error would name the temporary file, which nobody asked for.
    builder.tempfile_in(folder).map_err(|e| e.kind().into())
}

/// Checks, before any work, that outputs can be written: their folders take files, no two are the
/// same file, and none is an input. Each path stands beside the option or argument that gave it.
pub(crate) fn check(
    outputs: &[(&str, Option<&Path>)],
    inputs: &[(&str, Option<&Path>)],
) -> Result<(), CliError> {
    let mut taken: Vec<(&str, PathBuf)> = inputs
        .iter()
        // An input that is not there is a better error when it is read.
        .filter_map(|(option, path)| Some((*option, (*path)?.canonicalize().ok()?)))
        .collect();
    for (option, path) in outputs {
        let Some(path) = path else { continue };
        let place = Place::of(path).map_err(CliError::io(*path))?;
        if let Some(identity) = place.identity() {
            if let Some((other, _)) = taken.iter().find(|(_, p)| *p == identity) {
                return Err(CliError::Usage(format!(
                    "{option} is the same file as {other}: {}",
                    path.display()
                )));
            }
            taken.push((option, identity));
        }
        if let Place::File { path: place, .. } = &place {
            temporary(place).map_err(CliError::io(*path))?;
        }
    }
    Ok(())
}

/// What waits to be put in place.
#[derive(Debug)]
enum Staged {
    File { place: PathBuf, file: NamedTempFile },
    Stream { place: PathBuf, bytes: Vec<u8> },
    Stdout { bytes: Vec<u8> },
}

/// Files that are written, but not in place yet: either all of them take their places, or the
/// files that stand there stay as they were.
#[derive(Debug, Default)]
pub(crate) struct Outputs {
    /// Each with the path as it was given, which is the one that errors name.
    staged: Vec<(PathBuf, Staged)>,
}

impl Outputs {
    /// Writes a file to a temporary one beside its place; what goes to a pipe or a device waits
    /// in memory.
    pub(crate) fn add(&mut self, path: &Path, bytes: &[u8]) -> Result<(), CliError> {
        let stage = || -> io::Result<Staged> {
            Ok(match Place::of(path)? {
                Place::Stream(place) => Staged::Stream {
                    place,
                    bytes: bytes.to_vec(),
                },
                Place::Stdout => Staged::Stdout {
                    bytes: bytes.to_vec(),
                },
                Place::File {
                    path: place,
                    permissions,
                } => {
                    let mut file = temporary(&place)?;
                    file.as_file_mut().write_all(bytes)?;
                    if let Some(permissions) = permissions {
                        file.as_file().set_permissions(permissions)?;
                    }
                    file.as_file().sync_all()?;
                    Staged::File { place, file }
                }
            })
        };
        let staged = stage().map_err(CliError::io(path))?;
        self.staged.push((path.to_owned(), staged));
        Ok(())
    }

    /// Adds a value as indented JSON, with a newline at the end.
    pub(crate) fn add_json(&mut self, path: &Path, value: &impl Serialize) -> Result<(), CliError> {
        let mut bytes =
            serde_json::to_vec_pretty(value).map_err(|e| CliError::io(path)(e.into()))?;
        bytes.push(b'\n');
        self.add(path, &bytes)
    }

    /// Renames every file to its place, and writes to the pipes and devices.
    pub(crate) fn commit(self) -> Result<(), CliError> {
        // What can be found out is found out before the first change: folders that appeared in a
        // file's place, and streams that cannot be opened.
        let mut opened: Vec<Option<File>> = Vec::new();
        for (path, staged) in &self.staged {
            let stream = match staged {
                Staged::File { place, .. } if place.is_dir() => {
                    return Err(CliError::io(path)(ErrorKind::IsADirectory.into()));
                }
                Staged::Stream { place, .. } => Some(
                    OpenOptions::new()
                        .write(true)
                        .open(place)
                        .map_err(CliError::io(path))?,
                ),
                _ => None,
            };
            opened.push(stream);
        }
        for ((path, staged), stream) in self.staged.into_iter().zip(opened) {
            let done = match (staged, stream) {
                (Staged::File { place, file }, _) => {
                    file.persist(place).map(drop).map_err(|e| e.error)
                }
                (Staged::Stream { bytes, .. }, Some(mut stream)) => stream.write_all(&bytes),
                // A stream was opened above, so what is left is standard output.
                (Staged::Stream { bytes, .. } | Staged::Stdout { bytes }, _) => {
                    let mut out = io::stdout().lock();
                    out.write_all(&bytes).and_then(|()| out.flush())
                }
            };
            done.map_err(CliError::io(path))?;
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
        assert!(outputs.add(&taken, b"new").is_err());
        // A folder that appears between the two steps.
        let late = folder.path().join("late");
        outputs.add(&late, b"new").unwrap();
        std::fs::create_dir(&late).unwrap();
        assert!(outputs.commit().is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
    }

    #[cfg(unix)]
    #[test]
    fn links_stay_links_and_permissions_stay() {
        use std::os::unix::fs::{PermissionsExt as _, symlink};
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        write(&at("file"), b"old").unwrap();
        std::fs::set_permissions(at("file"), Permissions::from_mode(0o640)).unwrap();
        symlink("file", at("link")).unwrap();
        symlink("new", at("dangling")).unwrap();
        write(&at("link"), b"new").unwrap();
        write(&at("dangling"), b"new").unwrap();
        for name in ["link", "dangling"] {
            assert!(at(name).symlink_metadata().unwrap().is_symlink());
        }
        assert_eq!(std::fs::read(at("file")).unwrap(), b"new");
        assert_eq!(std::fs::read(at("new")).unwrap(), b"new");
        let mode = at("file").metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        symlink("loop", at("loop")).unwrap();
        assert!(write(&at("loop"), b"new").is_err());
        write(Path::new("/dev/null"), b"new").unwrap();
        assert!(!Path::new("/dev/null").metadata().unwrap().is_file());
    }
}
