"""Models Genesis: restore an image from its corrupted self."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from medssl.config.models_genesis import ModelsGenesisConfig
from medssl.errors import InputError
from medssl.nets.backbone import Backbone
from medssl.nets.decoder import PyramidDecoder
from medssl.nets.unet import GenesisDecoder, GenesisEncoder, RestorationOutput
from medssl.protocols import Batch, Encoder, Losses
from medssl.transforms.draws import uniform
from medssl.transforms.genesis import GenesisCorruption

PUBLISHED_WINDOWS = 10_000
_PUBLISHED_PIXELS = 224 * 224


@dataclass(frozen=True)
class GenesisViews:
    """A corrupted image and what it is to be restored to.

    Args:
        corrupted: (B, C, *S) in [0, 1].
        target: (B, C, *S), flipped with it.
    """

    corrupted: Tensor
    target: Tensor


class ModelsGenesis(nn.Module):
    """Views: flip, shuffle, change contrast, paint; network: encoder, decoder, sigmoid; loss: squared error.

    Over the encoder ``genesis`` the decoder is the published one and the network equals it in parameters and
    names (``backbone.encoder.down_tr*``, ``backbone.decoder.up_tr*``, ``out_tr.final_conv``); over any other
    encoder it is a `PyramidDecoder`, so that fine-tuning can go on with it.

    Args:
        backbone: encoder that is trained; a decoder is added to it.
        config: settings.

    Raises:
        InputError: the decoder has more channels than the encoder has levels.

    Reference: Zhou et al., "Models Genesis", Medical Image Analysis 2021, sections 3.2 and 3.3.
    """

    sees_corrupted = True

    def __init__(self, backbone: Backbone, config: ModelsGenesisConfig) -> None:
        super().__init__()
        encoder = cast("Encoder", backbone.encoder)
        self.backbone = backbone
        self.config = config
        decoder: GenesisDecoder | PyramidDecoder
        if isinstance(encoder, GenesisEncoder):
            decoder = GenesisDecoder(encoder.spatial_dims, encoder.config["width"])
        else:
            if len(config.decoder_channels) > len(encoder.levels):
                raise InputError(
                    f"decoder_channels {config.decoder_channels}: the encoder has only {len(encoder.levels)} "
                    "levels"
                )
            decoder = PyramidDecoder(
                encoder.spatial_dims, encoder.in_channels, encoder.levels, config.decoder_channels
            )
        backbone.decoder = decoder
        self.out_tr = RestorationOutput(encoder.spatial_dims, decoder.levels[0].channels, encoder.in_channels)

    def train(self, mode: bool = True) -> Self:
        """Training mode; with ``compatible`` batch norm never leaves it."""
        super().train(mode)
        if self.config.compatible:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.train()
        return self

    def views(self, batch: Batch, generator: torch.Generator) -> GenesisViews:
        """Corrupt source crops (B, C, *S); all randomness from ``generator``.

        Raises:
            InputError: the cube is larger than the crop, or no multiple of the encoder's stride.
        """
        x = self._cube(batch.image, generator)
        config, shape = self.config, tuple(x.shape[2:])
        windows = config.windows or PUBLISHED_WINDOWS
        if config.windows is None and len(shape) == 2:
            windows = max(1, round(PUBLISHED_WINDOWS * shape[0] * shape[1] / _PUBLISHED_PIXELS))
        corruption = GenesisCorruption(
            flip_p=config.flip_p,
            shuffle_p=config.shuffle_p,
            windows=windows,
            curve_p=config.curve_p,
            decreasing_p=config.decreasing_p,
            paint_p=config.paint_p,
            inner_p=config.inner_p,
            published_flips=config.compatible,
        )
        return GenesisViews(*corruption(x, generator))

    def restore(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, C, *S) -> the restored image in (0, 1), and the encoder's pyramid."""
        pyramid = self.backbone(x)
        decoder = cast("PyramidDecoder", self.backbone.decoder)
        return self.out_tr(decoder(x, pyramid)[0]), pyramid

    def forward(self, views: GenesisViews, step: int) -> Losses:
        """Mean squared error over all voxels.

        Metrics: ``explained``, the share of the target's variance that is restored (a constant output has 0);
        ``gain``, the share of the corruption's squared error that is undone; ``feature_spread`` of the pooled
        coarsest level.
        """
        restored, pyramid = self.restore(views.corrupted)
        loss = F.mse_loss(restored.float(), views.target)
        with torch.no_grad():
            tiny = torch.finfo(torch.float32).tiny
            damage = F.mse_loss(views.corrupted, views.target)
            variance = views.target.var(correction=0)
            pooled = F.normalize(pyramid[-1].flatten(2).mean(2).float(), dim=1)  # (B, C)
            metrics = {
                "restoration": loss.detach(),
                "explained": 1 - loss / variance.clamp_min(tiny),
                "gain": 1 - loss / damage.clamp_min(tiny),
                "feature_spread": pooled.std(dim=0, correction=0).mean() * pooled.shape[1] ** 0.5,
            }
        return Losses(loss, metrics)

    def exported(self) -> Mapping[str, nn.Module]:
        """The output layer, beside encoder and decoder of the backbone."""
        return {"out_tr": self.out_tr}

    def _cube(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """A cube of the configured shape at a random place of every crop."""
        whole = tuple(x.shape[2:])
        shape = self.config.shape or whole
        stride = cast("Encoder", self.backbone.encoder).levels[-1].stride
        if len(shape) != len(whole) or any(n > size for n, size in zip(shape, whole, strict=True)):
            raise InputError(
                f"models-genesis: a cube of shape {shape} does not lie in a crop of {whole}; take a smaller "
                "shape or a larger sampling.crop"
            )
        if any(n % step for n, step in zip(shape, stride, strict=True)):
            raise InputError(
                f"models-genesis: {shape} voxels are no multiple of the encoder's stride {stride}; change "
                "shape or sampling.crop"
            )
        if shape == whole:
            return x
        start = uniform(generator, (len(x), len(shape))).to(x.device)  # (B, n)
        source = torch.zeros((len(x), *(1,) * len(shape)), dtype=torch.int64, device=x.device)
        for axis, (size, n) in enumerate(zip(whole, shape, strict=True)):
            place = (start[:, axis] * (size - n + 1)).long()[:, None] + torch.arange(n, device=x.device)
            source = source * size + place.view(len(x), *(n if d == axis else 1 for d in range(len(shape))))
        return (
            x.flatten(2)
            .gather(2, source.view(len(x), 1, -1).expand(-1, x.shape[1], -1))
            .view(*x.shape[:2], *shape)
        )


def build(config: ModelsGenesisConfig, backbone: Backbone, modalities: int) -> ModelsGenesis:
    """The method over a backbone; modalities are treated alike."""
    return ModelsGenesis(backbone, config)
