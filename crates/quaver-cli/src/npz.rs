//! Arrays in and out of `.npz` files, as `numpy.savez` and `numpy.savez_compressed` write them.
//!
//! Files may be hostile: sizes are checked against what is there before anything is allocated.

use std::io::{Cursor, Read};
use std::path::Path;

use ndarray::{ArrayViewD, IxDyn};
use ndarray_npy::{NpzWriter, ViewElement, ViewNpyError, ViewNpyExt};
use quaver::model::{Model, Tensor, TensorData};
use quaver::{Batch, Dataset};
use zip::ZipArchive;

use crate::error::CliError;
use crate::output;

/// The most bytes that one archive may unpack to.
const MAX_BYTES: u64 = 8 << 30;

/// The most bytes of an array's header, and of brackets in it: headers are small dictionaries,
/// and the parser of their Python literals recurses.
const MAX_HEADER: usize = 64 << 10;
const MAX_BRACKETS: usize = 64;

/// What .npy files start with.
const NPY: &[u8] = b"\x93NUMPY";

/// The element types that are read.
const TYPES: &str = "float32, float64, (u)int8, (u)int16, int32, int64 or bool, little-endian";

/// Names that hold labels rather than an input.
const LABELS: [&str; 2] = ["label", "labels"];

/// Every array of an archive, in file order.
pub(crate) fn read(path: &Path) -> Result<Batch, CliError> {
    let bytes = std::fs::read(path).map_err(CliError::io(path))?;
    parse(&bytes).map_err(|problem| CliError::Data {
        path: path.to_owned(),
        problem,
    })
}

/// Every array of an archive in memory.
pub(crate) fn parse(bytes: &[u8]) -> Result<Batch, String> {
    if bytes.starts_with(NPY) {
        return Err(
            "this is one .npy array, and an .npz archive of named arrays is needed: write it with \
             numpy.savez(\"data.npz\", NAME=array)"
                .to_owned(),
        );
    }
    let mut archive =
        ZipArchive::new(Cursor::new(bytes)).map_err(|e| format!("no .npz archive: {e}"))?;
    let mut arrays = Batch::new();
    let mut left = MAX_BYTES;
    for i in 0..archive.len() {
        let entry = archive.by_index(i).map_err(|e| format!("entry {i}: {e}"))?;
        let Some(name) = entry.name().strip_suffix(".npy").map(str::to_owned) else {
            return Err(format!("entry \"{}\" is no .npy array", entry.name()));
        };
        if arrays.iter().any(|(n, _)| *n == name) {
            return Err(format!("array \"{name}\" is there twice"));
        }
        // The size in the directory may lie, so the limit is on what comes out. Reading to the
        // end also checks the checksum.
        let mut unpacked = Vec::new();
        let read = entry
            .take(left + 1)
            .read_to_end(&mut unpacked)
            .map_err(|e| format!("array \"{name}\": {e}"))?;
        left = left
            .checked_sub(read as u64)
            .ok_or_else(|| format!("the arrays unpack to more than {MAX_BYTES} bytes"))?;
        let tensor = parse_array(&unpacked).map_err(|e| format!("array \"{name}\": {e}"))?;
        arrays.push((name, tensor));
    }
    Ok(arrays)
}

/// One `.npy` array.
fn parse_array(bytes: &[u8]) -> Result<Tensor, String> {
    let header = &bytes[..bytes.len().min(MAX_HEADER)];
    if header_brackets(header) > MAX_BRACKETS {
        return Err("its header is no .npy header".to_owned());
    }
    // Views need aligned data: headers are padded to multiples of 16, so an aligned start is all
    // that is missing.
    let mut aligned = vec![0u128; bytes.len().div_ceil(16)];
    let buffer: &mut [u8] = bytemuck::cast_slice_mut(&mut aligned);
    buffer[..bytes.len()].copy_from_slice(bytes);
    let bytes = &buffer[..bytes.len()];

    macro_rules! first_that_fits {
        ($($ty:ty)*) => {
            $(if let Some(result) = view::<$ty>(bytes) { return result; })*
        };
    }
    first_that_fits!(f32 u8 i8 i64 i32 u16 i16 bool f64);
    // No type fits, so any of them says which one it is.
    let given = match ArrayViewD::<f32>::view_npy(bytes) {
        Err(ViewNpyError::WrongDescriptor(given)) => format!(" {given}"),
        _ => String::new(),
    };
    Err(format!(
        "its element type{given} is not supported: use {TYPES}"
    ))
}

