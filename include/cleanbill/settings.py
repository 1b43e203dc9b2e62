"""Where everything is and which knobs exist; the only place that reads the environment."""

import re
from datetime import date
from functools import lru_cache
from pathlib import Path

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from cleanbill.errors import SettingsError

REPOSITORY = Path(__file__).resolve().parents[2]
MONTH_PATTERN = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])")
FIRST_YEAR, LAST_YEAR = 1901, 9998  # policy rows begin in 1900; a month has a month before and after it


class Settings(BaseSettings):
    """Settings of one installation, from environment variables prefixed `CLEANBILL_`."""

    model_config = SettingsConfigDict(env_prefix="CLEANBILL_", extra="ignore")

    home: Path = Field(default=Path("data"), description="Data root; holds landing/, lake/, warehouse/ …")
    pseudonym_key: SecretStr | None = Field(default=None, description="Key of every pseudonym, as UTF-8 text")
    pseudonym_key_file: Path | None = Field(default=None, description="File that holds the key instead (mode 0400)")
    threads: int = Field(default=2, ge=1, description="DuckDB threads per process")
    memory_limit: str = Field(default="4GB", description="DuckDB memory limit per process")
    feed_rows_per_file: int = Field(default=1_000_000, ge=1, description="Charge lines per file of the billing feed")
    feed_ack_days: int = Field(
        default=3, ge=0, description="Days after its approval by which the billing system must have answered a version"
    )
    schedule_from: date = Field(
        default=date(2026, 1, 1), description="No daily run is started by the clock before this day; a range run may be"
    )
    kept_publications: int = Field(default=5, ge=0, description="Published marts kept for a rollback (hard links)")
    run_wait_seconds: float = Field(
        default=30, gt=0, description="A task that finds another run at work asks again after about this time"
    )
    project_root: Path = Field(default=REPOSITORY, description="Folder that holds dags/, dbt_project/, expectations/")

    def model_post_init(self, __context: object) -> None:
        self.home = self.home.expanduser().absolute()

    @property
    def landing(self) -> Path:
        return self.home / "landing"

    @property
    def lake(self) -> Path:
        return self.home / "lake"

    @property
    def warehouse_folder(self) -> Path:
        return self.home / "warehouse"

    @property
    def warehouse(self) -> Path:
        """The one DuckDB file that only the pipeline opens (it holds true MSISDNs)."""
        return self.warehouse_folder / "cleanbill.duckdb"

    @property
    def marts(self) -> Path:
        return self.home / "marts"

    @property
    def published_marts(self) -> Path:
        return self.marts / "marts.duckdb"

    @property
    def exports(self) -> Path:
        return self.home / "exports"

    @property
    def quarantine(self) -> Path:
        return self.home / "quarantine"

    @property
    def reports(self) -> Path:
        return self.home / "reports"

    @property
    def dbt_project(self) -> Path:
        return self.project_root / "dbt_project"

    @property
    def expectations(self) -> Path:
        return self.project_root / "expectations"

    def pseudonym_key_bytes(self) -> bytes:
        """Return the key of HMAC-SHA256 pseudonyms (3-marts: UTF-8 bytes of the setting).

        Raises:
            SettingsError: no key is configured; there is no fallback to an unkeyed hash.
        """
        if self.pseudonym_key is not None and self.pseudonym_key.get_secret_value():
            return self.pseudonym_key.get_secret_value().encode("utf-8")
        if self.pseudonym_key_file is not None:
            try:
                key = self.pseudonym_key_file.read_bytes().rstrip(b"\r\n")
            except OSError as error:
                raise SettingsError(
                    where="CLEANBILL_PSEUDONYM_KEY_FILE",
                    expected="a readable file that holds the key",
                    found=error.strerror or type(error).__name__,
                    advice="correct the path or the permissions of the file",
                ) from error
            if key:
                return key
        raise SettingsError(
            where="CLEANBILL_PSEUDONYM_KEY",
            expected="a secret of at least one character (or CLEANBILL_PSEUDONYM_KEY_FILE)",
            found="nothing",
            advice="export CLEANBILL_PSEUDONYM_KEY=<secret>; keep it: another key gives other subscriber ids",
        )


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """Return the process-wide settings (tests call `get_settings.cache_clear()` after changing the environment)."""
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise SettingsError(
            where="CLEANBILL_" + "_".join(str(part) for part in first["loc"]).upper(),
            expected="a usable value",
            found=first["msg"],
            advice="correct the environment variable; include/cleanbill/settings.py describes each",
        ) from None


def parse_month(text: str) -> date:
    """Return the first day of a billing month written `YYYY-MM`.

    Raises:
        SettingsError: the text is not a month.
    """
    if not MONTH_PATTERN.fullmatch(text) or not FIRST_YEAR <= int(text[:4]) <= LAST_YEAR:
        raise SettingsError(
            where="billing month",
            expected="YYYY-MM",
            found=repr(text[:40]),
            advice="write for example 2026-11",
        )
    return date(int(text[:4]), int(text[5:7]), 1)
