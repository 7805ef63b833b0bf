"""The load of benchmarks/serve.py for locust: each user uploads one picture after the other, all of them different."""

from __future__ import annotations

import os
import random
from pathlib import Path

import cv2
import numpy as np
from locust import FastHttpUser, constant_throughput, task

PHOTOS = [cv2.imread(str(path)) for path in sorted((Path(__file__).parents[1] / "isc" / "sample").glob("*.jpg"))]
RATE = float(os.environ.get("UPLOADS_A_SECOND", "1"))  # of one user


def different() -> bytes:
    """Return an edited sample photo that was never sent before: a crop, mirrored or not, of some quality."""
    pixels = random.choice(PHOTOS)
    height, width = pixels.shape[:2]
    top, left = int(random.random() * height / 4), int(random.random() * width / 4)
    part = pixels[top:, left:][:, :: random.choice((1, -1))].copy()
    part[0, 0] = [random.randrange(256) for _ in range(3)]
    return bytes(cv2.imencode(".jpg", np.ascontiguousarray(part), [1, random.randint(50, 95)])[1])


class Uploader(FastHttpUser):
    """A user that uploads at a steady rate, as long as answers come in time."""

    wait_time = constant_throughput(RATE)

    @task
    def upload(self) -> None:
        files = {"files": ("x.jpg", different(), "image/jpeg")}
        with self.client.post("/api/images", files=files, catch_response=True) as answer:
            if answer.status_code != 202:
                answer.failure(f"status {answer.status_code}")
