//! ipsec-mb, Intel's library, which has ChaCha20-Poly1305 for AVX-512: loaded when it is asked for,
//! never linked.
//!
//! Used are eight functions, all of them exported by name, and the first fields of a job. These lie
//! in the same places in every version 1. The manager, with its table of function pointers, stays
//! opaque. It is plain memory: a process that is forked has a copy of its own.
//!
//! A job of this algorithm is done when it has been submitted. It costs less than init, update and
//! finalize, the functions for a message in pieces.

use std::cell::RefCell;
use std::error::Error;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::mem::offset_of;
use std::ptr::{self, NonNull};
use std::rc::Rc;
use std::sync::Arc;

use libloading::Library;

use crate::layout::transport::TAG;

pub const KEY: usize = 32;
pub const NONCE: usize = 12;

/// Versions that this was written for: from the first with AVX-512 whose own self test there is.
const FROM_VERSION: c_uint = 0x01_03_00;
const BEFORE_VERSION: c_uint = 0x02_00_00;

/// IMB_JOB up to where nothing more is needed; jobs are made by the library, and longer.
#[repr(C)]
struct Job {
    encryption_key: *const u8,
    decryption_key: *const u8,
    key_bytes: u64,
    source: *const u8,
    destination: *mut u8,
    cipher_start: u64,
    cipher_bytes: u64,
    hash_start: u64,
    hash_bytes: u64,
    nonce: *const u8,
    nonce_bytes: u64,
    tag: *mut u8,
    tag_bytes: u64,
    aad: *const u8,
    aad_bytes: u64,
    context: *mut c_void,
    status: c_int,
    cipher: c_int,
    direction: c_int,
    hash: c_int,
    order: c_int,
}
const _: () = assert!(offset_of!(Job, aad) == 104 && offset_of!(Job, order) == 144);

// IMB_STATUS, IMB_CIPHER_MODE, IMB_HASH_ALG.
const COMPLETED: c_int = 3;
const CIPHER_CHACHA20_POLY1305: c_int = 19;
const AUTH_CHACHA20_POLY1305: c_int = 29;

/// IMB_CIPHER_DIRECTION, and the IMB_CHAIN_ORDER that goes with it: what is hashed is ciphertext.
#[derive(Clone, Copy)]
pub enum Direction {
    Encrypt = 1,
    Decrypt = 2,
}

/// The library: what it exports and is used. It stays as long as anything of it is in use.
pub struct IpsecMb {
    allocate: unsafe extern "C" fn(u64) -> *mut c_void,
    initialize: unsafe extern "C" fn(*mut c_void),
    error_of: unsafe extern "C" fn(*mut c_void) -> c_int,
    text_of: unsafe extern "C" fn(c_int) -> *const c_char,
    next_job: unsafe extern "C" fn(*mut c_void) -> *mut Job,
    submit_job: unsafe extern "C" fn(*mut c_void) -> *mut Job,
    free: unsafe extern "C" fn(*mut c_void),
    pub version: String,
    _library: Library,
}

/// Return the function of that name in the library, or from the function around.
macro_rules! function {
    ($library:expr, $name:literal) => {{
        // SAFETY: it has the type of the field it is for, as intel-ipsec-mb.h declares it.
        let found = unsafe { $library.get(concat!($name, "\0")) };
        *found.map_err(|_| format!("it has no function {}", $name))?
    }};
}

impl IpsecMb {
    /// Load the library, a file's name or path. Err: why it cannot be used here.
    pub fn load(file: &str) -> Result<Self, String> {
        if let Some(missing) = missing_feature() {
            return Err(format!("it is for CPUs with AVX-512, and this one has no {missing}"));
        }
        // SAFETY: runs the library's constructors, if it has any. Whoever can put another library in
        // its place can replace this one just as well.
        let library = unsafe { Library::new(file) }.map_err(|error| {
            let why = error.source().map_or(error.to_string(), ToString::to_string);
            format!("{why} (Debian's package libipsec-mb1 has it)")
        })?;
        let version: unsafe extern "C" fn() -> c_uint = function!(library, "imb_get_version");
        // SAFETY: returns a number.
        let number = unsafe { version() };
        let [_, major, minor, patch] = number.to_be_bytes();
        let version = format!("{major}.{minor}.{patch}");
        if !(FROM_VERSION..BEFORE_VERSION).contains(&number) {
            return Err(format!("it is version {version}, not 1.3 or a later 1"));
        }
        Ok(Self {
            allocate: function!(library, "alloc_mb_mgr"),
            initialize: function!(library, "init_mb_mgr_avx512"),
            error_of: function!(library, "imb_get_errno"),
            text_of: function!(library, "imb_get_strerror"),
            next_job: function!(library, "get_next_job_avx512"),
            submit_job: function!(library, "submit_job_avx512"),
            free: function!(library, "free_mb_mgr"),
            version,
            _library: library,
        })
    }
}

