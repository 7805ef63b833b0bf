"""Both submission files of DISC21 at the challenge's full size, from made descriptors: written, validated, scored.

    python -m benchmarks.disc21 --work DIR [--queries 50000] [--references 1000000] [--descriptors PHOTOS.h5]
    python -m benchmarks.disc21 --work DIR --rates
    python -m benchmarks.disc21 --costs

A fifth of the queries are planted copies, as far from their references as AugLy's edits were (benchmarks.approximate).
Every part is a process of its own, so that its peak memory is its own; what is done stays in DIR, and the same command
goes on after Ctrl-C or a kill. DIR needs 3 GB at the full size. `--rates` measures the extraction of photos as large as
the challenge's; `--costs` adds up what the challenge takes on this kind of machine, from benchmarks/results.
"""
