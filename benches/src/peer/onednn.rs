//! oneDNN 2.x through a C shim (`shim/onednn.c`): integer, bf16 and f32 matmul, and int8
//! convolution.
//!
//! Its threads come from OpenMP, whose idle workers by default spin on a processor that others are
//! being timed on: the bench bounds that before the library is loaded ([`crate::environment`]). Below its AVX-512 tiers its products of bytes saturate: the share of
//! equal answers says so.
#![allow(unsafe_code, reason = "oneDNN is a C library")]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::{self, NonNull};

use qformat::DType;
use qkernels::Isa;

use super::task::{Conv, Finish, MatMul, Requantize, Task, Weights};
use super::{Peer, Work};
use crate::BenchError;
use crate::values::{Data, Values};

/// `qt_finish` of the shim.
#[repr(C)]
struct RawFinish {
    scales: *const f32,
    bias: *const i32,
    channels: i64,
    zero_point_a: i32,
    zero_point_b: i32,
    zero_point_out: i32,
    relu: i32,
}

/// `qt_matmul` of the shim.
#[repr(C)]
struct RawMatMul {
    batch: i64,
    m: i64,
    k: i64,
    n: i64,
    type_a: i32,
    type_b: i32,
    type_c: i32,
    threads: i32,
    copies: i32,
    packed: i32,
    b: *const c_void,
    finish: RawFinish,
}

/// `qt_conv` of the shim.
#[repr(C)]
struct RawConv {
    batch: i64,
    height: i64,
    width: i64,
    inputs: i64,
    outputs: i64,
    groups: i64,
    kernel_h: i64,
    kernel_w: i64,
    stride: i64,
    pad_top: i64,
    pad_left: i64,
    pad_bottom: i64,
    pad_right: i64,
    type_a: i32,
    type_c: i32,
    threads: i32,
    weights: *const c_void,
    finish: RawFinish,
}

/// `qt_work` of the shim: only ever behind a pointer.
#[repr(C)]
struct RawWork {
    _opaque: [u8; 0],
}

unsafe extern "C" {
    fn qt_cap(tier: c_int) -> c_int;
    fn qt_matmul_new(spec: *const RawMatMul, out: *mut *mut RawWork) -> c_int;
    fn qt_conv_new(spec: *const RawConv, out: *mut *mut RawWork) -> c_int;
    fn qt_run(work: *mut RawWork, a: *const c_void, b: *const c_void, c: *mut c_void) -> c_int;
    fn qt_implementation(work: *const RawWork) -> *const c_char;
    fn qt_free(work: *mut RawWork);
}

/// Success, in oneDNN's numbering and in the shim's.
const SUCCESS: c_int = 0;

/// What oneDNN has no code for.
const UNIMPLEMENTED: c_int = 3;

/// Our tiers, with the caps of the shim that allow the same instructions. A tier that is not here
/// is above all caps.
const CAPS: &[(&str, c_int)] = &[
    ("scalar", 1),
    ("avx2", 2),
    ("avx_vnni", 3),
    ("avx512bw", 4),
    ("avx512_vnni", 5),
];

struct OneDnn {
    isa: &'static str,
}

/// Caps the library; it must not have run anything yet.
pub(super) fn open(cap: Option<Isa>) -> Result<Box<dyn Peer>, BenchError> {
    let found = cap.and_then(|isa| CAPS.iter().find(|(name, _)| *name == isa.name()));
    let Some(&(isa, tier)) = found else {
        return Ok(Box::new(OneDnn { isa: "own" }));
    };
    // SAFETY: it takes a number and touches nothing of ours.
    check("qt_cap", unsafe { qt_cap(tier) })?;
    Ok(Box::new(OneDnn { isa }))
}

impl Peer for OneDnn {
    fn name(&self) -> &'static str {
        "onednn"
    }

    fn isa(&self) -> &'static str {
        self.isa
    }

    fn prepare(
        &self,
        task: &Task<'_>,
        threads: usize,
    ) -> Result<Option<Box<dyn Work>>, BenchError> {
        let mut raw = ptr::null_mut();
        let (status, a, b, c) = match task {
            Task::MatMul(task) => {
                let Some((spec, c)) = matmul(task, threads) else {
                    return Ok(None);
                };
                let b = (task.weights == Weights::Plain).then(|| task.b.to_data());
                // SAFETY: the spec mirrors the shim's, and what it points to (weights, bias, scales
                // of `n` elements) lives until the call returns, which copies it.
                let status = unsafe { qt_matmul_new(&raw const spec, &raw mut raw) };
                (status, task.a, b, c)
            }
            Task::Conv(task) => {
                let Some((spec, c)) = conv(task, threads) else {
                    return Ok(None);
                };
                // SAFETY: as above, with `outputs` elements of bias and scales.
                let status = unsafe { qt_conv_new(&raw const spec, &raw mut raw) };
                (status, task.a, None, c)
            }
            Task::Map(_) => return Ok(None),
        };
        // Owned from here, so that a half-made one is freed.
        let Some(raw) = NonNull::new(raw) else {
            return Err(failed("out of memory".to_owned()));
        };
        let work = OneDnnWork {
            raw,
            a: a.to_data(),
            b,
            c,
        };
        match status {
            SUCCESS => Ok(Some(Box::new(work))),
            UNIMPLEMENTED => Ok(None),
            status => Err(failed(format!("preparing gives status {status}"))),
        }
    }
}

