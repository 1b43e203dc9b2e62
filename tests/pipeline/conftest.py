"""One small world built by the real dbt, shared by the tests that need a built warehouse or its recorded SQL."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cleanbill.settings import get_settings

from tests.conftest import TEST_KEY
from tests.replay import Recording


@contextmanager
def data_root(home: Path) -> Iterator[Path]:
    """Make `home` the data root of this process."""
    home.mkdir(parents=True, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLEANBILL_HOME", str(home))
        patch.setenv("CLEANBILL_PSEUDONYM_KEY", TEST_KEY)
        get_settings.cache_clear()
        yield home
    get_settings.cache_clear()


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Recording]:
    """Build a world twice with the real dbt, hold the result against the oracle, and keep what dbt executed."""
    from datetime import date

    from cleanbill.ingest import ingest

    from tests.compare import assert_marts_equal
    from tests.replay import record, table_rows
    from tests.worlds import write_world

    with data_root(tmp_path_factory.mktemp("built")) as home:
        write_world(1, home, months=2)
        ingest(date.min, date.max)
        recording = record()
        warehouse = get_settings().warehouse
        assert_marts_equal(home, warehouse)
        real = table_rows(warehouse)
        recording.build()
        assert table_rows(warehouse) == real, "a replayed build must leave what dbt leaves"
    return home, recording


@pytest.fixture(scope="session")
def built_home(built: tuple[Path, Recording]) -> Path:
    """Give the data root of that world."""
    return built[0]


@pytest.fixture(scope="session")
def recording(built: tuple[Path, Recording]) -> Recording:
    """Give what dbt executed to build it."""
    return built[1]
