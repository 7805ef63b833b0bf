"""The network: timm backbone → pooling → linear → batch norm → unit length."""

from __future__ import annotations

from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.data.config import resolve_model_data_config
from timm.models import group_parameters
from torch import Tensor, nn

from isc.config.choices import Pooling
from isc.config.train import ModelConfig
from isc.errors import InputError
from isc.model.pooling import as_grid, gem, subtract_background
from isc.model.published import without_conv_head


class CopyModel(nn.Module):
    """The network from pictures to descriptors, with its own input size, mean and standard deviation.

    forward: uint8 or float [B, 3, S, S] RGB in 0…255 → float32 [B, dim] of unit length. Training uses only
    `finish(project(x))`; after it, descriptors are also whitened, and the background is subtracted.
    """

    mean: Tensor
    std: Tensor
    center: Tensor
    whitening: Tensor
    background: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = create_backbone(config.backbone, pretrained=False)
        if not config.conv_head:
            without_conv_head(self.backbone)
        _check_pooling(config, self.backbone)
        data = resolve_model_data_config(self.backbone)
        self.register_buffer("mean", 255 * torch.tensor(data["mean"]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(data["std"]).view(1, 3, 1, 1), persistent=False)
        self.linear = nn.Linear(self.backbone.num_features, config.dim, bias=not config.batch_norm)
        self.norm = nn.BatchNorm1d(config.dim) if config.batch_norm else nn.Identity()
        if config.background:
            self.register_buffer("background", torch.zeros(config.background, config.dim))
        if config.whiten:
            self.register_buffer("center", torch.zeros(config.dim))
            self.register_buffer("whitening", torch.eye(config.dim))

    def forward(self, pictures: Tensor) -> Tensor:
        return self.described(self.project(pictures))

    def described(self, projected: Tensor) -> Tensor:
        """Return the descriptors [B, dim] of projected pictures [B, dim]; in reduced precision these steps stay out."""
        embeddings = self.whitened(self.finish(projected))
        if not self.config.background:
            return embeddings
        return subtract_background(
            embeddings, self.background,
            weight=self.config.background_weight, temperature=self.config.background_temperature,
        )  # fmt: skip

    def whitened(self, embeddings: Tensor) -> Tensor:
        """Return unit vectors [B, dim], centred on the training mean and whitened; unchanged without whitening."""
        return F.normalize((embeddings - self.center) @ self.whitening) if self.config.whiten else embeddings

    def project(self, pictures: Tensor) -> Tensor:
        """Apply the layers that treat each picture alone: [B, 3, S, S] → [B, dim] before the batch norm."""
        projected: Tensor = self.linear(self.pool(self.backbone((pictures.float() - self.mean) / self.std)))
        return projected

    def project_cells(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Return `project(pictures)`, and the same projection of every cell of the backbone's map, [B, dim, G, G]."""
        features = self.backbone((pictures.float() - self.mean) / self.std)
        grid = as_grid(features, self.backbone).float()
        cells = F.conv2d(grid, self.linear.weight[:, :, None, None], self.linear.bias)
        if isinstance(self.norm, nn.BatchNorm1d):  # removes what all cells share
            cells = F.batch_norm(cells, self.norm.running_mean, self.norm.running_var)
        return self.linear(self.pool(features)), cells

    def finish(self, projected: Tensor) -> Tensor:
        """Apply batch norm, which uses the whole batch in training, and scale to unit length."""
        return F.normalize(self.norm(projected.float()))

    def pool(self, features: Tensor) -> Tensor:
        """Pool the backbone's output, a map or tokens, to [B, C]."""
        if self.config.pooling is Pooling.token:
            return features[:, 0].float()
        grid = as_grid(features, self.backbone)
        if self.config.pooling is Pooling.mean:
            return grid.float().mean(dim=(2, 3))
        return gem(grid, self.config.gem_power)

    def first_blocks(self, count: int) -> list[nn.Parameter]:
        """Return the parameters of the stem and of the first `count` blocks, as timm groups them.

        Raises InputError if timm knows no blocks of the backbone, or not more than `count`.
        """
        if not hasattr(self.backbone, "group_matcher"):
            raise InputError(f"train.freeze_blocks={count}: timm knows no blocks of {self.config.backbone}; expected 0")
        groups = group_parameters(self.backbone, self.backbone.group_matcher(coarse=True), reverse=True)
        deepest = max(groups.values())
        if count >= deepest:
            raise InputError(
                f"train.freeze_blocks={count}: {self.config.backbone} has {deepest} blocks; expected fewer"
            )
        return [p for name, p in self.backbone.named_parameters() if groups[name] <= count]

    def early_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the stem and of the first group of blocks; an empty list without groups in timm."""
        if not hasattr(self.backbone, "group_matcher"):
            return []
        groups = group_parameters(self.backbone, self.backbone.group_matcher(coarse=True), reverse=True)
        return [p for name, p in self.backbone.named_parameters() if groups[name] <= 1]


def create_backbone(name: str, *, pretrained: bool) -> Any:
    if name not in timm.list_models() and name not in timm.list_pretrained():
        known = timm.list_models(f"*{name.split('_', maxsplit=1)[0]}*")[:5]
        raise InputError(
            f"model.backbone={name}: timm has no such model; expected for example {known or timm.list_models()[:5]}"
        )
    options: dict[str, Any] = {"pretrained": pretrained, "num_classes": 0, "global_pool": ""}
    try:
        return timm.create_model(name, dynamic_img_size=True, **options)  # transformers take pictures of any size
    except TypeError:
        return timm.create_model(name, **options)


def _check_pooling(config: ModelConfig, backbone: Any) -> None:
    """Raise InputError if the configured pooling does not fit the backbone's output."""
    with torch.inference_mode():
        size = resolve_model_data_config(backbone)["input_size"]
        shape = tuple(backbone.eval()(torch.zeros(1, *size)).shape)
    channels = backbone.num_features
    tokens = len(shape) == 3 and shape[2] == channels
    if not tokens and not (len(shape) == 4 and channels in (shape[1], shape[3])):
        raise InputError(
            f"model.backbone={config.backbone}: gives features of shape {shape}; expected a map or tokens of "
            f"{channels} channels"
        )
    if config.pooling is Pooling.token and not (tokens and getattr(backbone, "num_prefix_tokens", 0)):
        raise InputError(f"model.pooling=token: {config.backbone} has no class token; use gem or mean")
