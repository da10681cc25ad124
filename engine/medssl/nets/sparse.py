"""Any convolutional encoder made to see the visible cells of a mask only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from monai.networks.layers.drop_path import DropPath
from torch import fx, nn
from torch.nn import functional as F
from torch.nn.modules import conv, pooling
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from medssl.nets import sparse_layers as layers
from medssl.nets import sparse_norms as norms
from medssl.nets.resnet import GreyToColour

Kind = Literal["map", "last", "plain"]
"""What a value is: a map (B, C, *S), a map with channels last (B, *S, C), or anything without cells."""

_WINDOWS = (conv._ConvNd, pooling._MaxPoolNd, pooling._AvgPoolNd)
_GLOBAL = {
    pooling._AdaptiveAvgPoolNd: layers.global_average,
    pooling._AdaptiveMaxPoolNd: layers.global_maximum,
}
_NORMS: dict[type[nn.Module], Callable[..., Any]] = {
    _BatchNorm: norms.batch_norm,
    _InstanceNorm: norms.group_norm,
    nn.GroupNorm: norms.group_norm,
}
_KEEP_ZERO = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish,
    nn.Hardswish, nn.Tanh, nn.Softsign, nn.Identity, nn.Dropout, nn.Dropout1d,
    nn.Dropout2d, nn.Dropout3d, DropPath,
)  # fmt: skip
_PER_POSITION = (GreyToColour, nn.Sigmoid, nn.Hardsigmoid, nn.Softplus)
_PER_POSITION_LAST = (nn.Linear, nn.LayerNorm)
_FUNCTIONS_KEEP_ZERO = {
    "relu", "relu_", "leaky_relu", "elu", "gelu", "silu", "mish", "hardswish", "tanh", "neg", "contiguous",
    "clone", "float", "to", "type_as",
}  # fmt: skip
_FUNCTIONS_PER_POSITION = {"sigmoid", "softplus", "hardsigmoid"}
_SUMS = {"add", "iadd", "add_", "sub", "isub", "sub_"}
_QUOTIENTS = {"truediv", "itruediv", "div", "div_"}
_PRODUCTS = {"mul", "imul", "mul_", *_QUOTIENTS}
_FACTS = {"getattr", "size", "dim"}


def sparsify(encoder: nn.Module, mask_input: bool = True) -> fx.GraphModule:
    """The encoder as a network of an image and its mask, over the same parameters and buffers.

    The computation is recorded once (torch.fx) and every layer replaced: convolutions and pooling windows
    run densely and are masked, norms and global pooling (so squeeze and excitation too) count seen positions
    only. Nothing of a hidden cell reaches a seen one. The mask is an argument of the graph; keys of the
    state are those of the encoder, and training the result trains the encoder.

    Pooling windows count the zeros of hidden neighbours, as published: a maximum over seen negative values
    and a hidden neighbour is 0, an average divides by the whole window.

    Args:
        encoder: takes one image (B, C, *S); not changed.
        mask_input: False leaves the image as it is, so that the first convolution sees the rim of hidden
            cells, as published S3D does: no longer free of leaks.

    Returns:
        A module whose forward takes ``x`` (B, C, *S) and ``visible`` (B, 1, *F) bool, S a multiple of F, and
        gives what the encoder gives, 0 in hidden cells. With everything visible it equals the encoder.

    Raises:
        ValueError: the encoder has a layer whose sparse form is unknown; none is left dense in silence.

    Reference: Tian et al. (SparK), ICLR 2023, sections 3.1 and 3.2.
    """
    try:
        graph = _Tracer().trace(encoder)
    except (fx.proxy.TraceError, TypeError) as error:
        raise ValueError(f"{type(encoder).__name__} cannot be recorded for masking: {error}") from error
    _Rewriter(encoder, graph).run(mask_input)
    sparse = fx.GraphModule(encoder, graph, class_name=f"Sparse{type(encoder).__name__}")
    for name in ("levels", "spatial_dims", "in_channels"):
        if hasattr(encoder, name):
            setattr(sparse, name, getattr(encoder, name))
    return sparse.train(encoder.training)


class _Tracer(fx.Tracer):
    """Records layers whose sparse form is known as they are, and looks into all others."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        known = isinstance(m, (DropPath, GreyToColour))
        return known or super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Look into a container that the encoder made on the fly and does not own."""
        if not any(m is own for own in self.root.modules()):
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)


class _Rewriter:
    """Goes through the recorded operations in order and puts in their sparse forms."""

    def __init__(self, encoder: nn.Module, graph: fx.Graph) -> None:
        self._encoder = encoder
        self._graph = graph
        self._kinds: dict[fx.Node, Kind] = {}
        self._cells: fx.Node

    def run(self, mask_input: bool) -> None:
        inputs = [node for node in self._graph.nodes if node.op == "placeholder"]
        if len(inputs) != 1:
            raise ValueError(f"an encoder takes one image, this one takes {len(inputs)} arguments")
        nodes = list(self._graph.nodes)
        with self._graph.inserting_after(inputs[0]):
            visible = self._graph.placeholder("visible")
        with self._graph.inserting_after(visible):
            self._cells = self._graph.call_function(layers.VisibleCells, (visible,))
        self._kinds[inputs[0]] = "map"
        if mask_input:
            self._follow(inputs[0], layers.show, after=self._cells)
        for node in nodes:
            if node.op in ("call_module", "call_function", "call_method"):
                self._replace(node)
        self._graph.lint()

    def _replace(self, node: fx.Node) -> None:
        kinds = {self._kinds.get(source, "plain") for source in node.all_input_nodes} - {"plain"}
        if not kinds:
            return  # no cells in, no cells out: pooled vectors, parameters
        if len(kinds) > 1:
            raise self._unknown(node, "joins maps of different layout")
        self._kinds[node] = kind = kinds.pop()
        if node.op == "call_module":
            self._replace_layer(node, self._encoder.get_submodule(str(node.target)), kind)
        else:
            self._replace_function(node, kind)

    def _replace_layer(self, node: fx.Node, layer: nn.Module, kind: Kind) -> None:
        if isinstance(layer, _KEEP_ZERO):
            return
        if kind == "last" and isinstance(layer, _PER_POSITION_LAST):
            if isinstance(layer, nn.LayerNorm) and len(layer.normalized_shape) > 1:
                raise self._unknown(node, "normalises over space")
            self._follow(node, layers.hide_last)
        elif kind == "map" and isinstance(layer, _WINDOWS):
            if not self._feeds_norms_only(node):  # they look at seen cells alone: one pass saved
                self._follow(node, layers.hide_)
        elif isinstance(layer, _PER_POSITION):
            self._follow(node, layers.hide if kind == "map" else layers.hide_last)
        elif kind == "map" and (norm := _find(_NORMS, layer)) is not None:
            with self._graph.inserting_before(node):
                module = self._graph.get_attr(str(node.target))
            self._exchange(node, norm, (module, node.args[0], self._cells))
        elif kind == "map" and (pool := _find(_GLOBAL, layer)) is not None:
            size = layer.output_size
            if any(n != 1 for n in (size if isinstance(size, tuple) else (size,))):
                raise self._unknown(node, "pools to more than one cell")
            self._kinds[self._exchange(node, pool, (node.args[0], self._cells))] = "plain"
        else:
            raise self._unknown(node, type(layer).__name__)

    def _feeds_norms_only(self, node: fx.Node) -> bool:
        users = [
            self._encoder.get_submodule(str(user.target)) if user.op == "call_module" else None
            for user in node.users
        ]
        return all(user is not None and _find(_NORMS, user) is not None for user in users)

    def _replace_function(self, node: fx.Node, kind: Kind) -> None:
        name = node.target if isinstance(node.target, str) else node.target.__name__
        maps = [source for source in node.all_input_nodes if self._kinds.get(source, "plain") != "plain"]
        hide = layers.hide if kind == "map" else layers.hide_last
        if name in _FACTS:
            self._kinds[node] = "plain"  # shape, type, device
        elif name in _QUOTIENTS and node.args[1] in maps:
            raise self._unknown(node, "divides by a map, which is 0 in hidden cells")
        elif (
            name in _FUNCTIONS_KEEP_ZERO
            or (name in _PRODUCTS and node.args[0] in maps)
            or (name == "mul" and node.args[1] in maps)
        ):
            return
        elif name in _SUMS:
            if len(node.args) != 2 or any(source not in maps for source in node.args):
                self._follow(node, hide)  # a constant would lift hidden cells off 0
        elif name in ("cat", "concat") and _argument(node, 1, "dim") == 1 and kind == "map":
            if len(maps) < len(node.all_input_nodes):
                self._follow(node, hide)  # and so would a constant map
        elif name in _FUNCTIONS_PER_POSITION or (kind == "last" and _is_over_channels(node, name)):
            self._follow(node, hide)
        elif name == "permute":
            self._kinds[node] = self._permuted(node, kind)
        elif kind == "map" and (pooled := self._pooled(node, name)) is not None:
            self._kinds[pooled] = "plain"
        else:
            raise self._unknown(node, name)

    def _pooled(self, node: fx.Node, name: str) -> fx.Node | None:
        """What a mean of a map over space becomes; None if the node is no such mean."""
        if name == "mean" and _is_space(_argument(node, 1, "dim")):
            axes, keep = tuple(_argument(node, 1, "dim")), bool(_argument(node, 2, "keepdim") or False)
            return self._exchange(node, layers.averaged, (node.args[0], self._cells, axes, keep))
        if node.target in (F.adaptive_avg_pool2d, F.adaptive_avg_pool3d):
            size = _argument(node, 1, "output_size")
            if any(n != 1 for n in (size if isinstance(size, (tuple, list)) else (size,))):
                raise self._unknown(node, "pools to more than one cell")
            return self._exchange(node, layers.global_average, (node.args[0], self._cells))
        return None

    def _permuted(self, node: fx.Node, kind: Kind) -> Kind:
        order = node.args[1:] if len(node.args) > 2 else tuple(node.args[1])  # type: ignore[arg-type]
        n = len(order)
        if kind == "map" and tuple(order) == (0, *range(2, n), 1):
            return "last"
        if kind == "last" and tuple(order) == (0, n - 1, *range(1, n - 1)):
            return "map"
        raise self._unknown(node, f"permute{tuple(order)}")

    def _follow(self, node: fx.Node, function: Callable[..., Any], after: fx.Node | None = None) -> None:
        """Pass what ``node`` gives through ``function`` before anything else uses it."""
        with self._graph.inserting_after(after or node):
            new = self._graph.call_function(function, (node, self._cells))
        node.replace_all_uses_with(new, delete_user_cb=lambda user: user is not new)
        self._kinds[new] = self._kinds[node]

    def _exchange(self, node: fx.Node, function: Callable[..., Any], arguments: tuple[Any, ...]) -> fx.Node:
        with self._graph.inserting_before(node):
            new = self._graph.call_function(function, arguments)
        node.replace_all_uses_with(new)
        self._graph.erase_node(node)
        self._kinds[new] = self._kinds[node]
        return new

    def _unknown(self, node: fx.Node, what: str) -> ValueError:
        return ValueError(
            f"{type(self._encoder).__name__}: {node.target} ({what}) has no sparse form; use layers that "
            "medssl.nets.sparse names"
        )


def _find(table: dict[type[nn.Module], Callable[..., Any]], layer: nn.Module) -> Callable[..., Any] | None:
    return next((function for kind, function in table.items() if isinstance(layer, kind)), None)


def _argument(node: fx.Node, position: int, name: str) -> Any:
    return node.kwargs[name] if name in node.kwargs else (*node.args, None, None, None)[position]


def _is_over_channels(node: fx.Node, name: str) -> bool:
    """Whether a function is a layer norm of one axis, which comes last."""
    return name == "layer_norm" and len(_argument(node, 1, "normalized_shape")) == 1


def _is_space(dims: Any) -> bool:
    """Whether axes are all spatial ones of a map with four or five axes."""
    return dims is not None and sorted(dims) in ([2, 3], [-2, -1], [2, 3, 4], [-3, -2, -1])
