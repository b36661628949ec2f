//! What llmd takes from Rust, one module per concern, behind the C border of `include/llmd_text.h`.
//!
//! `border` has what every entry point needs: slices, the text of an error, and the catching of
//! panics. The modules themselves are ordinary Rust and are tested as such.

mod border;
mod borders;
pub mod cel;
mod cel_check;
#[cfg(test)]
mod cel_test;
mod chat_border;
mod chat_request;
mod chat_template;
mod content_format;
mod python;
mod self_check;
mod tokenizer;
mod tokenizer_border;
#[cfg(test)]
mod chat_template_test;
#[cfg(test)]
mod tokenizer_test;
