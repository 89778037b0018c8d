//! Bundles: whatever is wrong with their bytes, or untrue in them, is found before anything is compiled, and nothing panics.
#![allow(clippy::unwrap_used, reason = "a test ends at the first thing that fails")]

mod small;

use std::sync::{Arc, Mutex, OnceLock};

use peercompute_buffers::layout::{Element, Scalar};
use peercompute_kernels::bundle::{self, BundleError, manifest_hash};
use peercompute_kernels::executor::cpu::{Cpu, CpuOptions};
use peercompute_kernels::executor::gpu::{Gpu, GpuOptions};
use peercompute_kernels::executor::{ExecutorError, Placement, Run};
use peercompute_kernels::program::{Role, Write};
use peercompute_kernels::{Manifest, Program, Reflection, SecretKey, Trust, VerifiedBundle};
use pollster::block_on;
use proptest::prelude::*;
use small::{BODIES_TOML, BODIES_WGSL, TOML, WGSL, edited, manifest};

fn signed() -> (Manifest, SecretKey, Vec<u8>) {
    let manifest = manifest(TOML, WGSL).unwrap();
    let key: SecretKey = format!("peercompute-secret-1:{}", "17".repeat(32)).parse().unwrap();
    let bytes = sign(&manifest, &key);
    (manifest, key, bytes)
}

fn sign(manifest: &Manifest, key: &SecretKey) -> Vec<u8> {
    bundle::sign(&Program::check(manifest.clone()).unwrap(), key)
}

/// A bundle around any bytes, signed as the format says (plan/formats/bundle.md).
fn resigned(manifest: &[u8], reflection: &[u8]) -> Vec<u8> {
    use ed25519_dalek::{Signer, SigningKey};
    let key = SigningKey::from_bytes(&[0x17; 32]);
    let hash = blake3::derive_key("peercompute bundle manifest v1", manifest);
    let known = blake3::derive_key("peercompute bundle reflection v1", reflection);
    let signature = key.sign(&[b"peercompute bundle signature v2\0".as_slice(), &hash, &known].concat());
    let lengths = [manifest, reflection].map(|part| (part.len() as u32).to_le_bytes()).concat();
    let head = [b"PCBUNDLE".as_slice(), &[2, 0], &lengths].concat();
    [&head, manifest, reflection, key.verifying_key().as_bytes(), &signature.to_bytes()].concat()
}

/// A bundle's manifest and its reflection.
fn parts(bytes: &[u8]) -> (&[u8], &[u8]) {
    let length = u32::from_le_bytes(bytes[10..14].try_into().unwrap()) as usize;
    bytes[18..bytes.len() - 96].split_at(length)
}

#[test]
fn bundles_that_were_changed_anywhere() {
    let (manifest, key, bytes) = signed();
    let trust = Trust::key(key.public());
    let (body, reflection) = parts(&bytes);
    assert_eq!(resigned(body, reflection), bytes);
    assert_eq!(VerifiedBundle::verify(&bytes, &trust).unwrap().program().hash, manifest_hash(&manifest));
    // Everywhere in a bundle without its WGSL, which an unoptimised build verifies in seconds, and here and there in the whole one.
    let bare = {
        let mut bare = manifest;
        bare.passes[0].wgsl.clear();
        resigned(&postcard::to_allocvec(&bare).unwrap(), reflection)
    };
    assert!(matches!(VerifiedBundle::verify(&bare, &trust).unwrap_err(), BundleError::Workload(_)));
    let places = (0..bare.len()).map(|at| (&bare, at)).chain((0..bytes.len()).step_by(61).map(|at| (&bytes, at)));
    for (bytes, at) in places {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        let error = VerifiedBundle::verify_signature(&changed, &trust).unwrap_err();
        let fits = match at {
            0..8 => matches!(error, BundleError::NotABundle),
            8..10 => matches!(error, BundleError::Format { .. }),
            10..18 => matches!(error, BundleError::Length { .. }),
            _ if at >= bytes.len() - 96 && at < bytes.len() - 64 => matches!(error, BundleError::Untrusted { .. }),
            _ => matches!(error, BundleError::Signature { .. }),
        };
        assert!(fits, "byte {at}: {error}");
    }
    for length in 0..bytes.len() {
        let error = VerifiedBundle::verify(&bytes[..length], &trust).unwrap_err();
        assert!(matches!(error, BundleError::Length { .. } | BundleError::NotABundle), "{length}: {error}");
    }
    let longer = [bytes.as_slice(), &[0]].concat();
    assert!(matches!(VerifiedBundle::verify(&longer, &trust).unwrap_err(), BundleError::Length { .. }));
    // What is the manifest's is nobody else's: parts of other lengths, and of other kinds.
    let mut moved = bytes.clone();
    moved[10..14].copy_from_slice(&(body.len() as u32 + 1).to_le_bytes());
    moved[14..18].copy_from_slice(&(reflection.len() as u32 - 1).to_le_bytes());
    assert!(matches!(VerifiedBundle::verify(&moved, &trust).unwrap_err(), BundleError::Signature { .. }));
}

