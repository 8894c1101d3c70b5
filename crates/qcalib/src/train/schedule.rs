//! From observing over training to frozen ranges.

use alloc::boxed::Box;
use alloc::string::ToString;
use alloc::vec::Vec;
use qformat::{Granularity, QParams, QuantSpec, TensorQParams};
use serde::{Deserialize, Serialize};

use crate::{CalibError, Method, Observer, ObserverState, fake_quantize, params};

/// Where a tensor stands in quantization-aware training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Values are observed and pass unchanged.
    Observe,
    /// Values are observed, and quantized with the range that follows from all of them so far.
    Adapt,
    /// Ranges no longer move.
    Frozen,
}

/// The fake quantizer of one tensor through a training run: observe, then observe and quantize,
/// then freeze; never back (Krishnamoorthi 2018, arXiv 1806.08342, §3.2: quantize only once the
/// ranges have settled, freeze them before training ends).
///
/// ```
/// use qcalib::train::{Phase, Schedule};
/// use qcalib::{Method, Policy};
/// use qformat::{DType, Granularity, QuantSpec, Scheme};
///
/// let spec = QuantSpec {
///     dtype: DType::U4,
///     scheme: Scheme::Affine,
///     granularity: Granularity::PerTensor,
/// };
/// let mut s = Schedule::new(Method::MinMax, spec, Policy::Error)?;
/// let mut y = [0.0; 2];
/// s.forward(0, &[0.1, 1.5], &[2], &mut y)?;
/// assert_eq!(y, [0.1, 1.5]); // still only observed
/// s.advance()?;
/// s.forward(1, &[0.12, 0.3], &[2], &mut y)?;
/// assert_eq!(y, [0.1, 0.3]); // sixteen levels from 0 to 1.5
/// s.advance()?;
/// s.forward(2, &[99.0, 0.0], &[2], &mut y)?;
/// assert_eq!((s.phase(), y), (Phase::Frozen, [1.5, 0.0]));
/// # Ok::<(), qcalib::CalibError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Schedule {
    method: Method,
    spec: QuantSpec,
    phase: Phase,
    observer: Box<dyn Observer>,
    params: Option<TensorQParams>,
}

impl Schedule {
    /// A tensor that is observed for `method` at the granularity of `spec`.
    ///
    /// # Errors
    ///
    /// Those of [`Method::observer`] and [`Method::estimator`], and [`CalibError::Format`] for a
    /// type that is not an integer.
    pub fn new(method: Method, spec: QuantSpec, policy: crate::Policy) -> Result<Self, CalibError> {
        crate::Target::new(spec.dtype, spec.scheme)?;
        method.estimator()?;
        Ok(Schedule {
            method,
            spec,
            phase: Phase::Observe,
            observer: method.observer(spec.granularity, policy)?,
            params: None,
        })
    }

    /// Where it stands.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The parameters in use; none while values are only observed.
    #[must_use]
    pub fn params(&self) -> Option<&TensorQParams> {
        self.params.as_ref()
    }

    /// What was observed so far.
    #[must_use]
    pub fn observer(&self) -> &dyn Observer {
        &*self.observer
    }

    /// Goes on to the next phase: from observing to adapting, from there to frozen ranges.
    ///
    /// # Errors
    ///
    /// [`CalibError::Phase`] once frozen, [`CalibError::NoData`] when nothing was observed.
    pub fn advance(&mut self) -> Result<(), CalibError> {
        let next = match self.phase {
            Phase::Observe => Phase::Adapt,
            Phase::Adapt => Phase::Frozen,
            Phase::Frozen => {
                return Err(CalibError::Phase {
                    given: self.phase,
                    allowed: "observe or adapt",
                });
            }
        };
        self.params = Some(params(&*self.observer, self.method, self.spec)?);
        self.phase = next;
        Ok(())
    }

    /// Sends a batch through: observed unless frozen, quantized unless only observed.
    ///
    /// # Errors
    ///
    /// Those of [`Observer::observe`] and [`fake_quantize`]; after an error nothing was recorded
    /// and `out` is untouched.
    pub fn forward(
        &mut self,
        batch_index: u64,
        x: &[f32],
        shape: &[usize],
        out: &mut [f32],
    ) -> Result<(), CalibError> {
        crate::layout::check_len("out", out.len(), shape)?;
        if self.phase != Phase::Frozen {
            self.observer.observe(batch_index, x, shape)?;
        }
        if self.phase == Phase::Adapt {
            self.params = Some(params(&*self.observer, self.method, self.spec)?);
        }
        match &self.params {
            Some(p) => fake_quantize(x, shape, p, out),
            None => {
                crate::layout::check_len("x", x.len(), shape)?;
                out.copy_from_slice(x);
                Ok(())
            }
        }
    }

    /// The state, ready for serde.
    #[must_use]
    pub fn state(&self) -> ScheduleState {
        ScheduleState {
            method: self.method.to_string(),
            spec: self.spec,
            phase: self.phase,
            observer: self.observer.state(),
            params: self.params.as_ref().map(|p| p.params().to_vec()),
        }
    }

    /// The way back from a state, checked.
    ///
    /// # Errors
    ///
    /// [`CalibError::Name`] for an unknown method, [`CalibError::Mismatch`] when observer, phase
    /// and parameters do not belong together.
    pub fn from_state(state: ScheduleState) -> Result<Self, CalibError> {
        let method: Method = state.method.parse()?;
        let observer = state.observer.into_observer();
        let mut s = Schedule::new(method, state.spec, observer.policy())?;
        let differs = |what, given: &dyn ToString, expected: &dyn ToString| CalibError::Mismatch {
            what,
            given: given.to_string(),
            expected: expected.to_string(),
        };
        if observer.kind() != s.observer.kind() {
            return Err(differs("observer", &observer.kind(), &s.observer.kind()));
        }
        let expected: Granularity = state.spec.granularity;
        if observer.granularity() != expected {
            return Err(differs("granularity", &observer.granularity(), &expected));
        }
        let there = state.params.is_some();
        if there != (state.phase != Phase::Observe) {
            return Err(differs("presence of parameters", &there, &!there));
        }
        if let Some(list) = state.params {
            let (given, groups) = (list.len(), observer.groups());
            if given != groups {
                return Err(differs("number of parameters", &given, &groups));
            }
            let p = TensorQParams::new(expected, list)?;
            if (p.dtype(), p.scheme()) != (state.spec.dtype, state.spec.scheme) {
                return Err(differs(
                    "type of the parameters",
                    &p.dtype(),
                    &state.spec.dtype,
                ));
            }
            s.params = Some(p);
        }
        s.observer = observer;
        s.phase = state.phase;
        Ok(s)
    }
}

/// A [`Schedule`] as it is stored with a checkpoint.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleState {
    method: alloc::string::String,
    spec: QuantSpec,
    phase: Phase,
    observer: ObserverState,
    params: Option<Vec<QParams>>,
}
