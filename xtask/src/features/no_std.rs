//! A crate without its features needs no `std`: proven by linking it where there is none.
//!
//! A library that brings its own panic handler cannot be linked with `std`, which has one too. So it
//! is refused as soon as anything that the crate depends on asks for `std`, on any target.

use std::path::Path;
use std::time::Instant;

use crate::error::Error;
use crate::{process, workspace};

/// The library: it only has what `std` would bring.
const SOURCE: &str = "\
#![no_std]
extern crate alloc;
extern crate CRATE as _;

use core::alloc::{GlobalAlloc, Layout};

struct Nothing;

// SAFETY: null is how an allocator says that it has no memory.
unsafe impl GlobalAlloc for Nothing {
    unsafe fn alloc(&self, _: Layout) -> *mut u8 {
        core::ptr::null_mut()
    }
    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

#[global_allocator]
static ALLOCATOR: Nothing = Nothing;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
";

/// Links a crate of the workspace, without its features, into such a library.
pub(super) fn check(name: &str) -> Result<(), Error> {
    let start = Instant::now();
    let folder = workspace::target().join("no-std").join(name);
    let manifest = folder.join("Cargo.toml");
    let path = workspace::root().join("crates").join(name);
    write(&folder.join("src/lib.rs"), &SOURCE.replace("CRATE", name))?;
    write(&manifest, &manifest_of(name, &path))?;
    // The same versions of what it depends on.
    let lock = workspace::root().join("Cargo.lock");
    let locked =
        std::fs::read_to_string(&lock).map_err(|source| Error::Io { path: lock, source })?;
    write(&folder.join("Cargo.lock"), &locked)?;
    let mut cargo = process::cargo(["build", "--quiet", "--manifest-path"]);
    cargo.arg(&manifest).arg("--target-dir");
    cargo.arg(workspace::target().join("no-std/target"));
    process::run(&mut cargo)?;
    println!(
        "features: {name} links where there is no std ({:.0} s)",
        start.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Apart from the workspace, whose other crates would switch on features of this one.
fn manifest_of(name: &str, path: &Path) -> String {
    // In quotes and escaped as TOML and Rust both do.
    let path = path.display().to_string();
    format!(
        "[package]\nname = \"{name}-without-std\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\
         publish = false\n\n[lib]\ncrate-type = [\"staticlib\"]\n\n[workspace]\n\n\
         [dependencies]\n{name} = {{ path = {path:?}, default-features = false }}\n\n\
         [profile.dev]\npanic = \"abort\"\n"
    )
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    let failed = |source| Error::Io {
        path: path.to_path_buf(),
        source,
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    // Unchanged files are left alone, so that cargo sees that nothing changed.
    if std::fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    std::fs::write(path, text).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_depends_on_the_crate_alone() {
        let manifest = manifest_of("q", Path::new("/w/a b/q"));
        assert!(manifest.contains("q = { path = \"/w/a b/q\", default-features = false }"));
        assert!(manifest.contains("[workspace]"));
    }
}
