"""What every test starts from: no real data root, no key, no Airflow folder in the user's home."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before anything is imported: settings and Airflow read the environment once. A test that forgets its data root
# gets an empty one, never the developer's.
for _name in [name for name in os.environ if name.startswith(("CLEANBILL_", "AIRFLOW"))]:
    del os.environ[_name]
_SCRATCH = tempfile.TemporaryDirectory(prefix="cleanbill-tests-")
os.environ["CLEANBILL_HOME"] = f"{_SCRATCH.name}/data"
os.environ["AIRFLOW_HOME"] = f"{_SCRATCH.name}/airflow"
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"

TEST_KEY = "a key for tests only"


@pytest.fixture
def cleanbill_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Give an empty data root with a pseudonym key set."""
    from cleanbill.settings import get_settings

    home = tmp_path / "data"
    home.mkdir()
    monkeypatch.setenv("CLEANBILL_HOME", str(home))
    monkeypatch.setenv("CLEANBILL_PSEUDONYM_KEY", TEST_KEY)
    get_settings.cache_clear()
    yield home
    get_settings.cache_clear()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep together, when the tests run on several cores, what shares an expensive fixture or a module's fixtures."""
    for item in items:
        shares_built_world = {"built", "recording"} & set(getattr(item, "fixturenames", ()))
        item.add_marker(pytest.mark.xdist_group("built world" if shares_built_world else item.path.stem))