#[test]
fn bundles_of_strangers_and_of_yesterday() {
    let (mut manifest, key, bytes) = signed();
    let stranger = SecretKey::generate().unwrap();
    let error = VerifiedBundle::verify(&bytes, &Trust::key(stranger.public())).unwrap_err();
    assert!(matches!(error, BundleError::Untrusted { key: given } if given == key.public()), "{error}");
    assert!(matches!(VerifiedBundle::verify(&bytes, &Trust::default()).unwrap_err(), BundleError::Untrusted { .. }));
    let mut trust = Trust::key(key.public());
    trust.remember(&VerifiedBundle::verify(&bytes, &trust).unwrap());
    VerifiedBundle::verify(&bytes, &trust).unwrap();
    manifest.version = "1.1.9".parse().unwrap();
    let error = VerifiedBundle::verify(&sign(&manifest, &key), &trust).unwrap_err();
    assert!(matches!(error, BundleError::Older { .. }), "{error}");
    assert_eq!(error.to_string(), "`small` 1.1.9 is older than 1.2.0, which was seen before: older versions are refused");
    manifest.version = "1.3.0".parse().unwrap();
    VerifiedBundle::verify(&sign(&manifest, &key), &trust).unwrap();
    // Another key's versions are its own.
    manifest.version = "0.1.0".parse().unwrap();
    trust.pin(stranger.public());
    VerifiedBundle::verify(&sign(&manifest, &stranger), &trust).unwrap();
}

#[test]
fn manifests_that_are_not_canonical_or_not_manifests() {
    let (_, key, bytes) = signed();
    let trust = Trust::key(key.public());
    let (body, reflection) = parts(&bytes);
    let refusal = |body: &[u8]| VerifiedBundle::verify(&resigned(body, reflection), &trust).unwrap_err();
    // The name's length, 5, as a varint of two bytes.
    assert_eq!(body[0], 5);
    let padded = [&[0x85, 0x00], &body[1..]].concat();
    assert!(matches!(refusal(&padded), BundleError::NotCanonical | BundleError::Manifest { .. }));
    assert!(matches!(refusal(&[body, &[0]].concat()), BundleError::NotCanonical));
    for cut in (0..100).chain((100..body.len()).step_by(97)) {
        assert!(matches!(refusal(&body[..cut]), BundleError::Manifest { .. }), "{cut}");
    }
}

