//! What went wrong, as JavaScript is told: an `Error` whose `message` is for people and whose `code` is for programs.
//!
//! Invariant: every code is one of `Code` in `package/index.d.ts`, which says what it means.

use std::error::Error;

use js_sys::Reflect;
use peercompute_kernels::executor::ExecutorError;
use peercompute_kernels::{BundleError, KeyError, WorkloadError};
use peercompute_net::driver::SessionError;
use peercompute_net::membership::MemberError;
use peercompute_net::transport::TransportError;
use peercompute_net::transport::probe::ProbeError;
use wasm_bindgen::JsValue;

use crate::link::LinkError;
use crate::node::NodeError;

/// Why a call failed, or a member computes no more.
#[derive(Clone, Debug)]
pub struct Fault {
    pub(super) code: &'static str,
    pub(super) text: String,
}

impl Fault {
    pub(super) fn new(code: &'static str, text: impl Into<String>) -> Fault {
        Fault { code, text: text.into() }
    }

    /// An error and its causes.
    pub(super) fn caused(code: &'static str, error: &(dyn Error + 'static)) -> Fault {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            let inner_text = inner.to_string();
            // Transparent errors say what their cause says.
            if !text.ends_with(&inner_text) {
                text = format!("{text}: {inner_text}");
            }
            cause = inner.source();
        }
        Fault { code, text }
    }

    /// What was asked has no such value.
    pub(super) fn option(text: impl Into<String>) -> Fault {
        Fault::new("option", text)
    }

    /// Nobody is there to answer.
    pub(super) fn over() -> Fault {
        Fault::new("left", "this member computes no more")
    }
}

impl From<Fault> for JsValue {
    fn from(fault: Fault) -> JsValue {
        let error = js_sys::Error::new(&fault.text);
        // A new object takes anything.
        let _ = Reflect::set(&error, &"code".into(), &fault.code.into());
        error.into()
    }
}

impl From<LinkError> for Fault {
    fn from(error: LinkError) -> Fault {
        Fault::caused("link", &error)
    }
}

impl From<KeyError> for Fault {
    fn from(error: KeyError) -> Fault {
        Fault::caused("key", &error)
    }
}

impl From<ProbeError> for Fault {
    fn from(error: ProbeError) -> Fault {
        Fault::caused("unreachable", &error)
    }
}

impl From<BundleError> for Fault {
    fn from(error: BundleError) -> Fault {
        match &error {
            // Who has no command line pins a key otherwise.
            BundleError::Untrusted { key } => Fault::new("key", format!("the bundle is signed by {key}, which is not a trusted key")),
            error => Fault::caused("bundle", error),
        }
    }
}

impl From<WorkloadError> for Fault {
    fn from(error: WorkloadError) -> Fault {
        Fault::caused("option", &error)
    }
}

impl From<ExecutorError> for Fault {
    fn from(error: ExecutorError) -> Fault {
        let code = match &error {
            ExecutorError::Lost { .. } => "device",
            ExecutorError::Bundle(_) => "bundle",
            _ => "executor",
        };
        Fault::caused(code, &error)
    }
}

impl From<NodeError> for Fault {
    fn from(error: NodeError) -> Fault {
        match error {
            NodeError::Executor(error) => error.into(),
            NodeError::Param(error) => error.into(),
            error => {
                let code = match &error {
                    NodeError::Member(MemberError::Refused { .. }) => "refused",
                    NodeError::Member(MemberError::Unreachable { .. }) => "unreachable",
                    // A peer dials where its link says.
                    NodeError::Session(SessionError::Transport(TransportError::BadAddress { .. })) => "link",
                    NodeError::Member(MemberError::Orphaned { .. } | MemberError::PartsLost { .. }) | NodeError::Session(_) => "lost",
                    _ => "failed",
                };
                Fault::caused(code, &error)
            }
        }
    }
}
