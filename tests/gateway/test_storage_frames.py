"""Frames survive cuts and damage: what is read was written, and an intact frame is never lost."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.storage.frames import MAGIC, encode_frame, read_frames

payloads = st.lists(st.binary(max_size=60) | st.builds(lambda tail: MAGIC + tail, st.binary(max_size=20)), max_size=8)


@given(payloads)
def test_what_was_written_is_read(written: list[bytes]) -> None:
    assert read_frames(b"".join(map(encode_frame, written))) == (written, 0)


@given(payloads, st.integers(0, 600))
def test_a_cut_loses_only_what_lies_behind_it(written: list[bytes], cut: int) -> None:
    frames = [encode_frame(payload) for payload in written]
    data = b"".join(frames)[:cut]
    whole = 0
    while whole < len(frames) and len(b"".join(frames[: whole + 1])) <= len(data):
        whole += 1
    read, damaged = read_frames(data)
    assert read == written[:whole]
    assert damaged == len(data) - len(b"".join(frames[:whole]))


@given(payloads.filter(bool), st.data())
def test_a_flipped_bit_loses_only_its_own_frame(written: list[bytes], data: st.DataObject) -> None:
    frames = [encode_frame(payload) for payload in written]
    victim = data.draw(st.integers(0, len(frames) - 1))
    bit = data.draw(st.integers(0, 8 * len(frames[victim]) - 1))
    broken = bytearray(frames[victim])
    broken[bit // 8] ^= 1 << bit % 8
    frames[victim] = bytes(broken)
    read, damaged = read_frames(b"".join(frames))
    assert read == written[:victim] + written[victim + 1 :]
    assert damaged == len(broken)


@given(st.text())
def test_text_never_looks_like_a_frame(text: str) -> None:
    assert MAGIC not in text.encode()


@given(st.binary(max_size=200))
def test_noise_is_reported_and_does_not_fail(noise: bytes) -> None:
    read, damaged = read_frames(noise)
    assert damaged + sum(len(encode_frame(payload)) for payload in read) == len(noise)
