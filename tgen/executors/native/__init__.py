"""Runs models on the CPU through a C++ library of tgen's own, without torch."""