/// Opening brackets in the dictionary of a header, whose length the header itself gives.
fn header_brackets(header: &[u8]) -> usize {
    let end = header
        .iter()
        .position(|&b| b == b'\n')
        .unwrap_or(header.len());
    header[..end]
        .iter()
        .filter(|b| matches!(b, b'(' | b'[' | b'{'))
        .count()
}

/// The array as elements of type `T`; `None` when it has another type.
fn view<T>(bytes: &[u8]) -> Option<Result<Tensor, String>>
where
    T: ViewElement + Copy,
    TensorData: From<Vec<T>>,
{
    match ArrayViewD::<T>::view_npy(bytes) {
        Ok(array) => {
            // Iteration is in logical order, so Fortran arrays come out right too.
            let values: Vec<T> = array.iter().copied().collect();
            Some(Tensor::new(array.shape(), values).map_err(|e| e.to_string()))
        }
        Err(ViewNpyError::WrongDescriptor(_)) => None,
        Err(ViewNpyError::NonNativeEndian) => {
            Some(Err(format!("its bytes are in foreign order: use {TYPES}")))
        }
        Err(e) => Some(Err(e.to_string())),
    }
}

/// An archive as the samples of a model: one array for every input, and labels where there are
/// any.
pub(crate) fn read_dataset(path: &Path, model: &Model) -> Result<Dataset, CliError> {
    dataset(read(path)?, path, model)
}

/// Arrays as the samples of a model; `path` is for error messages.
pub(crate) fn dataset(arrays: Batch, path: &Path, model: &Model) -> Result<Dataset, CliError> {
    let inputs: Vec<&str> = model.graph.inputs.iter().map(|i| i.name.as_str()).collect();
    let wrong = |problem: String| CliError::Arrays {
        path: path.to_owned(),
        problem,
        inputs: inputs.join(", "),
    };
    let (mut batch, mut labels) = (Batch::new(), None);
    for (name, tensor) in arrays {
        if inputs.contains(&name.as_str()) {
            batch.push((name, tensor));
        } else if LABELS.contains(&name.as_str()) {
            let integers = integers(&tensor)
                .ok_or_else(|| wrong(format!("array \"{name}\" holds no integer labels")))?;
            let is_list = matches!(tensor.shape(), [_] | [_, 1]);
            if !is_list || labels.replace(integers).is_some() {
                return Err(wrong(format!(
                    "array \"{name}\" is not the one list of labels"
                )));
            }
        } else {
            return Err(wrong(format!("array \"{name}\" is no input of the model")));
        }
    }
    let given = |name: &str| batch.iter().any(|(n, _)| n == name);
    if let Some(missing) = model.graph.required_inputs().find(|i| !given(&i.name)) {
        return Err(wrong(format!(
            "there is no array for input \"{}\"",
            missing.name
        )));
    }
    Ok(Dataset::new(batch, labels)?)
}

/// Labels of any integer type.
fn integers(tensor: &Tensor) -> Option<Vec<i64>> {
    fn widen<T: Copy + Into<i64>>(v: &[T]) -> Vec<i64> {
        v.iter().map(|&x| x.into()).collect()
    }
    Some(match tensor.data() {
        TensorData::I64(v) => v.clone(),
        TensorData::I32(v) => widen(v),
        TensorData::I16(v) => widen(v),
        TensorData::U16(v) => widen(v),
        TensorData::I8(v) => widen(v),
        TensorData::U8(v) => widen(v),
        TensorData::Bool(v) => widen(v),
        _ => return None,
    })
}