#[test]
fn what_a_bundle_says_of_its_kernels_is_what_the_checks_find() {
    let (manifest, key, bytes) = signed();
    let trust = Trust::key(key.public());
    let (body, reflection) = parts(&bytes);
    let known = Program::check(manifest).unwrap().reflection();
    let signed = |edit: &dyn Fn(&mut Reflection)| {
        let mut edited = known.clone();
        edit(&mut edited);
        resigned(body, &edited.to_bytes())
    };
    // What cannot be: refused before anything is compiled, whoever compiles.
    let cannot = |edit: &dyn Fn(&mut Reflection), words: &str| {
        let error = VerifiedBundle::verify_signature(&signed(edit), &trust).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    };
    cannot(&|r| drop(r.passes.pop()), "of other buffers or passes");
    cannot(&|r| r.elements.push(Element::scalar(Scalar::F32)), "of other buffers or passes");
    cannot(&|r| r.passes[0].workgroup[1] = 0, "workgroup of no size");
    cannot(&|r| r.passes[0].workgroup[0] = 1 << 20, "workgroup of no size");
    cannot(&|r| r.passes[0].writes[0] = Write::Partials, "in other ways");
    cannot(&|r| r.passes[0].writes.clear(), "in other ways");
    cannot(&|r| r.passes[0].bindings[0].role = Role::Next(99), "binds what it does not declare");
    cannot(&|r| r.passes[0].bindings.extend_from_within(..1), "or something twice");
    cannot(&|r| r.elements[0] = Element::vector(Scalar::F32, 2), "vec2<f32>");
    cannot(&|r| r.params = None, "the parameters' bytes");
    // What could be, but is not: the signer's word for who asks no more, untrue for who checks.
    let untrue = |edit: &dyn Fn(&mut Reflection)| {
        let signed = signed(edit);
        let taken = VerifiedBundle::verify_signature(&signed, &trust).unwrap();
        let errors = [taken.check_kernels().unwrap_err(), VerifiedBundle::verify(&signed, &trust).unwrap_err()];
        assert!(errors.iter().all(|error| matches!(error, BundleError::Untrue { key: named } if *named == key.public())), "{errors:?}");
        let cpu = Cpu::open(CpuOptions { threads: Some(1), ..CpuOptions::default() }).unwrap();
        let error = block_on(cpu.load(&taken, &Placement::alone(taken.program()))).map(drop).unwrap_err();
        assert!(matches!(error, ExecutorError::Bundle(_)), "{error}");
    };
    untrue(&|r| r.passes[0].workgroup = [1, 1, 1]);
    untrue(&|r| r.passes[0].workgroup_bytes += 4);
    untrue(&|r| r.passes[0].uses_subgroups ^= true);
    untrue(&|r| r.passes[0].writes[0] = Write::InPlace);
    untrue(&|r| r.passes[0].bindings.swap(0, 1));
    let taken = VerifiedBundle::verify_signature(&bytes, &trust).unwrap();
    assert_eq!(taken.program().reflection(), known);
    taken.check_kernels().unwrap();
    // Bytes that are none.
    for cut in 0..reflection.len() {
        let error = VerifiedBundle::verify_signature(&resigned(body, &reflection[..cut]), &trust).unwrap_err();
        assert!(matches!(error, BundleError::Reflection { .. }), "{cut}: {error}");
    }
    let longer = [reflection, &[0]].concat();
    let error = VerifiedBundle::verify_signature(&resigned(body, &longer), &trust).unwrap_err();
    assert_eq!(error.to_string(), "what the bundle says of its kernels does not decode: it is not in canonical form");
}

#[test]
fn manifests_that_no_declaration_makes() {
    let refusal = |edit: &dyn Fn(&mut Manifest)| {
        let (mut manifest, ..) = signed();
        edit(&mut manifest);
        Program::check(manifest).unwrap_err().to_string()
    };
    use peercompute_kernels::declaration::{Access, Extent};
    let check = |edit: &dyn Fn(&mut Manifest), text: &str| {
        let refusal = refusal(edit);
        assert!(refusal.contains(text), "{refusal}");
    };
    check(&|m| m.grids.clear(), "at least a grid");
    check(&|m| m.passes.clear(), "at least a grid");
    check(&|m| m.grids[0].grid.tile = [0; 3], "extent 0");
    check(&|m| m.grids[0].grid.dims = 9, "1 to 3 axes");
    check(&|m| m.buffers[0].extent = Extent::Field { grid: 7 }, "belongs to no grid");
    check(&|m| m.buffers[0].extent = Extent::Table { length: 0, reduce: None }, "has 0 elements");
    check(&|m| m.buffers[0].extent = Extent::Table { length: u32::MAX, reduce: None }, "has 4294967295 elements");
    check(&|m| m.buffers.push(m.buffers[0].clone()), "two buffers");
    check(&|m| m.passes[0].grid = usize::MAX, "runs over no grid");
    check(&|m| m.passes[0].reads = vec![(99, Access::Own)], "does not exist");
    check(&|m| m.passes[0].writes = vec![usize::MAX], "does not exist");
    check(&|m| m.passes[0].reads = vec![(0, Access::Halo(5))], "a halo of 5 does not fit");
    check(&|m| m.passes[0].entry = "x".into(), "unknown entry point");
    check(&|m| m.params.push(0), "the parameters' bytes");
    check(&|m| m.buffers[0].constant = vec![0; 4], "the constant of `heat`");
    check(&|m| m.passes[0].wgsl = "(".repeat(1 << 20), "bytes, at most");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn random_bytes_are_no_bundle(bytes in proptest::collection::vec(any::<u8>(), 0..300), signed in any::<bool>()) {
        let key: SecretKey = format!("peercompute-secret-1:{}", "17".repeat(32)).parse().unwrap();
        let (manifest, reflection) = bytes.split_at(bytes.len() / 2);
        let bytes = if signed { resigned(manifest, reflection) } else { bytes };
        prop_assert!(VerifiedBundle::verify(&bytes, &Trust::key(key.public())).is_err());
    }

    /// Whatever a trusted key signs is either a workload that checks or an error.
    #[test]
    fn mutated_manifests_never_panic(edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 1..4)) {
        let (_, key, bytes) = signed();
        let (body, reflection) = parts(&bytes);
        let mut body = body.to_vec();
        // Half of the edits go where the structure is, not into the long WGSL.
        for (at, byte, front) in edits {
            let at = at.index(if front { 80 } else { body.len() });
            body[at] = byte;
        }
        if let Ok(verified) = VerifiedBundle::verify(&resigned(&body, reflection), &Trust::key(key.public())) {
            prop_assert_eq!(manifest_hash(&verified.program().manifest), verified.program().hash);
        }
    }

    /// Whatever a trusted key says of kernels, a GPU that takes its word runs them or refuses them.
    #[test]
    fn mutated_reflections_never_panic(edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
        let (_, key, _) = signed();
        let bytes = BYTES.get_or_init(|| sign(&manifest(BODIES_TOML, BODIES_WGSL).unwrap(), &key));
        let gpu = gpu();
        let (body, reflection) = parts(bytes);
        let mut reflection = reflection.to_vec();
        for (at, byte) in edits {
            let at = at.index(reflection.len());
            // Most numbers there are small.
            reflection[at] = if byte < 192 { byte % 9 } else { byte };
        }
        if let Ok(taken) = VerifiedBundle::verify_signature(&resigned(body, &reflection), &Trust::key(key.public())) {
            let placement = Placement::alone(taken.program());
            let ran = block_on(async {
                let mut run = gpu.load(&taken, &placement).await?;
                run.pass(0, 0).await?;
                run.finish().await
            });
            if let Err(error) = ran {
                let is_refused = match &error {
                    ExecutorError::Kernel { .. } | ExecutorError::Limit { .. } => true,
                    // What it binds is validated once it is used.
                    ExecutorError::Lost { cause } => cause.contains("Validation Error"),
                    _ => false,
                };
                prop_assert!(is_refused, "{error}");
            }
        }
    }
}

