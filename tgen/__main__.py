"""The installed command, and `python -m tgen`. A Ctrl-C ends it quietly from here on, also while the rest is being imported."""

import os


def main() -> None:
    """Import the command line and run it."""
    try:
        from tgen.cli.interrupts import leave_at_once

        leave_at_once()

        from tgen.cli.main import main as run
    except KeyboardInterrupt:
        os._exit(130)
    run()


if __name__ == "__main__":
    main()
