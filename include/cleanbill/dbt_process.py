"""Entry point of the dbt process: the same command line as `dbt`, under the interpreter that runs cleanbill."""

import sys

from dbt.cli.main import dbtRunner

if __name__ == "__main__":
    result = dbtRunner().invoke(sys.argv[1:])
    if result.exception is not None:
        print(result.exception, file=sys.stderr)
    sys.exit(0 if result.success else 1)
