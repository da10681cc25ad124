from __future__ import annotations

import pytest
import torch

from medssl.errors import InputError
from medssl.training.fabric import build_fabric


def test_cpu_is_one_process() -> None:
    fabric = build_fabric("cpu")
    assert fabric.device == torch.device("cpu")
    assert (fabric.world_size, fabric.global_rank) == (1, 0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="only where there is no GPU")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    assert build_fabric("auto").device == torch.device("cpu")
    with pytest.raises(InputError, match="no usable GPU; use --device cpu"):
        build_fabric("cuda")
