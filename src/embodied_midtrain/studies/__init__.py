"""Pathways x seeds x heads x benchmarks as one job: shared stages once, tables with tests."""
