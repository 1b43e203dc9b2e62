"""Files that are only size: refused or quarantined within bounds of time and memory, others unharmed (I7)."""

import hashlib
import os
from pathlib import Path

import pytest
from cleanbill.control import open_warehouse

from tests.delivery_writer import HEADERS, DeliveryWriter
from tests.unit.test_ingest_deliveries import LINE, start_child

MIB = 1 << 20


def write_endless_line(home: Path, mebibytes: int) -> None:
    """Write a file whose second line has so many bytes, without ever holding it, and its manifest."""
    writer = DeliveryWriter(home, source="endless")
    header = (HEADERS["sms_usage"] + "\n").encode()
    digest = hashlib.sha256(header)
    writer.folder.mkdir(parents=True, exist_ok=True)
    path = writer.folder / f"{writer.stem}.csv"
    with path.open("wb") as stream:
        stream.write(header)
        for _ in range(mebibytes):
            stream.write(b"x" * MIB)
            digest.update(b"x" * MIB)
    size = len(header) + mebibytes * MIB
    writer.changes = {"files": [{"name": path.name, "rows": 1, "bytes": size, "sha256": digest.hexdigest()}]}
    writer.write()


@pytest.mark.parametrize(("mebibytes", "tiny_files"), [(100, 300), pytest.param(1024, 9999, marks=pytest.mark.soak)])
def test_size_alone_harms_nobody(cleanbill_home: Path, mebibytes: int, tiny_files: int) -> None:
    write_endless_line(cleanbill_home, mebibytes)
    tiny = DeliveryWriter(cleanbill_home, source="tiny")
    for number in range(tiny_files):
        tiny.add([], part=f"_{number:04d}")
    tiny.write()
    too_many = DeliveryWriter(cleanbill_home, source="toomany")
    entry = {"rows": 0, "bytes": 1, "sha256": "0" * 64}
    too_many.changes = {"files": [{"name": f"{too_many.stem}_{number:05d}.csv", **entry} for number in range(10_001)]}
    too_many.write()
    if os.geteuid() == 0:
        device = DeliveryWriter(cleanbill_home, source="device").add([LINE])
        path = device.write().with_name(f"{device.stem}.csv")
        path.unlink()
        try:
            os.mknod(path, 0o020600, os.makedev(1, 5))
        except OSError:  # a container that may make no devices: a pipe is refused for the same reason
            os.mkfifo(path)
    DeliveryWriter(cleanbill_home, source="honest").add([LINE]).write()
    output, _ = start_child(cleanbill_home).communicate(timeout=300)
    peak_kib, seconds = output.split()[-2:]
    assert int(peak_kib) < 512 * 1024
    assert float(seconds) < 5 + tiny_files / 1000
    with open_warehouse() as warehouse:
        codes = dict(
            warehouse.execute("select source, coalesce(reason_code, status) from control.deliveries").fetchall()
        )
    assert codes.pop("device", "unsafe_file") == "unsafe_file"
    assert codes == {
        "endless": "over_limit",
        "tiny": "accepted",
        "toomany": "bad_manifest_field",
        "honest": "accepted",
    }
