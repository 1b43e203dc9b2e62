"""Where the command `cleanbill` begins: while it loads there is nothing to clean up, so Ctrl-C just ends it."""

import signal


def main() -> None:
    """Load and run the command line."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from cleanbill.cli import main as run_command

    run_command()


if __name__ == "__main__":
    main()
