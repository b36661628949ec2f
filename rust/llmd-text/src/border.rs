//! The C side of every entry point. Types have the layout of those in `include/llmd_text.h`.

use std::any::Any;
use std::panic::{catch_unwind, AssertUnwindSafe};

pub const OK: i32 = 0;
pub const INVALID: i32 = 1;
pub const FAILED: i32 = 2;
pub const INTERNAL: i32 = 3;
pub const UNSUPPORTED: i32 = 4;
pub const LIMIT: i32 = 5;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Slice {
    pub data: *const u8,
    pub size: usize,
}

#[repr(C)]
pub struct Message {
    data: *mut u8,
    capacity: usize,
    size: usize,
}

/// What an entry point answers besides its result: a status and the text that goes with it.
#[derive(Debug)]
pub struct Failure {
    pub status: i32,
    pub text: String,
}

impl Failure {
    pub fn invalid(text: impl Into<String>) -> Self {
        Failure { status: INVALID, text: text.into() }
    }

    pub fn failed(text: impl Into<String>) -> Self {
        Failure { status: FAILED, text: text.into() }
    }

    pub fn unsupported(text: impl Into<String>) -> Self {
        Failure { status: UNSUPPORTED, text: text.into() }
    }

    pub fn limit(text: impl Into<String>) -> Self {
        Failure { status: LIMIT, text: text.into() }
    }
}

/// # Safety
/// `data` points to `size` elements that outlive `'a`, or `size` is 0.
pub unsafe fn elements<'a, T>(data: *const T, size: usize) -> &'a [T] {
    if size == 0 {
        &[]
    } else {
        std::slice::from_raw_parts(data, size)
    }
}

/// # Safety
/// The bytes of `slice` outlive `'a`.
pub unsafe fn text<'a>(slice: Slice) -> Result<&'a str, Failure> {
    std::str::from_utf8(elements(slice.data, slice.size))
        .map_err(|_| Failure::invalid("the text is not UTF-8"))
}

/// The text of an error, cut to what fits, at a character's border.
///
/// # Safety
/// `message` is null or its buffer may be written.
unsafe fn write(message: *mut Message, text: &str) {
    let Some(message) = message.as_mut() else { return };
    let mut size = text.len().min(message.capacity);
    while !text.is_char_boundary(size) {
        size -= 1;
    }
    std::ptr::copy_nonoverlapping(text.as_ptr(), message.data, size);
    message.size = size;
}

fn panic_text(panic: Box<dyn Any + Send>) -> String {
    let what = panic
        .downcast_ref::<&str>()
        .map(|text| text.to_string())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    format!("internal error: {what}")
}

/// Runs `body`; turns its failure, or its panic, into a status and a text in `message`.
///
/// # Safety
/// `message` is null or its buffer may be written.
pub unsafe fn call(message: *mut Message, body: impl FnOnce() -> Result<(), Failure>) -> i32 {
    let failure = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => return OK,
        Ok(Err(failure)) => failure,
        Err(panic) => Failure { status: INTERNAL, text: panic_text(panic) },
    };
    write(message, &failure.text);
    failure.status
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(capacity: usize, body: impl FnOnce() -> Result<(), Failure>) -> (i32, String) {
        let mut buffer = vec![0u8; capacity];
        let mut message = Message { data: buffer.as_mut_ptr(), capacity, size: 0 };
        let status = unsafe { call(&mut message, body) };
        (status, String::from_utf8(buffer[..message.size].to_vec()).unwrap())
    }

    #[test]
    fn failures_and_panics_become_a_status_and_a_text() {
        assert_eq!(run(80, || Ok(())), (OK, String::new()));
        assert_eq!(run(80, || Err(Failure::failed("no"))), (FAILED, "no".into()));
        let (status, text) = run(80, || panic!("lost {}", 1));
        assert_eq!((status, text.as_str()), (INTERNAL, "internal error: lost 1"));
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(run(4, || Err(Failure::failed("aaäää"))).1, "aaä");
        assert_eq!(run(3, || Err(Failure::failed("aaäää"))).1, "aa");
        assert_eq!(run(0, || Err(Failure::failed("a"))).1, "");
        assert_eq!(unsafe { call(std::ptr::null_mut(), || Err(Failure::invalid("a"))) }, INVALID);
    }

    #[test]
    fn text_that_is_not_utf8_is_refused() {
        let bytes = [0xffu8];
        let slice = Slice { data: bytes.as_ptr(), size: 1 };
        assert_eq!(unsafe { text(slice) }.unwrap_err().status, INVALID);
        let empty = Slice { data: std::ptr::null(), size: 0 };
        assert_eq!(unsafe { text(empty) }.ok(), Some(""));
    }
}
