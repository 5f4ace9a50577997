"""Damaged checkpoints and hostile input by the thousand: `python -m tests.fuzz` runs them, the tests run a seeded few."""