/// Writes arrays as a compressed archive, whole or not at all.
pub(crate) fn write(path: &Path, arrays: &[(String, Tensor)]) -> Result<(), CliError> {
    let problem = |problem: String| CliError::Data {
        path: path.to_owned(),
        problem,
    };
    let mut writer = NpzWriter::new_compressed(Cursor::new(Vec::new()));
    for (name, tensor) in arrays {
        macro_rules! add {
            ($($variant:ident)*) => {
                match tensor.data() {
                    $(TensorData::$variant(v) => {
                        let view = ArrayViewD::from_shape(IxDyn(tensor.shape()), v)
                            .map_err(|e| problem(format!("array \"{name}\": {e}")))?;
                        writer.add_array(name.as_str(), &view)
                            .map_err(|e| problem(format!("array \"{name}\": {e}")))?;
                    })*
                    _ => return Err(problem(format!(
                        "array \"{name}\" has element type {}, which .npz files have no name for",
                        tensor.element_type()
                    ))),
                }
            };
        }
        add!(F32 F64 U8 I8 U16 I16 I32 I64 Bool);
    }
    let cursor = writer.finish().map_err(|e| problem(e.to_string()))?;
    output::write(path, cursor.get_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(arrays: &[(&str, Tensor)]) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npz");
        let named: Batch = arrays
            .iter()
            .map(|(n, t)| ((*n).to_owned(), t.clone()))
            .collect();
        write(&path, &named).unwrap();
        assert_eq!(read(&path).unwrap(), named);
        std::fs::read(&path).unwrap()
    }

    fn sample() -> Vec<u8> {
        archive(&[
            (
                "x",
                Tensor::new(&[4, 3], (0..12).map(|i| i as f32).collect::<Vec<_>>()).unwrap(),
            ),
            ("label", Tensor::vector(vec![1i64, 2, 3, 4])),
            ("mask", Tensor::new(&[2, 0], Vec::<bool>::new()).unwrap()),
            ("s", Tensor::scalar(7u8)),
        ])
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(parse(&sample()).unwrap().len(), 4);
    }

    #[test]
    fn truncated_files_are_errors() {
        let bytes = sample();
        for cut in 0..bytes.len() {
            assert!(parse(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn flipped_bits_are_errors_or_change_nothing_that_is_read() {
        let bytes = sample();
        let (mut errors, total) = (0, bytes.len() * 8);
        for bit in 0..total {
            let mut broken = bytes.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            // No panic; time stamps and such may flip without harm.
            errors += usize::from(parse(&broken).is_err());
        }
        assert!(errors > total / 2, "{errors} of {total}");
    }

    #[test]
    fn lying_and_deep_headers_are_errors() {
        let npy = |dict: &str| {
            let mut text = dict.to_owned();
            while !(10 + text.len() + 1).is_multiple_of(64) {
                text.push(' ');
            }
            text.push('\n');
            let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
            bytes.extend((text.len() as u16).to_le_bytes());
            bytes.extend(text.as_bytes());
            bytes
        };
        let shape = |s: &str| {
            npy(&format!(
                "{{'descr': '<f4', 'fortran_order': False, 'shape': {s}, }}"
            ))
        };
        assert!(parse_array(&shape("(0,)")).is_ok());
        for s in [
            "(1,)",
            "(18446744073709551615,)",
            "(4294967296, 4294967296, 4)",
            "(-1,)",
            "(1e9,)",
        ] {
            assert!(parse_array(&shape(s)).is_err(), "{s}");
        }
        let deep = format!("{}1,{}", "(".repeat(30_000), ")".repeat(30_000));
        assert!(parse_array(&shape(&deep)).is_err());
        let object = npy("{'descr': '|O', 'fortran_order': False, 'shape': (0,), }");
        assert!(parse_array(&object).unwrap_err().contains("element type"));
    }
}
