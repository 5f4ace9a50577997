"""Runs models on the CPU with a small C++ library: one call a step, no torch."""
