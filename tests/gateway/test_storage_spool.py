"""The spool: one process, bounded space, nothing intact is lost."""

from pathlib import Path

import msgspec
import pytest

from gateway.storage.frames import encode_frame
from gateway.storage.records import DecisionRecord, Record, RequestRecord
from gateway.storage.spool import Spool, SpoolError, read_segment


def request(text: str = "") -> RequestRecord:
    return RequestRecord(endpoint="/v1/chat/completions", model_requested="auto", status=200, user=text)


def open_spool(folder: Path, max_bytes: int = 1 << 20, segment_bytes: int = 1 << 16) -> Spool:
    return Spool(folder / "spool", max_bytes=max_bytes, segment_bytes=segment_bytes)


def test_records_come_back_as_they_went_in(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    decision = DecisionRecord(
        request_id=request().id,
        policy="learned",
        eligible=["small"],
        action="small",
        reason="score",
        features=b"\x00\xff",
    )
    written: list[Record] = [request("ä😀\0"), decision]
    for record in written:
        spool.append(record)
    segment = spool.seal()
    assert segment is not None
    assert read_segment(segment).records == written
    spool.close()


def test_rows_of_a_dead_process_are_found_by_the_next(tmp_path: Path) -> None:
    spool = open_spool(tmp_path, segment_bytes=500)
    written = [request(str(number)) for number in range(9)]
    for record in written:
        spool.append(record)
    spool.close()
    again = open_spool(tmp_path)
    found = [record for segment in again.sealed() for record in read_segment(segment).records]
    assert len(again.sealed()) > 1
    assert found == written
    again.append(request("new"))
    assert again.seal() not in again.sealed()[:-1], "a new segment must not reuse the name of an old one"
    again.close()


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    with pytest.raises(SpoolError, match="its own data_dir"):
        open_spool(tmp_path)
    spool.close()
    open_spool(tmp_path).close()


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("a file is in the way")
    with pytest.raises(SpoolError, match="Set data_dir"):
        open_spool(tmp_path)


def test_space_is_bounded_and_freed_again(tmp_path: Path) -> None:
    spool = open_spool(tmp_path, max_bytes=3000)
    frame_bytes = len(encode_frame(msgspec.msgpack.encode(request())))
    for _ in range(3000 // frame_bytes):
        spool.append(request())
    with pytest.raises(OSError, match="full"):
        spool.append(request())
    on_disk = sum(path.stat().st_size for path in (tmp_path / "spool").glob("*.rows"))
    assert on_disk == spool.n_bytes <= 3000
    segment = spool.seal()
    assert segment is not None
    spool.remove(segment)
    assert spool.n_bytes == 0
    spool.append(request())
    spool.close()


async def test_syncing_works_whatever_is_open(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    await spool.sync()
    spool.append(request())
    await spool.sync()
    spool.seal()
    await spool.sync()
    spool.close()
