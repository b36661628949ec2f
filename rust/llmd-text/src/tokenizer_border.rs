//! The C side of tokenizers.

use std::ffi::c_void;

use crate::border::{call, text, Failure, Message, Slice};
use crate::tokenizer::Tokenizer;

#[repr(C)]
pub struct Info {
    fast: u8,
    reuses: u8,
    fixed_around: u8,
    vocab_size: u32,
    reason: Slice,
    before: *const u32,
    before_count: usize,
    after: *const u32,
    after_count: usize,
}

/// Takes the ids of a text; called once, or not at all when encoding fails.
type IdSink = unsafe extern "C" fn(*mut c_void, *const u32, usize);

/// # Safety
/// As `include/llmd_text.h` says.
#[no_mangle]
pub unsafe extern "C" fn llmd_tokenizer_load(
    json: Slice,
    config: Slice,
    fast: u8,
    tokenizer: *mut *mut Tokenizer,
    error: *mut Message,
) -> i32 {
    call(error, || {
        let loaded = Tokenizer::load(text(json)?, text(config)?, fast != 0)?;
        *tokenizer = Box::into_raw(Box::new(loaded));
        Ok(())
    })
}

/// # Safety
/// As `include/llmd_text.h` says.
#[no_mangle]
pub unsafe extern "C" fn llmd_tokenizer_info(tokenizer: *const Tokenizer, info: *mut Info) {
    let tokenizer = &*tokenizer;
    let reason = tokenizer.reason();
    let (before, after): (&[u32], &[u32]) = match tokenizer.around() {
        Some((before, after)) => (before, after),
        None => (&[], &[]),
    };
    *info = Info {
        fast: tokenizer.is_fast() as u8,
        reuses: tokenizer.borders().any() as u8,
        fixed_around: tokenizer.around().is_some() as u8,
        vocab_size: tokenizer.vocab_size(),
        reason: Slice { data: reason.as_ptr(), size: reason.len() },
        before: before.as_ptr(),
        before_count: before.len(),
        after: after.as_ptr(),
        after_count: after.len(),
    };
}

/// # Safety
/// As `include/llmd_text.h` says.
#[no_mangle]
pub unsafe extern "C" fn llmd_tokenizer_cut(
    tokenizer: *const Tokenizer,
    source: Slice,
    ends: *mut usize,
    capacity: usize,
    count: *mut usize,
    error: *mut Message,
) -> i32 {
    call(error, || {
        let source = text(source)?;
        let mut used = 0;
        (*tokenizer).borders().cut(source, |end| {
            if used < capacity {
                *ends.add(used) = end;
            }
            used += 1;
        });
        if used > capacity {
            return Err(Failure::failed("more pieces than there is room for"));
        }
        *count = used;
        Ok(())
    })
}

/// # Safety
/// As `include/llmd_text.h` says.
#[no_mangle]
pub unsafe extern "C" fn llmd_tokenizer_encode(
    tokenizer: *const Tokenizer,
    source: Slice,
    add_special_tokens: u8,
    sink: IdSink,
    context: *mut c_void,
    error: *mut Message,
) -> i32 {
    call(error, || {
        let ids = (*tokenizer).encode(text(source)?, add_special_tokens != 0)?;
        sink(context, ids.as_ptr(), ids.len());
        Ok(())
    })
}

/// # Safety
/// As `include/llmd_text.h` says.
#[no_mangle]
pub unsafe extern "C" fn llmd_tokenizer_free(tokenizer: *mut Tokenizer) {
    if !tokenizer.is_null() {
        call(std::ptr::null_mut(), || {
            drop(Box::from_raw(tokenizer));
            Ok(())
        });
    }
}
