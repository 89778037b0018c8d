//! The one decoder that all bytes from peers pass: it never panics, takes what was encoded and nothing
//! that would not have been.

use bytes::Bytes;
use peercompute_net::wire::*;
use proptest::prelude::*;

fn text(bytes_max: usize) -> impl Strategy<Value = String> {
    proptest::collection::vec(any::<char>(), 0..40).prop_map(move |chars| {
        let mut text: String = chars.into_iter().collect();
        while text.len() > bytes_max {
            text.pop();
        }
        text
    })
}

fn bytes(max: usize) -> impl Strategy<Value = Bytes> {
    proptest::collection::vec(any::<u8>(), 0..max).prop_map(Bytes::from)
}

fn addresses() -> impl Strategy<Value = Vec<String>> {
    proptest::collection::vec(text(ADDRESS_BYTES_MAX), 0..=ADDRESSES_MAX)
}

fn reason() -> impl Strategy<Value = RefuseReason> {
    use RefuseReason::*;
    proptest::sample::select(vec![Version, Bundle, Token, Plan, Full, Identity, Protocol, Silent])
}

fn hello() -> impl Strategy<Value = Message> {
    let head = (any::<u16>(), proptest::option::of(0..u16::MAX), any::<[u8; 32]>(), any::<[u8; 32]>(), any::<[u8; 16]>());
    (head, -1e300..1e300, text(NAME_BYTES_MAX), addresses()).prop_map(|(head, speed, name, addresses)| {
        let (version, index, bundle, plan, token) = head;
        Message::Hello(Hello { version, index, bundle, plan, token, speed, name, addresses })
    })
}

fn message() -> impl Strategy<Value = Message> {
    prop_oneof![
        hello(),
        (any::<u16>(), bytes(200)).prop_map(|(index, envelope)| Message::Plan { index, envelope }),
        Just(Message::Linked),
        (any::<u64>(), any::<u16>(), bytes(200)).prop_map(|(sequence, exchange, payload)| { Message::Data { sequence, exchange, payload } }),
        (any::<u16>(), any::<u32>(), bytes(200)).prop_map(|(grid, tile, body)| Message::Commit { grid, tile, body }),
        bytes(200).prop_map(Message::Report),
        Just(Message::Done),
        (reason(), text(TEXT_BYTES_MAX)).prop_map(|(reason, text)| Message::Refuse { reason, text }),
        (any::<u16>(), text(TEXT_BYTES_MAX)).prop_map(|(by, text)| Message::Abort { by, text }),
        any::<bool>().prop_map(|waiting| Message::Ping { waiting }),
        any::<bool>().prop_map(|waiting| Message::Pong { waiting }),
        any::<u64>().prop_map(|sequence| Message::Progress { sequence }),
    ]
}

/// Whether the message ends where its fields do, not where the frame does.
fn is_fixed(message: &Message) -> bool {
    !matches!(message, Message::Plan { .. } | Message::Data { .. } | Message::Commit { .. } | Message::Report(_))
}

fn envelope() -> impl Strategy<Value = Envelope> {
    let peer = (text(IDENTITY_BYTES_MAX), text(NAME_BYTES_MAX), addresses()).prop_map(|(identity, name, addresses)| RosterPeer {
        identity,
        name,
        addresses,
    });
    (any::<u32>(), proptest::collection::vec(peer, 0..6), bytes(300)).prop_map(|(staleness, roster, plan)| Envelope { staleness, roster, plan })
}

fn mutated(mut bytes: Vec<u8>, edits: &[(usize, u8, u8)]) -> Vec<u8> {
    for (at, value, kind) in edits {
        let length = bytes.len();
        match kind % 3 {
            0 if length > 0 => bytes[at % length] = *value,
            1 => bytes.insert(at % (length + 1), *value),
            _ => bytes.truncate(at % (length + 1)),
        }
    }
    bytes
}

