"""LVM-Med: the images of a batch as a graph, matched between two views in the second order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.config.lvm_med import LvmMedConfig
from medssl.errors import InputError
from medssl.losses.gathering import mean_over_world, total_over_world, world_size
from medssl.losses.graph_matching import edge_affinity, graph_match, hamming
from medssl.losses.local_affinity import local_affinity
from medssl.losses.matching import solve_qap
from medssl.nets.backbone import Backbone
from medssl.nets.graph import MessagePassing, knn_graph
from medssl.nets.heads import ProjectionHead
from medssl.protocols import Batch, Encoder, Losses
from medssl.transforms.crops import CropBoxes, cell_centres
from medssl.transforms.draws import seed, seeded, uniform
from medssl.transforms.view_pairs import ViewPairs


@dataclass(frozen=True)
class LvmMedViews:
    """Two views of the images of G graphs of N, graph after graph.

    Args:
        images: two of (G N, C, *size).
        boxes: where each lies in its source.
        extent: (G N, n) what a source measures along each axis: mm, or 1 for fractions.
        modality: (G, N).
        volume: (G, N) volume that each image was cut from.
        nodes: N.
        noise: seed of everything that is drawn behind the encoder.
    """

    images: tuple[Tensor, Tensor]
    boxes: tuple[CropBoxes, CropBoxes]
    extent: Tensor
    modality: Tensor
    volume: Tensor
    nodes: int
    noise: int


class LvmMed(nn.Module):
    """LVM-Med (Nguyen et al., NeurIPS 2023, arXiv:2306.11925).

    Every view of N images is a graph: nodes are projected, pooled features after message passing, edges
    run to the nearest neighbours. Node affinities (global, and local ones from the feature maps) and edge
    affinities are disturbed by Gumbel noise; the loss counts the images that the best second-order matching
    of the two graphs takes to another image, and its gradient goes through the solver.

    Ours: maps are located with flips and turns; projections are centred (setting ``centre``); graph
    convolutions give a node weights of its own (``convolution``); own solver.

    Args:
        backbone: encoder that is trained; its coarsest level is used.
        modalities: number of modalities in the data, for the metrics.
        config: settings.
    """

    def __init__(self, backbone: Backbone, modalities: int, config: LvmMedConfig) -> None:
        super().__init__()
        encoder = cast(Encoder, backbone.encoder)
        self.backbone = backbone
        self.modalities = modalities
        self.config = config
        channels, n = encoder.levels[-1].channels, encoder.spatial_dims
        self.projector: nn.Module = (
            nn.Linear(channels, config.dim)
            if config.projector == "linear"
            else ProjectionHead(channels, channels, config.dim)
        )
        self.norm = nn.BatchNorm1d(config.dim, affine=False) if config.centre else nn.Identity()
        self.messages = MessagePassing(config.dim, config.dim, config.layers, config.convolution)
        self.pairs = ViewPairs.of(
            (config.size,) * n,
            config.intensity.model_dump(),
            scale=config.scale,
            aspect=config.aspect,
            angle=config.rotation,
            turn_p=config.turn_p,
            quarter_turns=config.quarter_turns,
            mirror_axes=config.mirror_axes,
        )
        self.in_mm = config.coordinates == "mm" or (config.coordinates == "auto" and n == 3)

    def views(self, batch: Batch, generator: torch.Generator) -> LvmMedViews:
        """Graphs of the batch and two views of every image; all randomness from ``generator``.

        Raises:
            InputError: fewer than two images, or a process with less than whole graphs.
        """
        count = len(batch.image)
        if count < 2:
            raise InputError("lvm-med matches images with each other: --batch-size must be at least 2")
        nodes = min(self.config.nodes, count)
        if (world := world_size()) > 1 and count % self.config.nodes:
            raise InputError(
                f"lvm-med: each of the {world} processes has {count} images, graphs take "
                f"{self.config.nodes}; make --batch-size a multiple of {world * self.config.nodes}, or set "
                f"nodes to {count}"
            )
        order = spread(batch.index, nodes, generator)
        x = batch.image[order]
        pair = self.pairs(x, generator, batch.spacing[order])
        extent = batch.spacing[order] * torch.tensor(x.shape[2:]).to(batch.spacing)
        if not self.in_mm:
            extent = torch.ones_like(extent)
        modality, volume = (of[order].view(-1, nodes) for of in (batch.modality, batch.index))
        return LvmMedViews(pair.images, pair.boxes, extent, modality, volume, nodes, seed(generator))

    def forward(self, views: LvmMedViews, step: int) -> Losses:
        """Mean over the graphs of twice the number of wrongly matched images."""
        config = self.config
        count = len(views.extent)
        maps = self.backbone(torch.cat(views.images))[-1]  # (2 G N, C, *F)
        pooled = self.norm(self.projector(maps.flatten(2).mean(2)))  # (2 G N, D)
        with torch.autocast(maps.device.type, enabled=False):
            nodes_s, nodes_t = pooled.float().view(2, -1, views.nodes, config.dim)  # (G, N, D)
            generator = seeded(views.noise, maps.device)
            # Graphs and solvers break ties by order: in one order, views that are all alike would fit.
            order = uniform(generator, nodes_t.shape[:2]).argsort(dim=1)  # (G, N) image of each node of t
            nodes_t = nodes_t.gather(1, order[..., None].expand_as(nodes_t))
            edges_s, edges_t = (knn_graph(z, config.neighbours) for z in (nodes_s, nodes_t))
            zs, zt = self.messages(nodes_s, edges_s), self.messages(nodes_t, edges_t)
            alike = F.normalize(zs, dim=-1) @ F.normalize(zt, dim=-1).mT  # (G, N, N)
            vertex = config.alpha * alike
            if config.alpha < 1:
                halves = (maps[:count].float(), maps[count:].float())
                local = reordered(self._local(halves, views, generator), order)
                vertex = vertex + (1 - config.alpha) * local
            edge = edge_affinity(zs, zt, edges_s, edges_t)
            wrong = ~(vertex.isfinite().all() & edge.isfinite().all())
            if total_over_world(wrong.float()) > 0:  # one process may not leave the others waiting
                return Losses(vertex.sum() + edge.sum(), {})  # what cannot be matched shows in the loss
            matching = graph_match(
                vertex,
                edge,
                edges_s,
                edges_t,
                config.lam,
                config.gumbel_scale,
                generator,
                method=config.matching,
                starts=config.solver_starts,
                shortcut=config.shortcut,
            )
            matching = reordered(matching, order.argsort(dim=1))
            target, right = best_reached(matching.detach(), views.volume)
            loss = mean_over_world(hamming(matching, target), right.new_ones(len(right)))
        return Losses(loss, self._metrics(vertex.detach(), order, right, zs.detach(), views))

    def _local(self, maps: tuple[Tensor, Tensor], views: LvmMedViews, generator: torch.Generator) -> Tensor:
        """Local affinities (G, N, N) of some cells of both maps (G N, C, *F)."""
        cells, places = [], []
        for part, box in zip(maps, views.boxes, strict=True):
            where = cell_centres(box.to(part), part.shape[2:]) * views.extent.to(part).view(
                len(part), *(1,) * (part.ndim - 2), -1
            )
            values, where = part.flatten(2).mT, where.flatten(1, -2)  # (G N, P, C), (G N, P, n)
            if values.shape[1] > self.config.cells:
                draws = uniform(generator, values.shape[:2])
                kept = draws.argsort(dim=1)[:, : self.config.cells, None]
                values = values.gather(1, kept.expand(-1, -1, values.shape[2]))
                where = where.gather(1, kept.expand(-1, -1, where.shape[2]))
            count, channels = values.shape[1:]
            cells.append(values.mT.reshape(-1, views.nodes, channels, count))  # (G, N, C, P)
            places.append(where.reshape(-1, views.nodes, count, where.shape[-1]))  # (G, N, P, n)
        gamma = self.config.gamma
        affinity = local_affinity(cells[0], cells[1], places[0], places[1], gamma)
        if not self.config.both_directions:
            return affinity
        return affinity + local_affinity(cells[1], cells[0], places[1], places[0], gamma).mT

    def _metrics(
        self, vertex: Tensor, order: Tensor, right: Tensor, z: Tensor, views: LvmMedViews
    ) -> dict[str, Tensor]:
        none = torch.zeros(2, 0, dtype=torch.long, device=vertex.device)
        found = solve_qap(vertex, vertex.new_zeros(len(vertex), 0, 0), none, none, "lap")  # of first order
        volume = views.volume.gather(1, order.gather(1, found))
        calm = (volume == views.volume).float()  # right as in `best_reached`
        spread_ = F.normalize(z, dim=-1).flatten(0, 1).std(dim=0).mean() * z.shape[-1] ** 0.5
        metrics = {
            "match_accuracy": right.mean(),
            "noise_free_accuracy": calm.mean(),
            "feature_spread": spread_,
        }
        for number in range(self.modalities if self.modalities > 1 else 0):
            own = views.modality == number
            if bool(own.any()):
                metrics[f"noise_free_accuracy/modality_{number}"] = calm[own].mean()
        return metrics


def reordered(affinity: Tensor, order: Tensor) -> Tensor:
    """Columns of (G, N, N) in the order (G, N)."""
    return affinity.gather(2, order[:, None].expand_as(affinity))


def best_reached(matching: Tensor, volume: Tensor) -> tuple[Tensor, Tensor]:
    """The true matching; where an image went to another image of its volume, what was found is right.

    Two images of one volume may nearly be the same, and no loss should tell them apart.

    Args:
        matching: (G, N, N) 0/1.
        volume: (G, N).

    Returns:
        Target (G, N, N) for `hamming`, and (G, N) 1 where an image went to its volume, else 0.
    """
    alike = volume[:, :, None] == volume[:, None, :]
    right = (matching * alike).sum(dim=2)
    truth = torch.eye(matching.shape[-1], device=matching.device).expand_as(matching)
    return torch.where(right[..., None] > 0, matching, truth), right


def spread(index: Tensor, nodes: int, generator: torch.Generator) -> Tensor:
    """Which sample goes where, so that samples of one volume lie in different graphs as far as possible.

    Duplicates in one graph make the right matching ambiguous. Volumes come in random order, so that graphs
    mix modalities.

    Args:
        index: (B,) volume of each sample.
        nodes: N samples per graph; those left over are dropped.
        generator: source of all randomness.

    Returns:
        (G N,) positions in the batch, graph after graph, on the device of ``index``.
    """
    volumes, owner = torch.unique(index, return_inverse=True)
    rank = uniform(generator, (len(volumes),)).argsort().argsort().to(index.device)
    dealt = rank[owner].argsort(stable=True)  # samples of one volume follow each other
    graphs = len(index) // nodes
    return dealt[: graphs * nodes].view(nodes, graphs).T.flatten()


def build(config: LvmMedConfig, backbone: Backbone, modalities: int) -> LvmMed:
    """The method over a backbone, for data of ``modalities`` modalities."""
    return LvmMed(backbone, modalities, config)
