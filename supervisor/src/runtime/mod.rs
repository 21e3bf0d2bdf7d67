//! What incarnations run in. `process`: a shim and its worker as processes of this machine.

pub(crate) mod labels;
pub(crate) mod process;
