//! Payloads that are opened in the places where they can be sealed again.

use super::*;

/// Seals payloads of these lengths for the first layer, and has the second one seal what the first
/// has opened. Returns what the second layer's peer receives, and in how many records.
fn passed_on(from: Suite, to: Suite, lengths: &[usize]) -> (Vec<u8>, usize) {
    let ((mut reader, mut said), (mut writer, mut heard)) = (pair(from), pair(to));
    let all = bytes(lengths.iter().sum());
    let (mut rest, mut wire) = (&all[..], Vec::new());
    for length in lengths {
        let payload;
        (payload, rest) = rest.split_at(*length);
        wire.extend(said.data(payload));
    }
    let layout = writer.layout();
    let headroom = reader.headroom(layout);
    let mut answers = Vec::new();
    while !wire.is_empty() {
        let taken = wire.len().min(MOST_HELD);
        let mut scratch = vec![0; headroom];
        scratch.extend(&wire[..taken]);
        scratch.resize(MOST_HELD + MOST_HEADROOM, 0);
        let end = headroom + taken;
        let mut pieces = Pieces::new(layout);
        let opened = reader.open(&mut scratch[..end], headroom, &mut pieces, &mut answers);
        assert_eq!(opened.then, Then::More);
        wire.drain(..opened.rest - headroom);
        let length = writer.seal(&pieces, &mut scratch, &mut answers);
        heard
            .unread
            .extend(&scratch[..length.expect("a fresh key")]);
    }
    assert!(answers.is_empty());
    let (mut out, mut records) = (Vec::new(), 0);
    while let Some((_, payload)) = heard.next() {
        out.extend(payload);
        records += 1;
    }
    assert!(out == all, "{from:?} to {to:?}: other bytes of {lengths:?}");
    (out, records)
}

#[test]
fn payloads_are_sealed_where_they_were_opened_between_any_two_suites() {
    let many = vec![1; 2_000];
    let uneven: Vec<usize> = (0..40).map(|turn| turn * 7_919 % MAX_PAYLOAD).collect();
    let cases: [&[usize]; 8] = [
        &[1],
        &[MAX_PAYLOAD],
        &[MAX_PAYLOAD; 9],
        &[1, MAX_PAYLOAD, 1, MAX_PAYLOAD, 1, MAX_PAYLOAD],
        &[MAX_PAYLOAD / 2 + 1; 17],
        &[MAX_PAYLOAD - 1, 1, 1],
        &many,
        &uneven,
    ];
    for from in suites() {
        for to in suites() {
            for lengths in cases {
                passed_on(from, to, lengths);
            }
        }
    }
}

#[test]
fn small_records_are_sealed_as_one() {
    let (_, records) = passed_on(TLS13, TLS13, &[100; 100]);
    assert_eq!(records, 1);
    let (_, records) = passed_on(TLS13, TLS13, &[MAX_PAYLOAD; 8]);
    assert_eq!(records, 8);
}

#[test]
fn payloads_that_are_not_to_be_sealed_lie_one_behind_the_other() {
    for suite in suites() {
        let (mut layer, mut peer) = pair(suite);
        let said = bytes(50_000);
        let mut wire: Vec<u8> = (said.chunks(7_000))
            .flat_map(|payload| peer.data(payload))
            .collect();
        let (opened, length) = layer.open_plain(&mut wire, &mut Vec::new());
        assert_eq!(layer.headroom(Layout::PLAIN), 0);
        assert_eq!((opened.then, length), (Then::More, said.len()));
        assert!(wire[..said.len()] == said, "{suite:?}");
    }
}

#[test]
fn a_layout_has_room_for_as_many_full_records_as_are_moved_at_a_time() {
    for suite in suites() {
        let (layer, _) = pair(suite);
        let mut scratch = vec![0; MOST_HELD + MOST_HEADROOM];
        let mut places = layer.layout().places(&mut scratch);
        assert_eq!(places.room(), RECORDS * MAX_PAYLOAD);
        assert!(places.all().iter().all(|place| place.len() == MAX_PAYLOAD));
        for other in suites() {
            assert!(layer.headroom(Layout::of(other)) <= MOST_HEADROOM);
        }
        let mut pieces = Pieces::new(layer.layout());
        pieces.add_read(2 * MAX_PAYLOAD + 1);
        assert_eq!(pieces.lengths(), [MAX_PAYLOAD, MAX_PAYLOAD, 1]);
    }
}
