"""`python -m tgen`."""

from tgen.cli.main import main

if __name__ == "__main__":
    main()
