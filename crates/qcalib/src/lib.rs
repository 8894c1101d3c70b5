//! Where quantization ranges come from: observers, range estimators and fake quantization.
