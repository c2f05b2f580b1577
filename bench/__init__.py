"""Benchmarks of the pipeline beside other tools. No stage imports them."""
