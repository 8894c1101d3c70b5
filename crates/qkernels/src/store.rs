//! The epilogue's arithmetic: a chunk of exact sums to a chunk of output.
//!
//! Plain loops over arrays of fixed length, vectorised by the compiler inside each tier's door;
//! the tail of a row goes through a chunk on the stack, so there is no scalar remainder.

use crate::epilogue::Residual;
use crate::kernel::Acc;
use crate::out::Rows;
use crate::plan::CHUNK;
use crate::portable::{f32_to_bf16_bits, f32_to_f16_bits};
use crate::quantize::ROUND;

/// What is done to scaled sums, and the type that they are stored as.
#[derive(Clone, Copy)]
pub(crate) enum Steps<'a> {
    /// The sums are stored as they are: as i32, or those of floats as f32.
    Sums,
    /// Clamp, store as f32.
    Floats { clamp: Option<(f32, f32)> },
    /// Clamp, round to f16.
    F16 { clamp: Option<(f32, f32)> },
    /// Clamp, round to bf16.
    Bf16 { clamp: Option<(f32, f32)> },
    /// Clamp, round, add the zero point, store the low byte; or what a table has for it.
    Bytes {
        lo: f32,
        hi: f32,
        zero_point: i32,
        table: Option<&'a [u8; 256]>,
    },
}

impl Steps<'_> {
    /// Bytes of an output element.
    #[inline(always)]
    #[allow(dead_code, reason = "only kernels that finish tiles themselves ask")]
    pub(crate) const fn size(&self) -> usize {
        match self {
            Steps::Sums | Steps::Floats { .. } => 4,
            Steps::F16 { .. } | Steps::Bf16 { .. } => 2,
            Steps::Bytes { .. } => 1,
        }
    }
}

/// What the epilogue does to every tile of a call.
#[derive(Clone, Copy)]
pub(crate) struct Store<'a> {
    pub(crate) steps: Steps<'a>,
    /// Factors of rows, multiplied with those of columns.
    pub(crate) row_scale: Option<&'a [f32]>,
    /// Added before the clamp.
    pub(crate) residual: Option<Residual<'a>>,
}

impl Store<'_> {
    /// Whether a kernel may finish tiles in registers by the steps and these factors of rows
    /// alone.
    #[inline(always)]
    pub(crate) fn by_steps(&self, rows: Option<&[f32]>) -> bool {
        self.row_scale.is_some() == rows.is_some()
            && self.residual.is_none()
            && !matches!(self.steps, Steps::Bytes { table: Some(_), .. })
    }
}

/// A finished tile of sums, and what belongs to its columns (from its first one on, in whole
/// chunks) and rows.
pub(crate) struct Tile<'a, A> {
    pub(crate) acc: &'a [A],
    pub(crate) stride: usize,
    /// Rows and first column in the output.
    pub(crate) rows: Rows,
    pub(crate) col: usize,
    pub(crate) cols: usize,
    pub(crate) scale: &'a [f32],
    pub(crate) bias: Option<&'a [f32]>,
}

#[inline(always)]
fn clamped(v: &mut [f32; CHUNK], limits: Option<(f32, f32)>) {
    if let Some((lo, hi)) = limits {
        for v in v {
            let w = if *v > lo { *v } else { lo };
            *v = if w < hi { w } else { hi };
        }
    } else {
        for v in v {
            *v = v.canonical();
        }
    }
}

