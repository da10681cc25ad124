"""MAE for convolutional networks: hidden voxels are replaced at the input of a dense encoder."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.config.mae import MaeConfig
from medssl.losses.reconstruction import explained, masked_patch_loss
from medssl.nets.backbone import Backbone
from medssl.nets.reconstruction import build_reconstruction
from medssl.nets.sparse_layers import VisibleCells, fill_with_mean, show
from medssl.protocols import Batch, Encoder, Losses
from medssl.transforms.masked_image import MaskedImage, MaskedView


class Mae(nn.Module):
    """The comparator of SparK: same masks, same decoders, same loss, but the encoder runs on a filled image.

    Args:
        backbone: encoder that is trained; gets a decoder where ``config.decoder`` is "pyramid".
        config: settings.

    Raises:
        ValueError: the decoder does not fit the encoder's levels.

    Reference: He et al., "Masked autoencoders are scalable vision learners", CVPR 2022; its form for
    convolutional networks as in Wald et al., "An OpenMind for 3D medical vision", arXiv:2412.17041.
    """

    sees_corrupted = True

    def __init__(self, backbone: Backbone, config: MaeConfig) -> None:
        super().__init__()
        encoder = cast("Encoder", backbone.encoder)
        self.backbone = backbone
        self.config = config
        self.token = nn.Parameter(torch.zeros(encoder.in_channels)) if config.fill == "token" else None
        self.reconstruct = build_reconstruction(
            backbone, config.decoder, width=config.width, channels=config.decoder_channels
        )
        self.view = MaskedView.of(config.model_dump(), encoder.levels[-1].stride)

    def views(self, batch: Batch, generator: torch.Generator) -> MaskedImage:
        """A view and a mask per source crop (B, C, *S); all randomness from ``generator``."""
        return self.view(batch.image, generator)

    def filled(self, views: MaskedImage) -> Tensor:
        """(B, C, *S) with hidden voxels replaced."""
        cells = VisibleCells(views.visible)
        if self.token is None:
            return (show if self.config.fill == "zero" else fill_with_mean)(views.image, cells)
        filling = self.token.view(1, -1, *(1,) * (views.image.ndim - 2))
        return torch.where(cells.mask(views.image).bool(), views.image, filling)

    def forward(self, views: MaskedImage, step: int) -> Losses:
        """Squared error over hidden cells.

        Metrics: ``explained``, the share of the hidden cells' variance that is reconstructed (0 for a
        constant prediction); ``feature_spread`` of the coarsest level.
        """
        x = self.filled(views)
        pyramid = self.backbone(x)
        reconstruction = self.reconstruct(x, pyramid)
        loss = masked_patch_loss(reconstruction, views.image, views.visible, self.config.normalise)
        with torch.no_grad():
            pooled = F.normalize(pyramid[-1].flatten(2).mean(2).float(), dim=1)  # (B, C)
            spread = pooled.std(dim=0, correction=0).mean() * pooled.shape[1] ** 0.5
        return Losses(
            loss,
            {
                "reconstruction": loss.detach(),
                "explained": explained(loss.detach(), views.image, views.visible, self.config.normalise),
                "feature_spread": spread,
            },
        )


def build(config: MaeConfig, backbone: Backbone, modalities: int) -> Mae:
    """The method over a backbone; modalities are treated alike."""
    return Mae(backbone, config)
