//! Builds the C shim of the `onednn` peer where its feature is on.

fn main() {
    println!("cargo:rerun-if-changed=shim");
    #[cfg(feature = "peer-onednn")]
    onednn();
}

#[cfg(feature = "peer-onednn")]
fn onednn() {
    if let Err(error) = cc::Build::new()
        .file("shim/onednn.c")
        .try_compile("quaver_onednn")
    {
        println!(
            "cargo::error=the peer onednn needs a C compiler and the headers of oneDNN 2.x (Debian: \
             apt-get install libdnnl-dev): {error}"
        );
    }
    println!("cargo:rustc-link-lib=dnnl");
    println!("cargo:rustc-link-lib=gomp");
}