/// Stores a tile, chunk of columns by chunk, so that what belongs to a column is loaded once.
///
/// `out(r, at, bytes)` gives the `bytes` of output row `r` of the tile from its column `at` on.
#[inline(always)]
pub(crate) fn store_tile<'o, A: Acc>(
    store: &Store<'_>,
    tile: &Tile<'_, A>,
    out: impl Fn(usize, usize, usize) -> &'o mut [u8],
) {
    // The choice is made once a tile; each loop is compiled for its own steps.
    match store.steps {
        Steps::Sums => each_chunk::<A, 4>(store, tile, out, |acc, _| {
            let mut bytes = [[0; 4]; CHUNK];
            for (to, sum) in bytes.iter_mut().zip(acc) {
                *to = bytemuck::cast(*sum);
            }
            bytes
        }),
        Steps::Floats { clamp } => each_chunk::<A, 4>(store, tile, out, |_, mut v| {
            clamped(&mut v, clamp);
            v.map(f32::to_ne_bytes)
        }),
        Steps::F16 { clamp } => each_chunk::<A, 2>(store, tile, out, |_, mut v| {
            clamped(&mut v, clamp);
            v.map(|v| f32_to_f16_bits(v).to_ne_bytes())
        }),
        Steps::Bf16 { clamp } => each_chunk::<A, 2>(store, tile, out, |_, mut v| {
            clamped(&mut v, clamp);
            v.map(|v| f32_to_bf16_bits(v).to_ne_bytes())
        }),
        Steps::Bytes {
            lo,
            hi,
            zero_point,
            table,
        } => each_chunk::<A, 1>(store, tile, out, |_, v| {
            let mut bytes = [[0; 1]; CHUNK];
            for (to, v) in bytes.iter_mut().zip(v) {
                // As `round_clamped`: NaN takes `lo`. The result is a value of the type, so its
                // low byte is all of it, and the constant that rounds has none.
                let v = if v > lo { v } else { lo };
                let v = if v < hi { v } else { hi };
                *to = [((v + ROUND).to_bits() as i32).wrapping_add(zero_point) as u8];
            }
            if let Some(table) = table {
                for to in &mut bytes {
                    to[0] = table[usize::from(to[0])];
                }
            }
            bytes
        }),
    }
}

/// Scales and adds, then calls `finish(sums, scaled)` for every chunk.
#[inline(always)]
fn each_chunk<'o, A: Acc, const SIZE: usize>(
    store: &Store<'_>,
    tile: &Tile<'_, A>,
    out: impl Fn(usize, usize, usize) -> &'o mut [u8],
    finish: impl Fn(&[A; CHUNK], [f32; CHUNK]) -> [[u8; SIZE]; CHUNK],
) {
    for at in (0..tile.cols).step_by(CHUNK) {
        let count = CHUNK.min(tile.cols - at);
        let scale = chunk_at(tile.scale, at);
        let bias = tile.bias.map(|b| chunk_at(b, at));
        for r in 0..tile.rows.count {
            let acc: &[A; CHUNK] = chunk_at(tile.acc, r * tile.stride + at);
            let mut v = [0f32; CHUNK];
            match store.row_scale {
                None => {
                    for j in 0..CHUNK {
                        v[j] = acc[j].to_f32() * scale[j];
                    }
                }
                Some(rows) => {
                    let row = rows[tile.rows.at(r)];
                    for j in 0..CHUNK {
                        v[j] = acc[j].to_f32() * (row * scale[j]);
                    }
                }
            }
            if let Some(bias) = bias {
                for j in 0..CHUNK {
                    v[j] += bias[j];
                }
            }
            if let Some(residual) = &store.residual {
                residual.add(tile.rows.at(r), tile.col + at, &mut v[..count]);
            }
            let done = finish(acc, v);
            let out = out(r, at, count * SIZE);
            if let Some(out) = out.as_chunks_mut().0.first_chunk_mut::<CHUNK>() {
                *out = done;
                continue;
            }
            // Bounded, so that it does not become a call of memcpy for a few bytes.
            for (out, done) in out.as_chunks_mut().0.iter_mut().zip(done).take(CHUNK - 1) {
                *out = done;
            }
        }
    }
}

/// The chunk that starts at `at`.
#[inline(always)]
fn chunk_at<T>(data: &[T], at: usize) -> &[T; CHUNK] {
    match data[at..].first_chunk() {
        Some(chunk) => chunk,
        // The plan pads every array to whole chunks.
        None => unreachable!(),
    }
}