/// A GPU that is not lost.
fn gpu() -> Arc<Gpu> {
    static GPU: Mutex<Option<Arc<Gpu>>> = Mutex::new(None);
    let mut gpu = GPU.lock().unwrap();
    if gpu.as_ref().is_none_or(|gpu| gpu.is_lost()) {
        *gpu = Some(Arc::new(block_on(Gpu::open(GpuOptions::default())).unwrap()));
    }
    gpu.clone().unwrap()
}

/// Of one text, a bundle that says what is so and one that does not.
#[test]
fn what_one_bundle_says_of_a_kernel_is_not_taken_for_another_that_has_the_same() {
    let (manifest, key, bytes) = signed();
    let trust = Trust::key(key.public());
    let (body, _) = parts(&bytes);
    let mut untrue = Program::check(manifest).unwrap().reflection();
    let written = untrue.passes[0].bindings.iter_mut().find(|binding| matches!(binding.role, Role::Next(_))).unwrap();
    written.writable = false;
    let gpu = block_on(Gpu::open(GpuOptions::default())).unwrap();
    let load = |bytes: &[u8]| {
        let taken = VerifiedBundle::verify_signature(bytes, &trust).unwrap();
        block_on(gpu.load(&taken, &Placement::alone(taken.program()))).map(drop)
    };
    load(&bytes).unwrap();
    let error = load(&resigned(body, &untrue.to_bytes())).unwrap_err();
    assert!(matches!(error, ExecutorError::Kernel { .. }), "{error}");
    load(&bytes).unwrap();
}

#[test]
fn whatever_passes_its_checks_can_be_signed_and_verified() {
    let key = SecretKey::generate().unwrap();
    // A length is asked for without a declaration; what an adapter has no room for is the adapter's to refuse.
    let two = edited(TOML, &[("[params]", "[buffers.cold]\nelement = \"f32\"\n[params]")]);
    let asked = edited(
        WGSL,
        &[
            ("var<uniform>", "var<storage, read> cold: array<f32>;\nvar<uniform>"),
            ("sum * params.rate", "sum * params.rate + f32(arrayLength(&cold))"),
        ],
    );
    let wide = edited(WGSL, &[("(4, 4)", "(2048, 1)")]);
    for (toml, wgsl) in [(two.as_str(), asked.as_str()), (TOML, &wide), (BODIES_TOML, BODIES_WGSL)] {
        let signed = VerifiedBundle::sign(manifest(toml, wgsl).unwrap(), &key).unwrap_or_else(|error| panic!("{error}\n{wgsl}"));
        let verified = VerifiedBundle::verify(signed.bytes(), &Trust::key(key.public())).unwrap_or_else(|error| panic!("{error}\n{wgsl}"));
        assert_eq!(verified.program().reflection(), signed.program().reflection());
    }
}
