//! What builds for a target and what runs the result, found on this machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::target::{Level, Target};
use crate::error::Error;
use crate::{process, workspace};

/// A compiler, a linker and an emulator for one target.
pub(super) struct Toolchain {
    target: &'static Target,
    /// The compiler where it is not the workspace's own.
    rustc: Option<PathBuf>,
    /// The target's standard library where it does not lie beside the compiler.
    library: Option<PathBuf>,
    /// Whether programs are linked by the target's own C compiler.
    foreign: bool,
}

/// Debian's compiler. Its standard libraries for other processors are packages, so that it serves
/// where rustup has none.
const DEBIAN: &str = "/usr/bin/rustc";

impl Toolchain {
    /// Looks for everything that the target needs, and says what is missing.
    pub(super) fn find(target: &'static Target) -> Result<Toolchain, Error> {
        let absent = |missing: &str| Error::Absent {
            what: format!("the tests for {}", target.name),
            missing: missing.to_owned(),
            remedy: target.remedy.to_owned(),
        };
        if !process::quietly(Command::new(target.qemu).arg("--version")) {
            return Err(absent(target.qemu));
        }
        let foreign = !target.triple.starts_with(std::env::consts::ARCH);
        if foreign && !process::quietly(Command::new(target.linker).arg("--version")) {
            return Err(absent(target.linker));
        }
        let named = std::env::var_os("QUAVER_CROSS_RUSTC").map(PathBuf::from);
        let compilers = match named {
            Some(named) => vec![Some(named)],
            None => vec![None, Some(PathBuf::from(DEBIAN))],
        };
        for rustc in compilers {
            if has_library(target, rustc.as_deref()) {
                return Ok(Toolchain {
                    target,
                    rustc,
                    library: None,
                    foreign,
                });
            }
        }
        let variable = format!("QUAVER_{}_STD", target.name.to_uppercase());
        let library = std::env::var_os(&variable).map_or_else(
            || workspace::target().join(format!("{}-std", target.name)),
            PathBuf::from,
        );
        if !holds_core(&library) {
            return Err(absent("a Rust standard library for it"));
        }
        let rustc = std::env::var_os("QUAVER_CROSS_RUSTC").unwrap_or_else(|| DEBIAN.into());
        Ok(Toolchain {
            target,
            rustc: Some(PathBuf::from(rustc)),
            library: Some(library),
            foreign,
        })
    }

    /// What was found, in words.
    pub(super) fn describe(&self) -> String {
        let rustc = self.rustc.as_ref().map_or_else(
            || "the workspace's compiler".to_owned(),
            |rustc| rustc.display().to_string(),
        );
        match &self.library {
            Some(library) => format!("{rustc} with {}", library.display()),
            None => rustc,
        }
    }

    /// Makes a command of cargo build for the target.
    pub(super) fn prepare(&self, cargo: &mut Command) {
        cargo.args(["--target", self.target.triple]);
        let variable = |name: &str| {
            let triple = self.target.triple.replace('-', "_").to_uppercase();
            format!("CARGO_TARGET_{triple}_{name}")
        };
        if let Some(rustc) = &self.rustc {
            cargo.env("RUSTC", rustc);
        }
        if self.foreign {
            cargo.env(variable("LINKER"), self.target.linker);
        }
        if let Some(library) = &self.library {
            let flags = format!("-L {}", library.display());
            cargo.env(variable("RUSTFLAGS"), flags);
        }
    }

    /// The emulator as a model of processor, ready for a program's path.
    pub(super) fn emulator(&self, level: &Level) -> Vec<String> {
        let mut command = vec![
            self.target.qemu.to_owned(),
            "-cpu".to_owned(),
            level.cpu.to_owned(),
        ];
        // Where the system has the target's own loader, the cross-compiler's libraries beside it
        // may be of another version, and every new thread then spins for ever.
        if !Path::new(self.target.loader).exists() {
            command.extend(["-L".to_owned(), self.target.libraries.to_owned()]);
        }
        command
    }
}

/// Whether a compiler has the target's standard library beside it.
fn has_library(target: &Target, rustc: Option<&Path>) -> bool {
    let mut command = Command::new(rustc.unwrap_or_else(|| Path::new("rustc")));
    command
        .args(["--print", "target-libdir", "--target", target.triple])
        // The workspace's toolchain file decides which compiler `rustc` is.
        .current_dir(workspace::root());
    command
        .output()
        .ok()
        .filter(|output| output.status.success())
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .is_some_and(|folder| holds_core(Path::new(folder.trim())))
}

fn holds_core(folder: &Path) -> bool {
    std::fs::read_dir(folder).is_ok_and(|entries| {
        entries.flatten().any(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.starts_with("libcore-") && name.ends_with(".rlib")
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cross::target::TARGETS;

    #[test]
    fn the_compiler_of_this_workspace_has_its_own_library() {
        let here = TARGETS
            .iter()
            .find(|target| target.triple.starts_with(std::env::consts::ARCH));
        if let Some(here) = here {
            assert!(has_library(here, None));
        }
        assert!(!has_library(&TARGETS[0], Some(Path::new("/no/such/rustc"))));
    }

    #[test]
    fn a_foreign_target_has_a_linker_a_library_and_a_model() {
        let toolchain = Toolchain {
            target: &TARGETS[1],
            rustc: Some(PathBuf::from(DEBIAN)),
            library: Some(PathBuf::from("/std")),
            foreign: true,
        };
        let mut cargo = Command::new("cargo");
        toolchain.prepare(&mut cargo);
        let shown = process::shown(&cargo);
        for part in [
            "RUSTC=/usr/bin/rustc",
            "CARGO_TARGET_S390X_UNKNOWN_LINUX_GNU_LINKER=s390x-linux-gnu-gcc",
            "RUSTFLAGS='-L /std'",
            "--target s390x-unknown-linux-gnu",
        ] {
            assert!(shown.contains(part), "{shown}");
        }
        let emulator = toolchain.emulator(&TARGETS[1].levels[0]);
        assert_eq!(emulator[..3], ["qemu-s390x", "-cpu", "qemu"]);
    }
}