fn matmul(task: &MatMul<'_>, threads: usize) -> Option<(RawMatMul, Data)> {
    // By unsigned bytes it multiplies nothing, and says that the arguments are invalid.
    if task.b.dtype() == DType::U8 {
        return None;
    }
    let (type_a, type_b) = (code(task.a.dtype())?, code(task.b.dtype())?);
    let shape = task.shape;
    let dtype = if task.a.dtype().is_float() {
        DType::F32
    } else {
        task.finish.dtype()
    };
    let (copies, packed) = match task.weights {
        Weights::Packed(copies) => (copies, true),
        Weights::Plain => (1, false),
    };
    let spec = RawMatMul {
        batch: task.batch as i64,
        m: shape.m as i64,
        k: shape.k as i64,
        n: shape.n as i64,
        type_a,
        type_b,
        type_c: code(dtype)?,
        threads: i32::try_from(threads).ok()?,
        copies: i32::try_from(copies).ok()?,
        packed: i32::from(packed),
        b: task.b.as_ptr().cast(),
        finish: finish(&task.finish),
    };
    Some((spec, Data::zeros(dtype, task.batch * shape.m * shape.n)?))
}

fn conv(task: &Conv<'_>, threads: usize) -> Option<(RawConv, Data)> {
    let geometry = task.geometry;
    let (height, width) = geometry.result();
    let dtype = task.finish.dtype();
    let pad = geometry.padding() as i64;
    let spec = RawConv {
        batch: 1,
        height: geometry.height as i64,
        width: geometry.width as i64,
        inputs: geometry.inputs as i64,
        outputs: geometry.outputs as i64,
        groups: geometry.groups as i64,
        kernel_h: geometry.kernel as i64,
        kernel_w: geometry.kernel as i64,
        stride: geometry.stride as i64,
        pad_top: pad,
        pad_left: pad,
        pad_bottom: pad,
        pad_right: pad,
        type_a: code(task.a.dtype())?,
        type_c: code(dtype)?,
        threads: i32::try_from(threads).ok()?,
        weights: task.weights.as_ptr().cast(),
        finish: finish(&task.finish),
    };
    Some((spec, Data::zeros(dtype, height * width * geometry.outputs)?))
}

fn finish(finish: &Finish<'_>) -> RawFinish {
    match finish {
        Finish::Sums => RawFinish {
            scales: ptr::null(),
            bias: ptr::null(),
            channels: 0,
            zero_point_a: 0,
            zero_point_b: 0,
            zero_point_out: 0,
            relu: 0,
        },
        Finish::Scaled(scaled) => {
            let (zero_point_out, relu) = match scaled.output {
                Requantize::Relu => (0, true),
                Requantize::U8(zero_point) => (zero_point, false),
            };
            RawFinish {
                scales: scaled.scales.as_ptr(),
                bias: scaled.bias.as_ptr(),
                channels: scaled.scales.len() as i64,
                zero_point_a: scaled.zero_point_a,
                zero_point_b: scaled.zero_point_b,
                zero_point_out,
                relu: i32::from(relu),
            }
        }
    }
}

/// The shim's number of an element type that oneDNN multiplies or stores.
fn code(dtype: DType) -> Option<i32> {
    match dtype {
        DType::U8 => Some(0),
        DType::I8 => Some(1),
        DType::I32 => Some(2),
        DType::F32 => Some(3),
        DType::Bf16 => Some(4),
        _ => None,
    }
}

struct OneDnnWork {
    raw: NonNull<RawWork>,
    a: Data,
    /// Right operands that are not packed.
    b: Option<Data>,
    c: Data,
}

// SAFETY: oneDNN's objects may be used from any thread, by one at a time, and the work is owned.
unsafe impl Send for OneDnnWork {}

impl Work for OneDnnWork {
    fn run(&mut self) -> Result<(), BenchError> {
        let a = self.a.values().as_ptr().cast();
        let b = self
            .b
            .as_ref()
            .map_or(ptr::null(), |b| b.values().as_ptr().cast());
        let c = self.c.as_mut_ptr().cast();
        // SAFETY: the work was made for operands and a result of the sizes and types that these
        // have, and nothing else uses them during the call.
        check("qt_run", unsafe { qt_run(self.raw.as_ptr(), a, b, c) })
    }

    fn answer(&self) -> Values<'_> {
        self.c.values()
    }

    fn detail(&self) -> Option<String> {
        // SAFETY: the text belongs to the work, which outlives the copy.
        let text = unsafe { CStr::from_ptr(qt_implementation(self.raw.as_ptr())) };
        Some(text.to_string_lossy().into_owned())
    }
}

impl Drop for OneDnnWork {
    fn drop(&mut self) {
        // SAFETY: made by the shim, freed once.
        unsafe { qt_free(self.raw.as_ptr()) }
    }
}

fn check(call: &'static str, status: c_int) -> Result<(), BenchError> {
    if status == SUCCESS {
        Ok(())
    } else {
        Err(failed(format!("{call} gives status {status}")))
    }
}

fn failed(reason: String) -> BenchError {
    BenchError::Peer {
        peer: "onednn",
        reason,
    }
}
