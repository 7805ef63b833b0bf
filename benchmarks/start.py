"""One picture from a cold start, as a new process answers it: seconds and memory, beside bare ONNX Runtime.

    python -m benchmarks.start [--references 100000]

An index holds random descriptors of unit length and the sample photos. Each command runs five times in a process of
its own; the median counts. The bound is a process that imports onnxruntime, numpy and OpenCV, loads the same file,
reads the same photo, and runs the network once.
"""

import argparse
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import save

ROUNDS = 5
PACKAGE = Path(__file__).parents[1] / "isc"
PHOTO = str(PACKAGE / "sample" / "S050.jpg")
BARE = """
import sys, cv2, numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
photo = cv2.resize(cv2.imread(sys.argv[2])[..., ::-1], (192, 192), interpolation=cv2.INTER_AREA)
session.run(None, {"pictures": numpy.ascontiguousarray(photo.transpose(2, 0, 1)[None])})
"""


def filled(path: Path, references: int) -> None:
    """Make an index of the sample photos and of random descriptors."""
    import numpy as np

    from isc.data.descriptors import Descriptors
    from isc.find.index import Index
    from isc.search.index.index import Index as DescriptorIndex

    Index(path).add(PACKAGE / "sample")
    rng = np.random.default_rng(0)
    index = DescriptorIndex.open(path)
    vectors = rng.normal(size=(references, index.manifest.dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = np.array([f"random {number}" for number in range(references)], dtype=object)
    with index.writer() as writer:
        writer.add(Descriptors(ids, vectors), provenance=index.manifest.provenance)


def measured(command: list[str], environment: dict[str, str]) -> tuple[float, float, float]:
    """Return the median seconds of wall and of CPU, and the largest memory in MB, of a command."""
    walls, cpus, memory = [], [], 0.0
    for _ in range(ROUNDS):
        started = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment) as process:
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        walls.append(time.perf_counter() - started)
        cpus.append(used.ru_utime + used.ru_stime)
        memory = max(memory, used.ru_maxrss / 1000)
        if process.returncode:
            sys.exit(f"{command}: status {process.returncode}")
    return statistics.median(walls), statistics.median(cpus), memory


def rows(references: int) -> list[dict[str, object]]:
    with tempfile.TemporaryDirectory() as folder:
        index, environment = f"{folder}/known.index", os.environ | {"XDG_CACHE_HOME": folder}
        maker = multiprocessing.get_context("spawn").Process(target=filled, args=(Path(index), references))
        maker.start()  # a process of its own: a child counts the memory of the process that started it
        maker.join()
        isc = str(Path(sys.executable).parent / "isc")
        what = {
            "bare ONNX Runtime, one picture, no search": [
                sys.executable,
                "-c",
                BARE,
                f"{PACKAGE}/model/weights/isc_small.onnx",
                PHOTO,
            ],
            f"isc index query, {references:,} references, --fast": [
                isc,
                "index",
                "query",
                index,
                PHOTO,
                "--fast",
            ],
            f"isc index query, {references:,} references, pixels too": [isc, "index", "query", index, PHOTO],
            "isc --help": [isc, "--help"],
            "isc train --help": [isc, "train", "--help"],
        }
        found = {name: measured(command, environment) for name, command in what.items()}
    bound = next(iter(found.values()))[0]
    return [
        {
            "": name,
            "wall, s": f"{wall:.2f}",
            "÷ bare": f"{wall / bound:.2f}",
            "CPU, s": f"{cpu:.2f}",
            "MB": f"{memory:.0f}",
        }
        for name, (wall, cpu, memory) in found.items()
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--references", type=int, default=100_000)
    save("start", rows(parser.parse_args().references))
