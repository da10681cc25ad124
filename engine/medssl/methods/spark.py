"""SparK: hide cells of an image from a convolutional encoder, and reconstruct them."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.config.spark import SparkConfig
from medssl.losses.reconstruction import explained, masked_patch_loss
from medssl.nets.backbone import Backbone
from medssl.nets.reconstruction import Densify, build_reconstruction
from medssl.nets.sparse import sparsify
from medssl.nets.sparse_layers import VisibleCells, fill_with_mean, global_average, show
from medssl.protocols import Batch, Encoder, Losses
from medssl.transforms.masked_image import MaskedImage, MaskedView


class Spark(nn.Module):
    """View with a mask, sparse encoder, tokens in hidden cells, hierarchical decoder, loss on hidden cells.

    The sparse encoder is another way to run ``backbone.encoder``: it has the same parameters, and the plain
    encoder is what is exported.

    Args:
        backbone: encoder that is trained; gets a decoder where ``config.decoder`` is "pyramid".
        config: settings.

    Raises:
        ValueError: a layer of the encoder has no sparse form, or the decoder does not fit its levels.

    Reference: Tian et al., "Designing BERT for convolutional networks: sparse and hierarchical masked
    modeling", ICLR 2023; in 3D Wald et al., "Revisiting MAE pre-training for 3D medical image segmentation",
    arXiv:2410.23132.
    """

    sees_corrupted = True

    def __init__(self, backbone: Backbone, config: SparkConfig) -> None:
        super().__init__()
        encoder = cast("Encoder", backbone.encoder)
        self.backbone = backbone
        self.config = config
        self.sparse = sparsify(backbone.encoder, mask_input=config.fill == "zero" and not config.rim)
        self.densify = Densify(encoder.spatial_dims, encoder.levels, config.densify_norm)
        self.reconstruct = build_reconstruction(
            backbone, config.decoder, width=config.width, channels=config.decoder_channels
        )
        self.view = MaskedView.of(config.model_dump(), encoder.levels[-1].stride)

    def views(self, batch: Batch, generator: torch.Generator) -> MaskedImage:
        """A view and a mask per source crop (B, C, *S); all randomness from ``generator``."""
        return self.view(batch.image, generator)

    def encode(self, views: MaskedImage) -> tuple[list[Tensor], Tensor]:
        """The sparse pyramid, 0 in hidden cells, and the reconstruction (B, C, *S)."""
        cells = VisibleCells(views.visible)
        shown = (show if self.config.fill == "zero" else fill_with_mean)(views.image, cells)
        pyramid = self.sparse(views.image if self.config.rim else shown, views.visible)
        return pyramid, self.reconstruct(shown, self.densify(pyramid, cells))

    def forward(self, views: MaskedImage, step: int) -> Losses:
        """Squared error over hidden cells.

        Metrics: ``explained``, the share of the hidden cells' variance that is reconstructed (0 for a
        constant prediction); ``feature_spread`` of the coarsest level, averaged over seen cells.
        """
        pyramid, reconstruction = self.encode(views)
        loss = masked_patch_loss(reconstruction, views.image, views.visible, self.config.normalise)
        with torch.no_grad():
            pooled = global_average(pyramid[-1].float(), VisibleCells(views.visible)).flatten(1)  # (B, C)
            spread = F.normalize(pooled, dim=1).std(dim=0, correction=0).mean() * pooled.shape[1] ** 0.5
        return Losses(
            loss,
            {
                "reconstruction": loss.detach(),
                "explained": explained(loss.detach(), views.image, views.visible, self.config.normalise),
                "feature_spread": spread,
            },
        )


def build(config: SparkConfig, backbone: Backbone, modalities: int) -> Spark:
    """The method over a backbone; modalities are treated alike."""
    return Spark(backbone, config)
