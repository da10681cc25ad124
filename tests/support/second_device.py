"""A device beside the CPU for machines without a GPU: its tensors lie in memory, and CUDA's rules hold.

What does not work there mixes devices: a tensor made on the CPU and left there, a generator of the other
device, NumPy on a tensor that was not brought back. Under autocast the types are CUDA's. Kernels are the
CPU's, so results equal the CPU's; of speed, memory and CUDA's own kernels it says nothing.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._python_dispatch import return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map

NAME = "elsewhere"
_LIBRARY = torch.library.Library("aten", "IMPL")
_REST = torch.library.Library("_", "IMPL")
_GENERATOR = torch.Generator
_DRAWING: dict[int, torch.Generator] = {}  # operations get a generator as another Python object

_INDEXING = {"aten::index", "aten::index_put", "aten::index_put_"}
_MIXING = {"aten::copy_", "aten::_to_copy", *_INDEXING}  # may see both devices
_CONVOLUTIONS = {"aten::convolution", "aten::convolution_backward"}
_HALVES = (torch.bfloat16, torch.float16)

# Factories that others use, and those that would resize what they fill.
_FACTORIES = "empty empty_strided arange eye tril_indices triu_indices"

# What autocast on CUDA computes in half, in single, and in the widest precision that it is given.
_HALF = """
    _convolution conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution prelu
    addmm addmv addr matmul einsum mm mv linalg_vecdot linear addbmm baddbmm bmm chain_matmul
    linalg_multi_dot
"""
_SINGLE = """
    acos asin cosh erfinv exp expm1 log log10 log2 log1p reciprocal rsqrt sinh tan pow softplus layer_norm
    native_layer_norm group_norm cosine_similarity nll_loss nll_loss2d kl_div l1_loss smooth_l1_loss
    huber_loss mse_loss binary_cross_entropy_with_logits dist cdist logsumexp norm prod softmax log_softmax
    cumprod cumsum linalg_vector_norm sum
"""
_WIDEST = "addcdiv addcmul atan2 bilinear cross dot grid_sampler index_put tensordot scatter_add cat stack"


class Elsewhere(Tensor):
    """A tensor of the second device; ``held`` is where its values are."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> Self:
        """Size and strides of ``held``, no memory of its own."""
        return Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=torch.device(NAME, 0),
        )

    def __init__(self, held: Tensor) -> None:
        self.held = held

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        """Every operation that touches a tensor of the second device."""
        return _dispatch(func, args, kwargs or {})

    def tolist(self) -> Any:
        """As of any tensor; torch refuses it for subclasses."""
        return self.cpu().tolist()

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Files hold the values."""
        return self.held.__reduce_ex__(protocol)

    def __repr__(self, **_: Any) -> str:
        return f"Elsewhere({self.held!r})"


class Generator(torch.Generator):
    """In place of `torch.Generator`: one that may also draw for the second device."""

    _place: torch.device

    def __new__(cls, device: torch.device | str = "cpu") -> Self:
        """A generator of the CPU, whatever it says of itself."""
        self = super().__new__(cls, "cpu")
        self._place = torch.device(device)
        if self._place.type == NAME:
            _DRAWING[self._cdata] = self
        return self

    @property
    def device(self) -> torch.device:
        """What was asked for."""
        return self._place


class _Module(backend_registration._DummyBackendModule):
    """``torch.elsewhere``."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return list(_HALVES)


def install() -> torch.device:
    """Make the device known to torch, for good, and generators and inference mode fit for it."""
    if not hasattr(torch, NAME):
        backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
        aten = torch.ops.aten
        for packet in (getattr(aten, name) for name in _FACTORIES.split()):
            for made in (getattr(packet, overload) for overload in packet.overloads()):
                if "out" not in made._schema.overload_name:
                    _LIBRARY.impl(_registered_name(made), partial(_make, made), "PrivateUse1")
        _LIBRARY.impl("_copy_from", _copy_from, "PrivateUse1")
        for names, choose in ((_HALF, _half), (_SINGLE, _single), (_WIDEST, _widest)):
            for packet in (getattr(aten, name) for name in names.split()):
                for overload in packet.overloads():
                    if "out" not in overload and "dtype" not in overload:
                        cast = partial(_autocast, getattr(packet, overload), choose)
                        _LIBRARY.impl(
                            _registered_name(getattr(packet, overload)), cast, "AutocastPrivateUse1"
                        )
        _REST.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
        # optimisers hold parameters: moving a module must not make new ones (on a GPU it does not)
        torch.__future__.set_swap_module_params_on_conversion(True)
        torch.Generator = Generator  # type: ignore[misc]
        torch.inference_mode = torch.no_grad  # type: ignore[assignment, misc]  # subclasses have none
    return torch.device(NAME, 0)


