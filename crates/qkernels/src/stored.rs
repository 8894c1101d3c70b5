//! Packed weights as bytes: written once, read or mapped later without packing again.
//!
//! ```text
//! bytes   what
//!  0..8   magic "QVPACKED"
//!  8..12  version, 1
//! 12..16  byte order: 0x01020304 as the machine that wrote it has it
//! 16..48  name of the kernel's layout, padded with zeros
//! 48..49  arithmetic      49..50  element type      50..52  zero
//! 52..56  largest magnitude of an integer element
//! 56..64  K               64..72  N
//! 72..80  bytes of packed elements
//! 80..88  column sums, those of the padding included
//! 88..92  CRC-32 (ISO-HDLC) of everything else     92..128  zero
//! 128..   packed elements, padded with zeros to a multiple of 64; then column sums, i32
//! ```
//!
//! Numbers are in the byte order of the machine, so that elements can be read in place; another
//! order is refused. Nothing is trusted: every size follows from K, N and the kernel, and is
//! compared with the length before anything is read or allocated.

use alloc::string::String;
use alloc::vec::Vec;

use qformat::DType;

use crate::kernel::Microkernel;
use crate::pack::{Header, PackedB, PackedRef, Sizes};
use crate::select::{VisitKernel, with_kernel};
use crate::{Arithmetic, Isa, KernelError};

const MAGIC: &[u8; 8] = b"QVPACKED";
const VERSION: u32 = 1;
const ORDER: u32 = 0x0102_0304;
const HEADER: usize = 128;
const NAME: core::ops::Range<usize> = 16..48;
const CHECKSUM: core::ops::Range<usize> = 88..92;

/// Alignment that bytes must have to be used in place.
const ALIGN: usize = align_of::<i32>();

/// Arithmetics by their number in the file: the order is part of the format.
const ARITHMETICS: [Arithmetic; 6] = [
    Arithmetic::Int8,
    Arithmetic::Int16,
    Arithmetic::F16,
    Arithmetic::F16Sums,
    Arithmetic::Bf16,
    Arithmetic::Bf16Hardware,
];

/// Element types by their number in the file: the order is part of the format.
const DTYPES: [DType; 5] = [DType::I8, DType::U8, DType::I16, DType::F16, DType::Bf16];

fn bad(reason: impl Into<String>) -> KernelError {
    KernelError::Stored {
        reason: reason.into(),
    }
}

/// CRC of all but the checksum itself.
pub(crate) fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&bytes[..CHECKSUM.start]);
    crc.update(&bytes[CHECKSUM.end..]);
    crc.finalize()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..]
        .first_chunk()
        .map_or(0, |b| u32::from_ne_bytes(*b))
}

fn size_at(bytes: &[u8], at: usize) -> Result<usize, KernelError> {
    let v = bytes[at..]
        .first_chunk()
        .map_or(0, |b| u64::from_ne_bytes(*b));
    usize::try_from(v).map_err(|_| bad(alloc::format!("a size of {v} does not fit this machine")))
}

/// Sizes of a packed B in a file, and of what lies between.
struct Extent {
    sizes: Sizes,
    /// Where the column sums start.
    sums_at: usize,
    total: usize,
}

impl Extent {
    fn new(sizes: Sizes) -> Option<Extent> {
        let sums_at = HEADER.checked_add(sizes.bytes.checked_next_multiple_of(64)?)?;
        let total = sums_at.checked_add(sizes.sums.checked_mul(size_of::<i32>())?)?;
        Some(Extent {
            sizes,
            sums_at,
            total,
        })
    }
}

/// The kernel of a tier, and sizes of `k × n` elements packed for it.
struct Facts {
    k: usize,
    n: usize,
}

impl VisitKernel for Facts {
    type Output = (&'static str, Option<Sizes>);
    fn visit<K: Microkernel>(self, _tier: K::Home) -> Self::Output {
        (K::ID, Sizes::new::<K>(self.k, self.n))
    }
}

impl PackedB {
    /// Bytes that [`write_to`](Self::write_to) fills.
    #[must_use]
    pub fn stored_len(&self) -> usize {
        let sizes = Sizes {
            bytes: self.as_ref().data.len(),
            sums: self.as_ref().col_sums.len(),
        };
        // Both lie in memory, so their sum fits.
        Extent::new(sizes).map_or(usize::MAX, |e| e.total)
    }

