"""The installed command, and `python -m tgen`: a Ctrl-C that comes while the rest is still being imported ends quietly, too."""

import sys


def main() -> None:
    """Import the command line and run it."""
    try:
        from tgen.cli.main import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