fn edits() -> impl Strategy<Value = Vec<(usize, u8, u8)>> {
    proptest::collection::vec((0usize..600, any::<u8>(), any::<u8>()), 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn messages_come_back_as_they_were(message in message()) {
        let frame = encode(&message);
        let length = u32::from_le_bytes(frame.head[..LENGTH_BYTES].try_into().expect("four bytes"));
        prop_assert_eq!(length as usize, frame.content_bytes());
        prop_assert_eq!(decode(frame.content()), Ok(message));
    }

    #[test]
    fn envelopes_come_back_as_they_were(envelope in envelope()) {
        prop_assert_eq!(decode_envelope(encode_envelope(&envelope)), Ok(envelope));
    }

    /// Whatever decodes is exactly what would have been encoded: one encoding per message.
    #[test]
    fn mutated_messages_are_refused_or_canonical(message in message(), edits in edits()) {
        let content = Bytes::from(mutated(encode(&message).content().to_vec(), &edits));
        if let Ok(decoded) = decode(content.clone()) {
            prop_assert_eq!(encode(&decoded).content(), content);
        }
    }

    #[test]
    fn mutated_envelopes_are_refused_or_canonical(envelope in envelope(), edits in edits()) {
        let content = Bytes::from(mutated(encode_envelope(&envelope).to_vec(), &edits));
        if let Ok(decoded) = decode_envelope(content.clone()) {
            prop_assert_eq!(encode_envelope(&decoded), content);
        }
    }

    #[test]
    fn random_bytes_are_refused_or_canonical(content in bytes(300)) {
        if let Ok(decoded) = decode(content.clone()) {
            prop_assert_eq!(encode(&decoded).content(), content.clone());
        }
        let _ = decode_envelope(content);
    }

    #[test]
    fn every_prefix_of_a_fixed_message_is_refused(message in message().prop_filter("open end", is_fixed), at in any::<usize>()) {
        let content = encode(&message).content();
        prop_assert!(decode(content.slice(..at % content.len())).is_err());
    }
}

#[test]
fn lengths_above_their_limits_are_refused_before_their_bytes_are_looked_for() {
    let hello = |name_length: u8| {
        let mut bytes = vec![1];
        bytes.extend([0; 2 + 2 + 32 + 32 + 16 + 8]);
        bytes.push(name_length);
        decode(bytes.into())
    };
    assert_eq!(hello(65), Err(WireError::TooLong { field: "name", given: 65, limit: 64 }));
    assert_eq!(hello(64), Err(WireError::Truncated { field: "name", needed: 64, left: 0 }));
    let text = |length: u16| decode([&[9, 0, 0][..], &length.to_le_bytes()].concat().into());
    assert_eq!(text(513), Err(WireError::TooLong { field: "text", given: 513, limit: 512 }));
    let report = |bytes: usize| decode([vec![6], vec![0; bytes]].concat().into());
    assert!(report(REPORT_BYTES_MAX).is_ok());
    assert!(matches!(report(REPORT_BYTES_MAX + 1), Err(WireError::TooLong { field: "report", .. })));
    let roster = |peers: u16| decode_envelope([&[0; 4][..], &peers.to_le_bytes()].concat().into());
    assert!(matches!(roster(1025), Err(WireError::TooLong { field: "roster length", .. })));
    assert!(matches!(roster(1024), Err(WireError::Truncated { .. })));
    let plan = |bytes: u32| decode_envelope([&[0; 6][..], &bytes.to_le_bytes()].concat().into());
    assert!(matches!(plan(PLAN_BYTES_MAX as u32 + 1), Err(WireError::TooLong { field: "plan length", .. })));
}

#[test]
fn what_is_not_a_message_is_named() {
    let check = |bytes: &[u8], expected| assert_eq!(decode(Bytes::copy_from_slice(bytes)), Err(expected));
    check(&[], WireError::Truncated { field: "kind", needed: 1, left: 0 });
    check(&[0], WireError::UnknownKind { kind: 0 });
    check(&[13], WireError::UnknownKind { kind: 13 });
    check(&[3, 0], WireError::TrailingBytes { bytes: 1 });
    check(&[10, 2], WireError::BadValue { field: "ping waiting", value: 2 });
    check(&[8, 11, 0, 0], WireError::BadValue { field: "refuse reason", value: 11 });
    check(&[9, 0, 0, 1, 0, 0xff], WireError::NotText { field: "text" });
    check(&[4, 1, 0, 0], WireError::BadValue { field: "data padding", value: 1 });
}

/// The bytes themselves, so that a change of layout is a decision.
#[test]
fn the_layout_is_as_documented() {
    let data = Message::Data { sequence: 0x0807_0605_0403_0201, exchange: 0x0a09, payload: Bytes::from_static(b"xy") };
    let frame = encode(&data);
    let expected = [18, 0, 0, 0, 4, 0, 9, 10, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    assert_eq!((&frame.head[..], &frame.body[..]), (&expected[..], &b"xy"[..]));
    assert_eq!(frame.head.len() - LENGTH_BYTES, BULK_HEAD_BYTES);
    let commit = encode(&Message::Commit { grid: 0x0201, tile: 0x0605_0403, body: Bytes::from_static(b"z") });
    assert_eq!(&commit.head[..], [17, 0, 0, 0, 5, 0, 1, 2, 3, 4, 5, 6, 0, 0, 0, 0, 0, 0, 0, 0]);
    let refuse = encode(&Message::Refuse { reason: RefuseReason::Silent, text: "no".to_owned() });
    assert_eq!(&refuse.head[..], [6, 0, 0, 0, 8, 7, 2, 0, b'n', b'o']);
    let abort = encode(&Message::Abort { by: 0x0201, text: String::new() });
    assert_eq!(&abort.head[..], [5, 0, 0, 0, 9, 1, 2, 0, 0]);
}

#[test]
fn what_is_too_long_to_say_is_cut_to_what_may_be_said() {
    let long = "ä".repeat(300);
    let Ok(Message::Abort { text, .. }) = decode(encode(&Message::Abort { by: 0, text: long.clone() }).content()) else {
        panic!("a cut text decodes");
    };
    assert!(long.starts_with(&text) && text.len() == 512);
}
