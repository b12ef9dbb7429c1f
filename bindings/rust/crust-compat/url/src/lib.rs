//! `maidsafe_utilities` 0.16 pins `url` `~1.5.1`, of which the only version has a
//! borrow that compilers since 2019 refuse. This is `url` 2 under that number, for
//! `[patch.crates-io]`: what `maidsafe_utilities` and its `ws` call is the same in both.

pub use real::*;
