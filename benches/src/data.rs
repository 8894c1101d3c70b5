//! The numbers that go in: the same in every run, and full-range, so that no shortcut pays.

/// A generator of well-mixed numbers (`SplitMix64`); equal seeds give equal numbers.
#[derive(Debug, Clone)]
pub struct Source(u64);

impl Source {
    /// A generator that starts at `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Bytes from 0 to 255.
    pub fn u8s(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next().to_le_bytes()[0]).collect()
    }

    /// Bytes from −128 to 127.
    pub fn i8s(&mut self, len: usize) -> Vec<i8> {
        (0..len)
            .map(|_| self.next().to_le_bytes()[0].cast_signed())
            .collect()
    }

    /// Bytes as weights are, quantized by their largest: bell-shaped around 0 with a deviation of 37
    /// and no byte beyond ±127.
    pub fn bell_i8s(&mut self, len: usize) -> Vec<i8> {
        // The sum of four uniform numbers reaches 3.464 deviations.
        self.f32s(len)
            .into_iter()
            .map(|value| (value * (127.0 / 3.464)).round() as i8)
            .collect()
    }

    /// Bytes from −64 to 63, so that two products of them by any bytes sum up to 16 bits.
    pub fn reduced_i8s(&mut self, len: usize) -> Vec<i8> {
        self.i8s(len).into_iter().map(|byte| byte >> 1).collect()
    }

    /// Sums as they come out of a matrix product: about ±2^20.
    pub fn sums(&mut self, len: usize) -> Vec<i32> {
        (0..len)
            .map(|_| (self.next() as u32).cast_signed() >> 11)
            .collect()
    }

    /// Finite numbers, bell-shaped around 0 with a deviation of about 1, as activations are.
    pub fn f32s(&mut self, len: usize) -> Vec<f32> {
        (0..len)
            .map(|_| {
                // The sum of four uniform numbers, each in 16 bits.
                let bits = self.next();
                let sum: u64 = (0..4).map(|part| (bits >> (16 * part)) & 0xffff).sum();
                (sum as f32 / 65_535.0 - 2.0) * 1.732
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        assert_eq!(Source::new(1).u8s(100), Source::new(1).u8s(100));
        assert_ne!(Source::new(1).u8s(100), Source::new(2).u8s(100));
    }

    #[test]
    fn every_byte_comes_up() {
        let bytes = Source::new(3).i8s(10_000);
        assert!((i8::MIN..=i8::MAX).all(|value| bytes.contains(&value)));
    }

    #[test]
    fn bell_shaped_bytes_are_mostly_small() {
        let bytes = Source::new(5).bell_i8s(10_000);
        assert!(bytes.iter().all(|&byte| byte >= -127));
        let near = bytes.iter().filter(|byte| byte.unsigned_abs() < 37).count();
        assert!((6000..7500).contains(&near), "{near} within one deviation");
    }

    #[test]
    fn two_products_of_reduced_bytes_fit_16_bits() {
        let bytes = Source::new(6).reduced_i8s(10_000);
        assert!((-64..=63).all(|value| bytes.contains(&value)));
        let most = |byte: &i8| 2 * i32::from(u8::MAX) * i32::from(*byte);
        assert!(bytes.iter().all(|byte| i16::try_from(most(byte)).is_ok()));
    }

    #[test]
    fn floats_are_bell_shaped() {
        let values = Source::new(4).f32s(10_000);
        let mean = values.iter().sum::<f32>() / 10_000.0;
        let deviation = (values.iter().map(|x| x * x).sum::<f32>() / 10_000.0).sqrt();
        assert!(mean.abs() < 0.05, "{mean}");
        assert!((deviation - 1.0).abs() < 0.05, "{deviation}");
    }
}
