"""One run on a machine with a GPU: every step under a time limit, a JSON file after each, one table at the end.

    python -m benchmarks.gpu run [--output DIR] [--device cuda] [--small] [STEP ...]
    python -m benchmarks.gpu table DIR          the table of a run again
    python -m benchmarks.gpu predict            the table of docs/gpu.md: limits from the device's rates
    python -m benchmarks.gpu pack FILE.tar.gz   what must travel to a machine without a network, at most 60 MB

`--small --device cpu` is the rehearsal: the same steps on a CPU, in a minute. A pack is unpacked anywhere and run with
`sh run.sh`; the machine needs Python 3.12, torch, torchvision, timm, h5py and OpenCV.
"""