/// A manager of jobs: one thread's, for a job is between two calls.
pub struct Manager {
    exports: Arc<IpsecMb>,
    manager: NonNull<c_void>,
}

impl Manager {
    /// Make one. Err: what the library says is wrong with itself.
    fn new(library: &Arc<IpsecMb>) -> Result<Self, String> {
        // SAFETY: returns a manager, or null without memory.
        let manager = unsafe { (library.allocate)(0) };
        let manager = NonNull::new(manager).ok_or("it has no memory")?;
        let made = Self { exports: Arc::clone(library), manager };
        // SAFETY: the manager is allocated; the CPU has what it is initialized for.
        unsafe { (library.initialize)(manager.as_ptr()) };
        // SAFETY: the manager lives.
        let error = unsafe { (library.error_of)(manager.as_ptr()) };
        if error != 0 {
            // SAFETY: returns a text that the library keeps, for every number.
            let text = unsafe { CStr::from_ptr((library.text_of)(error)) };
            return Err(text.to_string_lossy().into_owned());
        }
        Ok(made)
    }

    /// This thread's manager, made at its first use. Err: see `new`.
    pub fn of_thread(library: &Arc<IpsecMb>) -> Result<Rc<Self>, String> {
        thread_local!(static MADE: RefCell<Vec<Rc<Manager>>> = const { RefCell::new(vec![]) });
        MADE.with_borrow_mut(|made| {
            let found = made.iter().find(|each| Arc::ptr_eq(&each.exports, library));
            if let Some(found) = found {
                return Ok(Rc::clone(found));
            }
            let new = Rc::new(Self::new(library)?);
            made.push(Rc::clone(&new));
            Ok(new)
        })
    }

    /// Encrypt or decrypt in place; return the tag, which is the ciphertext's either way.
    #[inline]
    pub fn run(
        &self,
        direction: Direction,
        key: &[u8; KEY],
        nonce: &[u8; NONCE],
        text: &mut [u8],
    ) -> [u8; TAG] {
        let mut tag = [0; TAG];
        let length = text.len() as u64;
        let wanted = Job {
            encryption_key: key.as_ptr(),
            decryption_key: key.as_ptr(),
            key_bytes: KEY as u64,
            source: text.as_ptr(),
            destination: text.as_mut_ptr(),
            cipher_start: 0,
            cipher_bytes: length,
            hash_start: 0,
            hash_bytes: length,
            nonce: nonce.as_ptr(),
            nonce_bytes: NONCE as u64,
            tag: tag.as_mut_ptr(),
            tag_bytes: TAG as u64,
            aad: ptr::null(),
            aad_bytes: 0,
            context: ptr::null_mut(),
            status: 0,
            cipher: CIPHER_CHACHA20_POLY1305,
            direction: direction as c_int,
            hash: AUTH_CHACHA20_POLY1305,
            order: direction as c_int,
        };
        let manager = self.manager.as_ptr();
        // SAFETY: the manager lives, and is this thread's alone. No job is under way, so it has room
        // for one, which begins as `Job` does. What it points to lives until it is done, which it is
        // when submit_job returns it; the assertion sees to it that it is.
        unsafe {
            let job = (self.exports.next_job)(manager);
            job.write(wanted);
            let done = (self.exports.submit_job)(manager);
            assert!(done == job && (*done).status == COMPLETED, "ipsec-mb did not do a job");
        }
        tag
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        // SAFETY: allocated by the library's alloc_mb_mgr, and nobody has it any more.
        unsafe { (self.exports.free)(self.manager.as_ptr()) };
    }
}

/// What the library's code for AVX-512 needs and this CPU, or its kernel, does not have.
#[cfg(target_arch = "x86_64")]
fn missing_feature() -> Option<&'static str> {
    let features = [
        ("AVX512F", is_x86_feature_detected!("avx512f")),
        ("AVX512DQ", is_x86_feature_detected!("avx512dq")),
        ("AVX512CD", is_x86_feature_detected!("avx512cd")),
        ("AVX512BW", is_x86_feature_detected!("avx512bw")),
        ("AVX512VL", is_x86_feature_detected!("avx512vl")),
        ("BMI2", is_x86_feature_detected!("bmi2")),
        ("AES-NI", is_x86_feature_detected!("aes")),
        ("PCLMULQDQ", is_x86_feature_detected!("pclmulqdq")),
    ];
    features.into_iter().find_map(|(name, there)| (!there).then_some(name))
}

#[cfg(not(target_arch = "x86_64"))]
fn missing_feature() -> Option<&'static str> {
    Some("AVX512F")
}
