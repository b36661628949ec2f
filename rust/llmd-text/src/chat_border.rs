//! The C side of chat templates.

use std::ffi::c_void;

use crate::border::{call, text, Message, Slice};
use crate::chat_template::{ChatTemplate, Limits};

#[repr(C)]
pub struct TemplateLimits {
    template_bytes: usize,
    steps: u64,
    depth: usize,
    prompt_bytes: usize,
}

/// Takes a prompt; called once, or not at all when rendering fails.
type TextSink = unsafe extern "C" fn(*mut c_void, *const u8, usize);

/// # Safety
/// As `include/llmd_text.h` says.
#[no_mangle]
pub unsafe extern "C" fn llmd_chat_template_load(
    config: Slice,
    template: Slice,
    limits: *const TemplateLimits,
    chat_template: *mut *mut ChatTemplate,
    takes_parts: *mut u8,
    error: *mut Message,
) -> i32 {
    call(error, || {
        let limits = Limits {
            template_bytes: (*limits).template_bytes,
            steps: (*limits).steps,
            depth: (*limits).depth,
            prompt_bytes: (*limits).prompt_bytes,
        };
        let loaded = ChatTemplate::load(text(config)?, text(template)?, limits)?;
        *chat_template = std::ptr::null_mut();
        if let Some(loaded) = loaded {
            *takes_parts = loaded.takes_parts() as u8;
            *chat_template = Box::into_raw(Box::new(loaded));
        }
        Ok(())
    })
}

/// # Safety
/// As `include/llmd_text.h` says.
#[no_mangle]
pub unsafe extern "C" fn llmd_chat_template_render(
    chat_template: *const ChatTemplate,
    request: Slice,
    now_s: i64,
    sink: TextSink,
    context: *mut c_void,
    error: *mut Message,
) -> i32 {
    call(error, || {
        let prompt = (*chat_template).render(text(request)?, now_s)?;
        sink(context, prompt.as_ptr(), prompt.len());
        Ok(())
    })
}

/// # Safety
/// As `include/llmd_text.h` says.
#[no_mangle]
pub unsafe extern "C" fn llmd_chat_template_free(chat_template: *mut ChatTemplate) {
    if !chat_template.is_null() {
        call(std::ptr::null_mut(), || {
            drop(Box::from_raw(chat_template));
            Ok(())
        });
    }
}
