"""Health probe for containers without curl: exit 0 if a URL of Airflow says that its parts are healthy."""

import json
import sys
import urllib.error
import urllib.request
from typing import Any

TIMEOUT_SECONDS = 8
# What a service cannot work without, if the answer names it; every other part has a health check of its own.
REQUIRED_PARTS = ("metadatabase",)


def is_healthy(health: dict[str, Any], parts: tuple[str, ...] = REQUIRED_PARTS) -> bool:
    """Tell whether none of `parts` is reported as anything but healthy."""
    return all(health[part]["status"] == "healthy" for part in parts if part in health)


def main() -> int:
    """Probe the URL given as the only argument; return the exit code."""
    try:
        with urllib.request.urlopen(sys.argv[1], timeout=TIMEOUT_SECONDS) as response:  # noqa: S310 (given by us)
            health = json.loads(response.read() or b"{}")  # the scheduler's own check answers by its status alone
    except (OSError, ValueError) as error:
        print(f"{sys.argv[1]}: {error}", file=sys.stderr)
        return 1
    print(health)
    return 0 if is_healthy(health) else 1


if __name__ == "__main__":
    sys.exit(main())
