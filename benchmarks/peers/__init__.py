"""Robustness table: models side by side on every kind of edit and strength.

    isc benchmark images=PHOTOS output=BENCH preset=each
    python -m benchmarks.peers BENCH PDQ pHash dHash imagenet isc_small [NAME=MODEL …] [--matching]

A MODEL is anything that extract.py's model= takes (a name, a run folder, a model's file, an ONNX file, a published
checkpoint), `timm:NAME` for a backbone of timm with its own weights, or PDQ, pHash or dHash. --matching adds the
matching track of every model that a fusion is stored with. The verbs' own commands find the ten nearest references of
each query. Descriptors and matches are kept in --work (BENCH/peers), by the model's weights. docs/robustness.md
explains the figures of a cell.
"""
