"""Benchmarks in the challenge's layout, made out of folders of photos.

references/R000000.jpg …   queries/Q00000.jpg …   training/T000000.jpg …
ground_truth.csv     query_id,reference_id; a distractor's reference id is empty
edits.jsonl          a line a query: what was done to which photo, and where the photo lies in the query
photos.csv           the photo of every reference and training id
near_duplicates.csv  photos that show the same, where they were looked for
unreadable.csv       photos that were left out because they cannot be read or are too small, where there are any
benchmark.json       what it was made with
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
