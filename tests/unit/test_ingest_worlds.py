"""Ingest against the oracle's own reading of the same landing folder: whole random worlds, every row."""

from datetime import date
from pathlib import Path

import duckdb
import pytest
from cleanbill.contract import CONTRACTS
from cleanbill.control import open_warehouse
from cleanbill.ingest import ingest

from tests.oracle.landing import read_landing
from tests.worlds import write_world

FAR = date(2100, 1, 1)


@pytest.mark.parametrize("seed", [101, 102, 103])
def test_world_is_taken_in_as_the_oracle_reads_it(cleanbill_home: Path, seed: int) -> None:
    write_world(seed, cleanbill_home, months=2, bad_records=True)
    summary = ingest(date(1990, 1, 1), FAR)
    oracle = read_landing(cleanbill_home)
    with open_warehouse() as warehouse:
        recorded = warehouse.execute(
            "select extract, business_date, source, delivery, status, manifest_sha256, manifest_path, rows_in, "
            "rows_loaded, rows_quarantined, rows_duplicate from control.deliveries where status <> 'rejected'"
        ).fetchall()
        in_force = warehouse.execute(
            "select extract, business_date, source, delivery, lake_path from control.in_force"
        ).fetchall()
        refused = warehouse.execute(
            "select extract, business_date, source, delivery from control.deliveries where duplicate_of is not null"
        ).fetchall()
        rejected = warehouse.execute(
            "select manifest_path from control.deliveries where status = 'rejected' order by 1"
        ).fetchall()
    expected = sorted(
        (
            *delivery.key,
            delivery.delivery,
            delivery.status,
            delivery.manifest_sha256,
            delivery.manifest_path,
            delivery.rows_in,
            delivery.rows_loaded,
            delivery.rows_quarantined,
            delivery.rows_duplicate,
        )
        for delivery in oracle.accepted + oracle.over_limit
    )
    assert sorted(recorded) == expected
    assert [path for (path,) in rejected] == sorted(path for path, _ in oracle.rejected)
    assert sorted(refused) == sorted((*delivery.key, delivery.delivery) for delivery in oracle.refused)
    assert sorted(row[:4] for row in in_force) == sorted(
        (*key, delivery.delivery) for key, delivery in oracle.in_force.items()
    )
    for extract, business_date, source, _, lake_path in in_force:
        names = [column.name for column in CONTRACTS[extract].columns]
        rows = oracle.in_force[extract, business_date, source].rows
        found = []
        if lake_path:
            found = duckdb.execute(
                f"select {', '.join(names)} from read_parquet(?)", [str(cleanbill_home / lake_path)]
            ).fetchall()
        assert sorted(map(repr, found)) == sorted(repr(tuple(row[name] for name in names)) for row in rows)
    assert summary.rows_quarantined > 0
