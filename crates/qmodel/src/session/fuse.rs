use super::SessionOptions;
use super::plan::Plan;
use crate::{Model, ModelError};
pub(super) fn fuse(_: &mut Plan, _: &Model, _: &SessionOptions) -> Result<(), ModelError> {
    Ok(())
}
