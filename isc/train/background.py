"""The whitening and the background of a trained model, fitted on training photos."""

from __future__ import annotations

import torch

from isc.config.choices import Precision
from isc.extract.batches import PhotoSource, Subset
from isc.extract.embedding import embed
from isc.model.copy_model import CopyModel
from isc.model.pooling import whitening_of
from isc.model.torch_inference import torch_inference_model


def fit_background(model: CopyModel, photos: PhotoSource, *, whiten: float, precision: Precision, workers: int) -> None:
    """Fit the whitening and the background [B, dim] of a model in place, on B photos.

    The B photos are spread evenly over `photos`, which holds at least B. `whiten` is the ridge of the whitening; 0
    switches the whitening off. An unreadable photo gives a background row of zeros, which subtracts nothing.
    """
    count = len(model.background)
    chosen = Subset(photos, [row * len(photos) // count for row in range(count)])
    model.background.zero_()
    if whiten:
        model.center.zero_()
        model.whitening.copy_(torch.eye(model.config.dim))
    network = torch_inference_model(model, precision=precision)
    vectors, _ = embed(network, chosen, image_size=model.config.image_size, workers=workers)
    found = torch.from_numpy(vectors).to(model.background.device)
    read = found.any(dim=1)
    if whiten:
        center, whitening = whitening_of(found[read], ridge=whiten)
        model.center.copy_(center)
        model.whitening.copy_(whitening)
        found = torch.where(read[:, None], model.whitened(found), 0.0)
    model.background.copy_(found)
