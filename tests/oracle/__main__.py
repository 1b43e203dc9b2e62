"""Print the oracle's tables of a data root: `python -m tests.oracle HOME [--as-of DATE] [--database FILE] [--table T]`.

The pseudonym key is read from CLEANBILL_PSEUDONYM_KEY. With a database, the differences to its marts are printed.
"""

import argparse
import csv
import os
import sys
from datetime import date
from pathlib import Path

from tests.oracle.marts import COLUMNS, Oracle


def main() -> int:
    """Print one table as CSV, or the row counts of all, or the differences to a database."""
    parser = argparse.ArgumentParser(prog="python -m tests.oracle", description=__doc__)
    parser.add_argument("home", type=Path)
    parser.add_argument("--as-of", type=date.fromisoformat)
    parser.add_argument("--table", choices=sorted(COLUMNS))
    parser.add_argument("--database", type=Path)
    options = parser.parse_args()
    oracle = Oracle(options.home, os.environ["CLEANBILL_PSEUDONYM_KEY"], options.as_of)
    if options.database:
        from tests.compare import compare_marts

        lines = compare_marts(oracle, options.database, [options.table] if options.table else None)
        print("\n".join(lines) or f"equal at as-of {oracle.as_of}")
        return 1 if lines else 0
    if options.table:
        writer = csv.writer(sys.stdout)
        writer.writerow(COLUMNS[options.table])
        writer.writerows(sorted(oracle.tables[options.table], key=str))
        return 0
    print(f"as-of {oracle.as_of}")
    for table, rows in oracle.tables.items():
        print(f"{table}: {len(rows)} rows")
    for path, reason in oracle.landing.rejected:
        print(f"rejected {path}: {reason}")
    for delivery in oracle.landing.refused:
        print(f"refused as duplicate {delivery.manifest_path}")
    for delivery in oracle.landing.over_limit:
        print(f"over the quarantine limit {delivery.manifest_path}")
    for month, blockers in sorted(oracle.blockers.items()):
        for blocker in sorted(blockers, key=str):
            print(f"{month:%Y-%m} is stopped by {blocker}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
