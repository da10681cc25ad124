"""Public checkpoints -> our modules, with the features of the network that they come from."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medssl.errors import InputError
from medssl.nets.backbone import Backbone
from medssl.nets.checkpoints import read_tensors, strip_prefix
from medssl.nets.encoders import restore_encoder
from medssl.nets.unet import GenesisDecoder

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of the colour images, per channel in [0, 1], that the ResNet checkpoints were trained on."""


@dataclass(frozen=True)
class TransferReport:
    """What became of the tensors of a checkpoint.

    Args:
        format: of the checkpoint.
        matched: our keys that got their values.
        missing: our keys that the checkpoint lacks; they keep random values.
        reshaped: our keys whose values were fitted to another number of image channels.
        unused: keys of the checkpoint that our modules have no place for (heads, aliases).
    """

    format: str
    matched: tuple[str, ...]
    missing: tuple[str, ...]
    reshaped: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        parts = [f"{len(self.matched)} tensors matched", f"{len(self.missing)} missing{_some(self.missing)}"]
        parts += [f"{len(self.reshaped)} reshaped{_some(self.reshaped)}"]
        return ", ".join([*parts, f"{len(self.unused)} not used{_some(self.unused)}"])


@dataclass(frozen=True)
class _Network:
    """The encoder of a checkpoint as ours.

    Args:
        config: arguments of the encoder, read off the shapes of the tensors.
        tensors: by our keys below a `Backbone`.
        is_turned: kernels are of images in the order x, y, z; ours is z, y, x.
    """

    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    is_turned: bool = False


def load_foreign(
    path: Path | str, format: str, in_channels: int | None = None
) -> tuple[Backbone, TransferReport]:
    """Read a public checkpoint.

    Sizes are read off the tensors, so wider or smaller variants load too. The module is in evaluation mode
    and gives the pyramid of the source network; the kernels of Models Genesis, made for volumes in the order
    x, y, z, are turned to ours. Networks with batch norm use running statistics then. (The published Models
    Genesis code uses those of the batch: ``train()`` gives that.)

    Args:
        path: the file.
        format: "genesis", "swav", "spark", "lvm-med" or "openmind".
        in_channels: image channels of the result; where they differ from the checkpoint's, the first kernel
            is averaged over its channels and shared out, so that equal channels give the same sum.

    Returns:
        The encoder (and the decoder of Models Genesis) as a `Backbone`, and a report.

    Raises:
        InputError: the file cannot be read safely, lacks most of the encoder, or holds values that are not
            finite.

    Reference: key layouts as published with each model.
    """
    path = Path(path)
    if format not in _READERS:
        raise InputError(f"--format {format}: unknown; choose from {', '.join(_READERS)}")
    state = read_tensors(path)
    network = _READERS[format](state, path)
    config = dict(network.config)
    tensors = {key: _turned(v) if network.is_turned else v for key, v in network.tensors.items()}
    reshaped: list[str] = []
    if in_channels is not None and in_channels != config["in_channels"]:
        config = {**config, "in_channels": in_channels} | (
            {"mean": (), "std": ()} if "mean" in config else {}
        )
    try:
        encoder = restore_encoder(config)
    except (ValueError, TypeError, RuntimeError) as error:
        raise InputError(f"{path}: its tensors make no {format} network ({error})") from error
    has_decoder = any(key.startswith("decoder.") for key in tensors)
    decoder = GenesisDecoder(encoder.spatial_dims, config["width"]) if has_decoder else None
    backbone = Backbone(encoder, decoder).eval()
    wanted = {k: v for k, v in backbone.state_dict().items() if not k.endswith("num_batches_tracked")}
    for key, value in tensors.items():
        if key in wanted and is_first_kernel(value, wanted[key]):
            tensors[key] = fit_channels(value, wanted[key].shape[1])
            reshaped.append(key)
    matched = [key for key in wanted if key in tensors and tensors[key].shape == wanted[key].shape]
    if not any(wanted[key].ndim > 1 for key in matched):
        raise InputError(
            f"{path}: nothing in it fits a {format} network (it holds {_some(tuple(state)).strip(' ()')}); "
            "check --format"
        )
    weights = [key for key in wanted if key.startswith("encoder.") and wanted[key].ndim > 1]
    lost = [key for key in weights if key not in matched]
    if 2 * len(lost) > len(weights):
        raise InputError(
            f"{path}: {len(lost)} of {len(weights)} kernels of a {format} encoder are missing or of another "
            f"shape{_some(tuple(lost))}; is the file whole?"
        )
    broken = tuple(key for key in matched if not tensors[key].isfinite().all())
    if broken:
        raise InputError(f"{path}: holds values that are not finite{_some(broken)}; get it again")
    with torch.no_grad():
        for key in matched:
            wanted[key].copy_(tensors[key])
    taken = {id(network.tensors[key]) for key in matched}
    unused = tuple(key for key, value in state.items() if id(value) not in taken and not _counts(key))
    missing = tuple(key for key in wanted if key not in matched)
    return backbone, TransferReport(format, tuple(matched), missing, tuple(reshaped), unused)


def is_first_kernel(given: Tensor, wanted: Tensor) -> bool:
    """Whether kernels differ in their input channels alone, one of them being for grey or colour images."""
    return (
        given.ndim == wanted.ndim
        and given.ndim > 2
        and given.shape[1] != wanted.shape[1]
        and min(given.shape[1], wanted.shape[1]) <= 4
        and given.shape[0] == wanted.shape[0]
        and given.shape[2:] == wanted.shape[2:]
    )


