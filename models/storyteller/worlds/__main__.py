"""`python -m models.storyteller.worlds`: see make.py."""

from .make import main

if __name__ == "__main__":
    raise SystemExit(main())
