"""Measurements of the pipeline, beside other ways to do the same. No stage imports them."""