    /// The weights as bytes, for [`PackedRef::from_bytes`] and [`PackedB::from_bytes`].
    ///
    /// ```
    /// use qkernels::{Isa, Layout, MatRef, PackedB};
    /// let b = MatRef::new(&[1i8, 2, 3, 4], 2, 2)?;
    /// let packed = PackedB::pack(Isa::detect(), b, Layout::RowMajor)?;
    /// let bytes = packed.to_bytes();
    /// let again = PackedB::from_bytes(&bytes)?;
    /// assert_eq!(again.col_sums(), [4, 6]);
    /// # Ok::<(), qkernels::KernelError>(())
    /// ```
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = alloc::vec![0; self.stored_len()];
        let done = self.write_to(&mut bytes);
        debug_assert!(done.is_ok());
        bytes
    }

    /// Writes the weights into `out`, which must have [`stored_len`](Self::stored_len) bytes.
    ///
    /// # Errors
    ///
    /// [`KernelError::Length`] when it has another length.
    pub fn write_to(&self, out: &mut [u8]) -> Result<(), KernelError> {
        crate::error::check_len("out", out.len(), self.stored_len())?;
        let PackedRef {
            header,
            data,
            col_sums,
            outliers: _,
        } = self.as_ref();
        out.fill(0);
        let mut put = |at: usize, bytes: &[u8]| out[at..][..bytes.len()].copy_from_slice(bytes);
        put(0, MAGIC);
        put(8, &VERSION.to_ne_bytes());
        put(12, &ORDER.to_ne_bytes());
        put(NAME.start, header.kernel.as_bytes());
        let number = |i: Option<usize>| i.and_then(|i| u8::try_from(i).ok()).unwrap_or(u8::MAX);
        put(
            48,
            &[number(
                ARITHMETICS.iter().position(|a| *a == header.arithmetic),
            )],
        );
        put(
            49,
            &[number(DTYPES.iter().position(|d| *d == header.dtype))],
        );
        put(52, &header.max_abs.to_ne_bytes());
        for (at, size) in [
            (56, header.k),
            (64, header.n),
            (72, data.len()),
            (80, col_sums.len()),
        ] {
            put(at, &(size as u64).to_ne_bytes());
        }
        put(HEADER, data);
        let sums_at = HEADER + data.len().next_multiple_of(64);
        put(sums_at, bytemuck::cast_slice(col_sums));
        let crc = checksum(out).to_ne_bytes();
        out[CHECKSUM].copy_from_slice(&crc);
        Ok(())
    }

    /// Reads weights, wherever the bytes lie; what is read is copied.
    ///
    /// # Errors
    ///
    /// As [`PackedRef::from_bytes`], and [`KernelError::TooLarge`] without memory for the copy.
    pub fn from_bytes(bytes: &[u8]) -> Result<PackedB, KernelError> {
        let (header, extent) = read(bytes)?;
        PackedB::from_parts(
            header,
            &bytes[HEADER..][..extent.sizes.bytes],
            &bytes[extent.sums_at..extent.total],
        )
    }
}

