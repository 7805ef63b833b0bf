"""Speed of the network on prepared tensors, forward and forward + backward, with and without keeping freed memory."""

import json
import subprocess
import sys
import time

import torch

from benchmarks import save
from isc.model.device import place
from isc.model.load import load_model
from isc.runtime.allocator import keep_freed_memory

BATCH = 64
FORWARD_SIZE, TRAIN_SIZE = 224, 128  # pixels


def measure() -> dict[str, float]:
    """Return the pictures per second of both passes, the best of five rounds."""
    model = place(load_model("imagenet"), torch.device("cpu"))

    def forward() -> None:
        with torch.inference_mode():
            model.eval()(pictures(FORWARD_SIZE))

    def train() -> None:
        model.train()(pictures(TRAIN_SIZE)).sum().backward()

    return {"forward": _rate(forward), "train": _rate(train)}


def pictures(size: int) -> torch.Tensor:
    return torch.full((BATCH, 3, size, size), 128, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)


def _rate(action: object) -> float:
    times = []
    for _ in range(6):
        start = time.perf_counter()
        action()  # type: ignore[operator]
        times.append(time.perf_counter() - start)
    return BATCH / min(times[1:])


def main() -> None:
    found = {}
    for kept in ("no", "yes"):  # malloc can be configured only once per process
        run = subprocess.run([sys.executable, "-m", "benchmarks.network", kept], check=True, capture_output=True)
        found[kept] = json.loads(run.stdout)
    names = {"forward": f"forward, {FORWARD_SIZE} px", "train": f"forward + backward, {TRAIN_SIZE} px"}
    save(
        "network",
        [
            {
                "what": f"{names[key]}, batch {BATCH}",
                "pictures a second": round(found["yes"][key], 1),
                "beside": "freed memory given back, as glibc does",
                "ratio": round(found["yes"][key] / found["no"][key], 2),
            }
            for key in names
        ],
    )


if __name__ == "__main__":
    if len(sys.argv) == 2:
        if sys.argv[1] == "yes":
            keep_freed_memory()
        print(json.dumps(measure()))
    else:
        main()