def fit_channels(kernel: Tensor, channels: int) -> Tensor:
    """A kernel (O, I, *K) for another number of channels: equal channels give the same sum as before."""
    mean = kernel.sum(dim=1, keepdim=True) / channels
    return mean.expand(-1, channels, *kernel.shape[2:]).clone()


def _turned(value: Tensor) -> Tensor:
    """Kernels (O, I, *K) with their axes in the opposite order; anything else as it is."""
    return value.permute(0, 1, *range(value.ndim - 1, 1, -1)).contiguous() if value.ndim > 2 else value


def _genesis(state: Mapping[str, Tensor], path: Path) -> _Network:
    """``module.down_tr64.ops.0.conv1.weight`` and so on: our names, below a prefix."""
    tensors = strip_prefix(state, "down_tr64.ops.0.")
    kernel = _kernel(tensors, "down_tr64.ops.0.conv1.weight", "genesis", path)
    config = {
        "architecture": "genesis",
        "spatial_dims": kernel.ndim - 2,
        "in_channels": kernel.shape[1],
        "width": kernel.shape[0],
    }
    places = {"down_": "encoder.", "up_tr": "decoder."}
    ours = {places[k[:5]] + k: v for k, v in tensors.items() if k[:5] in places}
    return _Network(config, ours, is_turned=config["spatial_dims"] == 3)


def _resnet(format: str) -> Callable[[Mapping[str, Tensor], Path], _Network]:
    """The names of torchvision and timm, below ``module.``, ``encoder_q.``, ``sparse_encoder.sp_cnn.`` ..."""

    def read(state: Mapping[str, Tensor], path: Path) -> _Network:
        if any("patch_embed" in key or "rel_pos" in key for key in state):
            raise InputError(
                f"{path}: a vision transformer; --format {format} reads ResNets, take that checkpoint"
            )
        tensors = strip_prefix(state, "layer1.0.conv1.", ("encoder_q", "student", "online", "backbone"))
        kernel = _kernel(tensors, "conv1.weight", format, path)
        if "layer1.0.conv3.weight" not in tensors:
            raise InputError(
                f"{path}: a ResNet without bottleneck blocks; ResNet-50 and its like can be read"
            )
        counts = [len({k.split(".")[1] for k in tensors if k.startswith(f"layer{i}.")}) for i in (1, 2, 3, 4)]
        is_colour = kernel.shape[1] == 3
        config = {
            "architecture": "resnet",
            "spatial_dims": kernel.ndim - 2,
            "in_channels": 1 if is_colour else kernel.shape[1],
            "blocks": [count for count in counts if count],
            "width": kernel.shape[0],
            "mean": list(IMAGENET_MEAN) if is_colour else [],
            "std": list(IMAGENET_STD) if is_colour else [],
        }
        return _Network(config, {f"encoder.{key}": value for key, value in tensors.items()})

    return read


def _openmind(state: Mapping[str, Tensor], path: Path) -> _Network:
    """``encoder.stem.*`` and ``encoder.stages.*``.

    Every convolution and norm is there twice: as ``conv`` and ``norm``, and in ``all_modules``. In S3D
    checkpoints only the latter was trained, so it wins. The copy below ``decoder.encoder`` is left aside.
    """
    if any(key.startswith(("eva.", "down_projection.")) for key in state):
        raise InputError(
            f"{path}: a Primus transformer; --format openmind reads ResEnc-L, take that checkpoint"
        )
    source = strip_prefix(state, "stem.convs.0.")
    tensors: dict[str, Tensor] = {}
    for key in sorted(source, key=lambda key: "all_modules" in key):  # the later one wins
        ours = re.sub(r"\.all_modules\.0\.", ".conv.", key)
        ours = re.sub(r"\.all_modules\.\d+\.", ".norm.", ours)
        ours = re.sub(r"^stem\.convs\.0\.", "stages.0.stem.0.", ours)
        if ours.startswith("stages."):
            tensors[f"encoder.{ours}"] = source[key]
    kernel = _kernel(tensors, "encoder.stages.0.stem.0.conv.weight", "openmind", path)
    blocks = [(int(m[1]), int(m[2])) for key in tensors if (m := _BLOCK.match(key))]
    counts = [1 + max(b for s, b in blocks if s == stage) for stage in sorted({s for s, _ in blocks})]
    first = [
        tensors.get(f"encoder.stages.{i}.blocks.0.conv1.conv.weight", kernel) for i in range(len(counts))
    ]
    config = {
        "architecture": "resenc",
        "spatial_dims": kernel.ndim - 2,
        "in_channels": kernel.shape[1],
        "channels": [weight.shape[0] for weight in first],
        "blocks": counts,
    }
    return _Network(config, tensors)


_BLOCK = re.compile(r"encoder\.stages\.(\d+)\.blocks\.(\d+)\.")

_READERS: dict[str, Callable[[Mapping[str, Tensor], Path], _Network]] = {
    "genesis": _genesis,
    "swav": _resnet("swav"),
    "spark": _resnet("spark"),
    "lvm-med": _resnet("lvm-med"),
    "openmind": _openmind,
}


def _kernel(tensors: Mapping[str, Tensor], key: str, format: str, path: Path) -> Tensor:
    """The first convolution, from which the sizes are read."""
    kernel = tensors.get(key)
    if kernel is None or kernel.ndim not in (4, 5):
        raise InputError(f"{path}: nothing in it fits a {format} network ({key} is missing); check --format")
    return kernel


def _counts(key: str) -> bool:
    return key.endswith("num_batches_tracked")


def _some(keys: tuple[str, ...]) -> str:
    return f" ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})" if keys else ""
