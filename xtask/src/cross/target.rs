//! The processors that tests are run for, and what qemu calls them.

/// A processor family.
pub(super) struct Target {
    /// Its name on the command line.
    pub(super) name: &'static str,
    /// Its name for compilers.
    pub(super) triple: &'static str,
    /// The C compiler that links for it from another family.
    pub(super) linker: &'static str,
    /// The emulator.
    pub(super) qemu: &'static str,
    /// The loader that its programs ask for: there where the system's own libraries are installed
    /// for it.
    pub(super) loader: &'static str,
    /// Where the cross-compiler's libraries lie, for systems without that loader.
    pub(super) libraries: &'static str,
    /// How to get what it needs.
    pub(super) remedy: &'static str,
    /// Models of processors, the lowest first.
    pub(super) levels: &'static [Level],
}

/// A model of processor.
pub(super) struct Level {
    /// Its name on the command line.
    pub(super) name: &'static str,
    /// What qemu calls it.
    pub(super) cpu: &'static str,
    /// The features that tiers ask for and it has, as Linux spells them.
    pub(super) flags: &'static [&'static str],
}

pub(super) const TARGETS: &[Target] = &[
    Target {
        name: "aarch64",
        triple: "aarch64-unknown-linux-gnu",
        linker: "aarch64-linux-gnu-gcc",
        qemu: "qemu-aarch64",
        loader: "/lib/ld-linux-aarch64.so.1",
        libraries: "/usr/aarch64-linux-gnu",
        remedy: "on Debian: dpkg --add-architecture arm64; apt-get install qemu-user \
                 gcc-aarch64-linux-gnu libc6-dev-arm64-cross rustc-web libstd-rust-web-dev:arm64 \
                 (or `rustup target add aarch64-unknown-linux-gnu` for the last two)",
        levels: &[
            Level {
                name: "neon",
                cpu: "cortex-a72",
                flags: &["asimd"],
            },
            Level {
                name: "dotprod",
                cpu: "neoverse-n1",
                flags: &["asimd", "asimddp"],
            },
            Level {
                name: "i8mm",
                cpu: "max",
                flags: &["asimd", "asimddp", "i8mm"],
            },
        ],
    },
    Target {
        name: "s390x",
        triple: "s390x-unknown-linux-gnu",
        linker: "s390x-linux-gnu-gcc",
        qemu: "qemu-s390x",
        loader: "/lib/ld64.so.1",
        libraries: "/usr/s390x-linux-gnu",
        remedy: "on Debian: apt-get install qemu-user gcc-s390x-linux-gnu libc6-dev-s390x-cross \
                 rustc-web, and run .ci/s390x-std for the standard library \
                 (or `rustup target add s390x-unknown-linux-gnu` for the last two)",
        levels: &[Level {
            name: "scalar",
            cpu: "qemu",
            flags: &[],
        }],
    },
    Target {
        name: "x86_64",
        triple: "x86_64-unknown-linux-gnu",
        linker: "x86_64-linux-gnu-gcc",
        qemu: "qemu-x86_64",
        loader: "/lib64/ld-linux-x86-64.so.2",
        libraries: "/usr/x86_64-linux-gnu",
        remedy: "on Debian: apt-get install qemu-user",
        levels: &[
            Level {
                name: "scalar",
                cpu: "Nehalem",
                flags: &[],
            },
            Level {
                name: "avx2",
                cpu: "Haswell",
                flags: &["avx2", "fma", "f16c"],
            },
        ],
    },
];
