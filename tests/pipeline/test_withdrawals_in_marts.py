"""What is withdrawn, and what is taken out of the list again, reaches the marts without a full build, both ways."""

import json
import random
from datetime import date
from pathlib import Path

import pytest
from cleanbill.control import open_warehouse
from cleanbill.ingest import ingest
from cleanbill.settings import get_settings

from tests.compare import assert_marts_equal
from tests.oracle.landing import read_landing
from tests.pipeline.conftest import data_root
from tests.replay import Recording, table_rows
from tests.worlds import write_world

ALL_DAYS = (date(1990, 1, 1), date(2100, 1, 1))
HEADER = "extract,source,business_date,delivery,reason,requested_by,approved_by\n"


@pytest.mark.parametrize("seed", [51])
def test_random_withdrawals_equal_a_landing_without_those_deliveries(
    recording: Recording, tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    with data_root(tmp_path / "home") as home:
        write_world(seed, home, months=2, subscribers=20)
        ingest(*ALL_DAYS)
        recording.build()
        before = table_rows(get_settings().warehouse)
        accepted = read_landing(home).accepted
        resent = [one for one in accepted if one.delivery > 1]
        path = home / "withdrawals.csv"
        for share in (0.05, 0.1):
            taken_back = rng.sample(accepted, int(share * len(accepted))) + rng.sample(resent, len(resent) // 2)
            lines = {f"{one.extract},{one.source},{one.business_date},{one.delivery},x,a,b\n" for one in taken_back}
            path.write_text(HEADER + "".join(sorted(lines)))
            recording.build()
            assert_marts_equal(home, get_settings().warehouse)
        path.unlink()
        recording.build()
        assert table_rows(get_settings().warehouse) == before


def test_a_withdrawal_changes_what_is_affected_and_no_more(recording: Recording, tmp_path: Path) -> None:
    """An old day of usage is taken back: the build stays incremental."""
    with data_root(tmp_path / "home") as home:
        write_world(53, home, months=2, holes="none", resends=False, expected_file=True, test_numbers=False)
        ingest(*ALL_DAYS)
        recording.build()
        manifest = sorted((home / "landing" / "sms_usage").glob("*/*.manifest.json"))[10]
        fields = json.loads(manifest.read_text())
        (home / "withdrawals.csv").write_text(
            HEADER + f"sms_usage,{fields['source']},{fields['business_date']},1,wrong file,ann,bob\n"
        )
        recording.build()
        with open_warehouse(get_settings(), read_only=True) as connection:
            changed = connection.execute("select extract, new_delivery from staging.changed_deliveries").fetchall()
            (status,) = connection.execute(
                "select status from marts.extract_completeness where extract = 'sms_usage' and source = $source "
                "and day = $business_date",
                {name: fields[name] for name in ("source", "business_date")},
            ).fetchone()
        assert changed == [("sms_usage", None)]
        assert status == "missing"
        assert_marts_equal(home, get_settings().warehouse)