def _dispatch(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Compute on the held tensors; refuse what CUDA would refuse."""
    name = func._schema.name
    values = tree_flatten((args, kwargs))[0]
    wanted = kwargs.get("device")
    is_back = torch.device(wanted).type != NAME if wanted is not None else not _is_ours(args[0])
    if name not in _MIXING:
        is_back = False
    _refuse_mixing(name, args, values)
    if "device" in kwargs:
        kwargs = {**kwargs, "device": None if wanted is None else torch.device("cpu")}
    if name in _CONVOLUTIONS:
        out = _in_single(func, *tree_map(_held, (args, kwargs)))
    else:
        held_args, held_kwargs = tree_map(_held, (args, kwargs))
        out = func(*held_args, **held_kwargs)
    if is_back:
        return args[0] if name == "aten::copy_" else _apart(out, _held(args[0]))
    return return_and_correct_aliasing(func, args, kwargs, tree_map(_wrapped, out))


def _refuse_mixing(name: str, args: tuple[Any, ...], values: list[Any]) -> None:
    strangers = [x for x in values if isinstance(x, Tensor) and not _is_ours(x) and x.ndim > 0]
    if strangers and name not in _MIXING:
        raise RuntimeError(f"all tensors must be on the same device: {name} has {NAME}:0 and cpu")
    if name in _INDEXING and any(x is y for x in strangers for y in (args[0], *args[2:3])):
        raise RuntimeError(f"{name}: only indices may be of another device")
    for x in values:
        if isinstance(x, _GENERATOR) and x._cdata not in _DRAWING:
            raise RuntimeError(f"{name}: a generator of cpu for a tensor of {NAME}:0")


def _in_single(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """In single precision, then rounded: not every CPU computes convolutions in half precision soundly."""
    half = next((x.dtype for x in args if isinstance(x, Tensor) and x.dtype in _HALVES), None)
    if half is None:
        return func(*args, **kwargs)
    out = func(*tree_map(lambda x: x.float() if isinstance(x, Tensor) else x, args), **kwargs)
    return tree_map(lambda x: x.to(half) if isinstance(x, Tensor) else x, out)


def _is_ours(x: Any) -> bool:
    return isinstance(x, Elsewhere)


def _held(x: Any) -> Any:
    return x.held if _is_ours(x) else x


def _wrapped(x: Any) -> Any:
    return Elsewhere(x) if isinstance(x, Tensor) else x


def _apart(out: Tensor, source: Tensor) -> Tensor:
    """No memory in common: a copy to another device is one."""
    same = out.untyped_storage().data_ptr() == source.untyped_storage().data_ptr()
    return out.clone() if same else out


def _make(operation: Any, *args: Any, **kwargs: Any) -> Elsewhere:
    return Elsewhere(operation(*args, **{**kwargs, "device": torch.device("cpu")}))


def _copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    _held(target).copy_(_held(source))
    return target


def _registered_name(operation: Any) -> str:
    name = operation._schema.name.removeprefix("aten::")
    return f"{name}.{operation._schema.overload_name}" if operation._schema.overload_name else name


def _half(_: list[Any]) -> torch.dtype:
    return torch.get_autocast_dtype(NAME)


def _single(_: list[Any]) -> torch.dtype:
    return torch.float32


def _widest(values: list[Any]) -> torch.dtype:
    is_single = any(_is_cast(x) and x.dtype == torch.float32 for x in values)
    return torch.float32 if is_single else torch.get_autocast_dtype(NAME)


def _is_cast(x: Any) -> bool:
    return _is_ours(x) and x.is_floating_point() and x.dtype != torch.float64


def _autocast(operation: Any, choose: Any, *args: Any, **kwargs: Any) -> Any:
    rest = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)
    with torch._C._ExcludeDispatchKeyGuard(rest):
        dtype = choose(tree_flatten((args, kwargs))[0])
        args, kwargs = tree_map(lambda x: x.to(dtype) if _is_cast(x) else x, (args, kwargs))
        return operation(*args, **kwargs)
