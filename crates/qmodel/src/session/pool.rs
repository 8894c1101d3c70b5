//! Buffers that are free to be used again.

use crate::{Tensor, TensorData, TensorElement};

/// Free buffers of all element types.
///
/// A session gives a value's buffer back after its last use and takes it for a later value, so
/// that a run of a shape seen before allocates nothing but its outputs. The number of free buffers
/// is bounded, so memory does not grow with the number of runs or of shapes.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    free: Vec<TensorData>,
}

/// More free buffers than this are not kept.
const MOST_FREE: usize = 32;

impl Pool {
    /// A buffer of `len` elements whose contents are whatever they are.
    pub(crate) fn take<T: TensorElement>(&mut self, len: usize) -> Vec<T> {
        if len == 0 {
            return Vec::new();
        }
        // The smallest that is large enough, but none that would waste most of itself.
        let best = self
            .free
            .iter()
            .enumerate()
            .filter_map(|(i, data)| T::capacity(data).map(|c| (i, c)))
            .filter(|&(_, c)| c >= len && c / 8 <= len)
            .min_by_key(|&(_, c)| c);
        let mut v = best
            .and_then(|(i, _)| T::into_vec(self.free.swap_remove(i)))
            .unwrap_or_else(|| Vec::with_capacity(len));
        v.resize(len, T::default());
        v
    }

    /// Takes a tensor's buffer for later.
    pub(crate) fn give(&mut self, tensor: Tensor) {
        self.give_data(tensor.into_data());
    }

    /// Takes a buffer for later.
    pub(crate) fn give_vec<T: TensorElement>(&mut self, v: Vec<T>) {
        self.give_data(T::wrap(v));
    }

    fn give_data(&mut self, data: TensorData) {
        if data.is_empty() {
            return;
        }
        if self.free.len() >= MOST_FREE {
            self.free.remove(0);
        }
        self.free.push(data);
    }

    /// A copy of a tensor in a buffer from here.
    pub(crate) fn copy(&mut self, t: &Tensor) -> Tensor {
        fn go<T: TensorElement>(pool: &mut Pool, v: &[T]) -> TensorData {
            let mut out = pool.take::<T>(v.len());
            out.copy_from_slice(v);
            T::wrap(out)
        }
        let data = match t.data() {
            TensorData::F32(v) => go(self, v),
            TensorData::F64(v) => go(self, v),
            TensorData::F16(v) => go(self, v),
            TensorData::Bf16(v) => go(self, v),
            TensorData::I8(v) => go(self, v),
            TensorData::U8(v) => go(self, v),
            TensorData::I16(v) => go(self, v),
            TensorData::U16(v) => go(self, v),
            TensorData::I32(v) => go(self, v),
            TensorData::I64(v) => go(self, v),
            TensorData::Bool(v) => go(self, v),
        };
        t.with_data(data)
    }
}

#[cfg(test)]
impl Pool {
    /// How many elements fit into what is held.
    pub(super) fn held(&self) -> usize {
        self.free.iter().map(TensorData::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_and_their_number_is_bounded() {
        let mut pool = Pool::default();
        let v = pool.take::<f32>(100);
        let at = v.as_ptr();
        pool.give_vec(v);
        let bytes = pool.take::<u8>(100);
        let again = pool.take::<f32>(60);
        assert_ne!(bytes.as_ptr().cast::<f32>(), at);
        assert_eq!(again.as_ptr(), at);
        for _ in 0..1000 {
            pool.give_vec(vec![0u8; 8]);
        }
        assert_eq!(pool.free.len(), MOST_FREE);
    }
}
