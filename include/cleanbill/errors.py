"""The one exception family of cleanbill.

Every message answers five questions: where (file, line or field), what was expected, what was found,
why it matters when that is not plain, and what to do next.
"""


class CleanbillError(Exception):
    """Base of every error raised on purpose; the CLI prints it without a traceback.

    Args:
        where: file, line, field, table or setting concerned (no raw MSISDN).
        expected: what the contract asks for.
        found: what was there instead.
        advice: the next step for whoever reads the message.
    """

    def __init__(self, where: str, expected: str, found: str, advice: str) -> None:
        self.where = where
        self.expected = expected
        self.found = found
        self.advice = advice
        super().__init__(f"{where}: expected {expected}; found {found}. What to do: {advice}")


class SettingsError(CleanbillError):
    """A setting is missing or unusable."""


class DeliveryRejected(CleanbillError):
    """A whole delivery cannot be accepted; `code` is the fixed reason code."""

    def __init__(self, code: str, where: str, expected: str, found: str, advice: str) -> None:
        self.code = code
        super().__init__(where, expected, found, advice)


class StorageFailed(CleanbillError):
    """Disk, permissions or memory do not allow the work; what stood before stays, and it may pass by itself."""


class IngestFailed(StorageFailed):
    """Ingest itself could not go on (disk, memory, lock); what was recorded before stays, a re-run goes on."""


class DataDamaged(CleanbillError):
    """A file of the data root is not what was written into it."""


class InputFileError(CleanbillError):
    """A reference file of the data root (expected extracts, test numbers, waivers) or a mapping is wrong."""


class LandingRefused(InputFileError):
    """Foreign files cannot be landed as they are; `code` is the fixed reason code, and nothing was written."""

    def __init__(self, code: str, where: str, expected: str, found: str, advice: str) -> None:
        self.code = code
        super().__init__(where, expected, found, advice)

    def __str__(self) -> str:
        return f"[{self.code}] {super().__str__()}"


class BuildFailed(CleanbillError):
    """dbt could not build the models."""


class GateFailed(CleanbillError):
    """A critical expectation of a stage is not met; nothing downstream may run."""


class BillingBlocked(CleanbillError):
    """A month may not be billed yet: inputs are missing or undecided."""


class FeedError(CleanbillError):
    """A billing feed version is in a state that does not allow what was asked."""


class QueryRefused(CleanbillError):
    """An analyst's statement is not a single read-only SELECT, or ran over its limits."""


class NothingToExplain(CleanbillError):
    """The warehouse knows no such subscription, or holds no finished build."""


class RunFailed(CleanbillError):
    """An orchestrated run ended red."""
