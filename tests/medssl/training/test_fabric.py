from __future__ import annotations

import pytest
import torch
from torch.nn.functional import conv3d

from medssl.errors import InputError
from medssl.training.fabric import build_fabric, usable_precision


def test_cpu_is_one_process() -> None:
    fabric = build_fabric("cpu")
    assert fabric.device == torch.device("cpu")
    assert (fabric.world_size, fabric.global_rank) == (1, 0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="only where there is no GPU")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    assert build_fabric("auto").device == torch.device("cpu")
    with pytest.raises(InputError, match="no usable GPU; use --device cpu"):
        build_fabric("cuda")


@pytest.mark.parametrize("amx", [True, False])
def test_bf16_on_a_cpu_needs_amx(amx: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True, "amx_bf16": amx})
    assert usable_precision("bf16-mixed", use_cuda=False) == ("bf16-mixed" if amx else "32-true")
    assert usable_precision("bf16-mixed", use_cuda=True) == "bf16-mixed"
    assert usable_precision("16-mixed", use_cuda=False) == ("16-mixed" if amx else "32-true")
    assert usable_precision("16-mixed", use_cuda=True) == "16-mixed"
    assert usable_precision("32-true", use_cuda=False) == "32-true"


def test_what_is_called_usable_has_right_gradients_on_small_maps() -> None:
    used = usable_precision("bf16-mixed", use_cuda=False)
    dtype = {"bf16-mixed": torch.bfloat16, "32-true": torch.float32}[used]
    torch.manual_seed(0)
    scan, weight = torch.randn(4, 16, 2, 2, 2), torch.randn(16, 16, 3, 3, 3)
    gradients = []
    for kind in (torch.float64, dtype, dtype, dtype):
        del [torch.full((1_000_003,), 1e30) for _ in range(5)][:]  # what unwritten memory may hold
        taps = weight.to(kind, copy=True).requires_grad_()
        conv3d(scan.to(kind), taps, padding=1).square().sum().backward()
        gradients.append(taps.grad.double())
    largest = gradients[0].abs().max()
    for gradient in gradients[1:]:
        assert (gradient - gradients[0]).abs().max() < 0.05 * largest