impl<'a> PackedRef<'a> {
    /// Reads weights in place: nothing is copied, so that a mapped file can be used as it is.
    ///
    /// They run on the tier whose layout they have, the best one of those that run here. On `avx2`
    /// products of many rows are faster with a copy ([`PackedB::from_bytes`]), which has room for what
    /// is found out about the weights.
    ///
    /// # Errors
    ///
    /// [`KernelError::Stored`] with the reason when the bytes are no packed weights, are cut short,
    /// damaged (a checksum covers all of them), of another version or byte order, or do not start
    /// at an address that is a multiple of 4; [`KernelError::StoredFor`] when no tier that runs here
    /// reads their layout.
    ///
    /// ```
    /// use qkernels::{Isa, KernelError, Layout, MatRef, PackedB, PackedRef};
    /// let b = MatRef::new(&[1i8, 2, 3, 4], 2, 2)?;
    /// let mut bytes = PackedB::pack(Isa::detect(), b, Layout::RowMajor)?.to_bytes();
    /// bytes[130] ^= 1;
    /// assert!(matches!(PackedRef::from_bytes(&bytes), Err(KernelError::Stored { .. })));
    /// # Ok::<(), KernelError>(())
    /// ```
    pub fn from_bytes(bytes: &'a [u8]) -> Result<PackedRef<'a>, KernelError> {
        let (header, extent) = read(bytes)?;
        if !(bytes.as_ptr() as usize).is_multiple_of(ALIGN) {
            return Err(bad(alloc::format!(
                "they start at an address that is not a multiple of {ALIGN}: copy them instead"
            )));
        }
        let sums = &bytes[extent.sums_at..extent.total];
        Ok(PackedRef {
            header,
            data: &bytes[HEADER..][..extent.sizes.bytes.next_multiple_of(64)],
            // The start is aligned, and so is every offset.
            col_sums: bytemuck::try_cast_slice(sums).map_err(|e| bad(alloc::format!("{e}")))?,
            outliers: None,
        })
    }
}

/// Checks everything and gives what the bytes hold.
fn read(bytes: &[u8]) -> Result<(Header, Extent), KernelError> {
    if bytes.len() < HEADER {
        return Err(bad(alloc::format!(
            "{} bytes are fewer than the {HEADER} of a header",
            bytes.len()
        )));
    }
    if &bytes[..8] != MAGIC {
        return Err(bad("they do not start with \"QVPACKED\""));
    }
    let order = u32_at(bytes, 12);
    if order != ORDER {
        return Err(bad("they were written on a machine of another byte order"));
    }
    let version = u32_at(bytes, 8);
    if version != VERSION {
        return Err(bad(alloc::format!(
            "version {version} is unknown: {VERSION} can be read"
        )));
    }
    let name = &bytes[NAME];
    let name = &name[..name.iter().position(|&b| b == 0).unwrap_or(name.len())];
    let arithmetic = *ARITHMETICS
        .get(usize::from(bytes[48]))
        .ok_or_else(|| bad(alloc::format!("arithmetic {} is unknown", bytes[48])))?;
    let dtype = *DTYPES
        .get(usize::from(bytes[49]))
        .ok_or_else(|| bad(alloc::format!("element type {} is unknown", bytes[49])))?;
    if !arithmetic.takes(dtype) {
        return Err(bad(alloc::format!(
            "{arithmetic:?} arithmetic does not take {dtype}"
        )));
    }
    let (k, n) = (size_at(bytes, 56)?, size_at(bytes, 64)?);
    let (isa, kernel, sizes) = Isa::available()
        .rev()
        .find_map(|isa| {
            let (kernel, sizes) = with_kernel(isa, arithmetic, Facts { k, n });
            (kernel.as_bytes() == name).then_some((isa, kernel, sizes))
        })
        .ok_or_else(|| KernelError::StoredFor {
            kernel: String::from_utf8_lossy(name).into_owned(),
        })?;
    let extent = sizes.and_then(Extent::new).ok_or_else(|| {
        bad(alloc::format!(
            "{k} x {n} elements do not fit the address space"
        ))
    })?;
    let claimed = (size_at(bytes, 72)?, size_at(bytes, 80)?);
    let padded = extent.sizes.bytes.next_multiple_of(64);
    if claimed != (padded, extent.sizes.sums) || bytes.len() != extent.total {
        return Err(bad(alloc::format!(
            "{k} x {n} elements take {} bytes in all, but there are {}",
            extent.total,
            bytes.len()
        )));
    }
    let (stored, computed) = (u32_at(bytes, CHECKSUM.start), checksum(bytes));
    if stored != computed {
        return Err(bad(alloc::format!(
            "their checksum is {computed:08x}, but {stored:08x} was stored"
        )));
    }
    let max_abs = u32_at(bytes, 52);
    if arithmetic == Arithmetic::Int16 {
        // Sums of i16 are bounded by it.
        let elements = bytes[HEADER..][..extent.sizes.bytes].as_chunks().0;
        let magnitudes = elements
            .iter()
            .map(|&e| i16::from_ne_bytes(e).unsigned_abs());
        let largest: u32 = magnitudes.max().unwrap_or(0).into();
        if largest != max_abs {
            return Err(bad(alloc::format!(
                "their largest magnitude is {largest}, but {max_abs} was stored"
            )));
        }
    }
    let header = Header {
        isa,
        kernel,
        arithmetic,
        dtype,
        k,
        n,
        max_abs,
    };
    Ok((header, extent))
}
