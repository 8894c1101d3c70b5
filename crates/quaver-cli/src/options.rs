//! Options that several commands share.

use std::num::NonZeroUsize;
use std::thread::available_parallelism;

use clap::builder::NonEmptyStringValueParser;
use quaver::calib::Policy;
use quaver::format::Scheme;
use quaver::{Format, Operators};

/// What a static quantization is made of, whatever is done with it.
#[derive(Debug, clap::Args)]
pub(crate) struct Static {
    /// Activations: affine (u8, any zero point; the default) or symmetric (i8, zero point 0).
    #[arg(long)]
    pub(crate) scheme: Option<Scheme>,
    /// Operators to write: qdq (the default) or qoperator.
    #[arg(long)]
    pub(crate) format: Option<Format>,
    /// Quantize only these: a node's name, a glob over names, or an operator type; repeatable.
    #[arg(long, value_name = "PATTERN", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) include: Vec<String>,
    /// Leave these in float; repeatable. A pattern that matches nothing is an error.
    #[arg(long, value_name = "PATTERN", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) exclude: Vec<String>,
    /// What to do with NaN and infinities during calibration: error (the default), ignore,
    /// saturate.
    #[arg(long, value_name = "POLICY")]
    pub(crate) non_finite: Option<Policy>,
    /// Threads that calibrate, each with a copy of the model; by default one for each processor.
    /// Results do not depend on it.
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<NonZeroUsize>,
}

impl Static {
    /// The operators that the lists leave in.
    pub(crate) fn operators(&self) -> Operators {
        Operators::new()
            .include(&self.include)
            .exclude(&self.exclude)
    }

    pub(crate) fn scheme(&self) -> Scheme {
        self.scheme.unwrap_or(Scheme::Affine)
    }

    pub(crate) fn threads(&self) -> NonZeroUsize {
        threads(self.threads)
    }

    pub(crate) fn policy(&self) -> Policy {
        self.non_finite.unwrap_or(Policy::Error)
    }
}

/// As many threads as were asked for, or as there are processors.
pub(crate) fn threads(given: Option<NonZeroUsize>) -> NonZeroUsize {
    given.unwrap_or_else(|| available_parallelism().unwrap_or(NonZeroUsize::MIN))
}
