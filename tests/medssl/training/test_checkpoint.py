from __future__ import annotations

import errno
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from medssl.config.training import TrainingConfig
from medssl.errors import InputError
from medssl.store.runs import Run
from medssl.training import checkpoint
from medssl.training.checkpoint import load_checkpoint, restore, save_checkpoint


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "run", TrainingConfig())


def module_and_optimizer(size: int = 3) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    module = torch.nn.Linear(size, 2)
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.ones(size)).sum().backward()
    optimizer.step()
    return module, optimizer


def test_weights_moments_and_random_state_come_back(run: Run) -> None:
    module, optimizer = module_and_optimizer()
    save_checkpoint(run, 7, module, optimizer)
    expected = torch.rand(4)  # what torch's generator gives next
    other, other_optimizer = module_and_optimizer()
    values = load_checkpoint(run)
    assert values is not None
    assert restore(values, other, other_optimizer) == 7
    assert torch.equal(torch.rand(4), expected)
    assert torch.equal(module.weight, other.weight)
    assert torch.equal(
        optimizer.state[module.weight]["exp_avg_sq"], other_optimizer.state[other.weight]["exp_avg_sq"]
    )


def test_a_damaged_checkpoint_gives_way_to_the_one_before(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    module, optimizer = module_and_optimizer()
    save_checkpoint(run, 1, module, optimizer)
    run.checkpoint(2).write_bytes(run.checkpoint(1).read_bytes()[:200])
    values = load_checkpoint(run)
    assert values is not None
    assert values["step"] == 1
    assert "cannot be read" in caplog.text
    run.checkpoint(1).write_bytes(b"no checkpoint")
    with pytest.raises(InputError, match="none of its checkpoints"):
        load_checkpoint(run)


def test_a_full_disk_is_one_line_and_leaves_the_last_checkpoint(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(run, 1, *module_and_optimizer())

    @contextmanager
    def full(path: Path):
        yield SimpleNamespace(
            write=lambda data: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left"))
        )

    monkeypatch.setattr(checkpoint, "atomic_file", full)
    with pytest.raises(InputError, match=r"step-00000002\.pt: cannot be written, the disk is full.*--resume"):
        save_checkpoint(run, 2, *module_and_optimizer())
    values = load_checkpoint(run)
    assert values is not None
    assert values["step"] == 1


def test_no_checkpoint_is_no_error(run: Run) -> None:
    assert load_checkpoint(run) is None


def test_another_model_is_refused_in_one_line(run: Run) -> None:
    save_checkpoint(run, 1, *module_and_optimizer())
    values = load_checkpoint(run)
    assert values is not None
    with pytest.raises(InputError, match="does not fit the model") as caught:
        restore(values, *module_and_optimizer(5))
    assert "\n" not in str(caught.value)


def test_a_pickled_object_is_not_executed(run: Run, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "owned",)

    torch.save({"format": "medssl-checkpoint-1", "model": Evil()}, run.checkpoint(1))
    with pytest.raises(InputError):
        load_checkpoint(run)
    assert not (tmp_path / "owned").exists()
