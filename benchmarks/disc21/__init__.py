"""Both submission files of DISC21 at the challenge's full size, from made descriptors: written, validated, scored.

    python -m benchmarks.disc21 --work DIR [--queries 50000] [--references 1000000] [--descriptors PHOTOS.h5]
    python -m benchmarks.disc21 --work DIR --rates
    python -m benchmarks.disc21 --costs

Every fifth query is a copy of a reference, as far from it as AugLy's edits were (benchmarks.approximate). Every part
runs in its own process, so that its peak memory is its own. Finished parts stay in DIR, and the same command continues
after Ctrl-C or a kill. DIR needs 3 GB at the full size. `--rates` measures the extraction of photos as large as the
challenge's; `--costs` adds up the hours of the challenge on this kind of machine, from benchmarks/results.
"""
