"""Benchmarks in the challenge's layout, made from a folder of photos.

references/R000000.jpg …   queries/Q00000.jpg …   training/T000000.jpg …
ground_truth.csv     query_id,reference_id; the reference id of a distractor is empty
edits.jsonl          one line per query: its source photo, its edits, and the region of the photo in the query
photos.csv           the source file of every reference and training id
near_duplicates.csv  pairs of near-duplicate photos, if they were searched for
unreadable.csv       photos left out because they are unreadable or too small, if there are any
benchmark.json       the configuration and the counts of the benchmark
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
