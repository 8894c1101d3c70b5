//! Scratch memory, owned by the caller and grown at most once for a given size.

use alloc::vec::Vec;

use crate::KernelError;

/// Memory that starts on a cache line and is as wide as the widest vector register.
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub(crate) struct Line([u8; 64]);

/// Scratch memory of [`gemm`](crate::gemm()).
///
/// It grows when a call needs more than any before; after that, calls of that size or smaller
/// allocate nothing. [`Workspace::required`] says how much a call needs, so that it can be
/// reserved ahead. A workspace holds no state between calls and can serve any of them.
#[derive(Debug, Default, Clone)]
pub struct Workspace {
    lines: Vec<Line>,
}

impl Workspace {
    /// An empty workspace.
    #[must_use]
    pub const fn new() -> Workspace {
        Workspace { lines: Vec::new() }
    }

    /// A workspace with room for `bytes`, as [`Workspace::required`] gives them. Where there is no
    /// such room it has none, and the call that needs it says so.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Workspace {
        let mut workspace = Workspace::new();
        // An error leaves it empty.
        let _ = workspace.reserve(bytes);
        workspace
    }

    /// Makes room for `bytes`.
    pub(crate) fn reserve(&mut self, bytes: usize) -> Result<(), KernelError> {
        self.lines(bytes.div_ceil(size_of::<Line>())).map(|_| ())
    }

    /// Bytes held at present.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.lines.len() * size_of::<Line>()
    }

    /// `count` lines of unspecified content.
    pub(crate) fn lines(&mut self, count: usize) -> Result<&mut [Line], KernelError> {
        if let Some(more) = count.checked_sub(self.lines.len()) {
            self.lines
                .try_reserve_exact(more)
                .map_err(|_| KernelError::Memory {
                    bytes: count.saturating_mul(size_of::<Line>()),
                })?;
            self.lines.resize(count, Line([0; 64]));
        }
        Ok(&mut self.lines[..count])
    }
}
