//! What llmd takes from Rust, one module per concern, behind the C border of `include/llmd_text.h`.
//!
//! `border` has what every entry point needs: slices, the text of an error, and the catching of
//! panics. The modules themselves are ordinary Rust and are tested as such.

mod border;
pub mod cel;
mod cel_check;
#[cfg(test)]
mod cel_test;
