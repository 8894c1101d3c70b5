//! Steps that exist only in plans: what fusion makes of several operators.

pub(super) mod add;
pub(super) mod conv;
pub(super) mod pool;
pub(super) mod product;
pub(super) mod table;
pub(super) mod turn;
