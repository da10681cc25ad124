from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest

from medssl.config.training import TrainingConfig
from medssl.errors import InputError
from medssl.jobs.progress import drain
from medssl.store.runs import Run
from medssl.training.board import tensorboard
from medssl.training.loop import fit


def test_nothing_is_written_without_a_folder(tmp_path: Path) -> None:
    with tensorboard(None) as log:
        log(1, {"loss": 1.0})
    assert list(tmp_path.iterdir()) == []


def test_a_missing_tensorboard_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match="pip install tensorboard"), tensorboard(tmp_path / "board"):
        pass
    assert not (tmp_path / "board").exists()


class Writer:
    """Stands in for TensorBoard's writer, which is an option."""

    made: ClassVar[list[Writer]] = []

    def __init__(self, folder: str, purge_step: int) -> None:
        self.folder, self.purge_step = folder, purge_step
        self.scalars: list[tuple[str, float, int]] = []
        self.is_closed = False
        self.made.append(self)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars.append((name, value, step))

    def close(self) -> None:
        self.is_closed = True


def test_the_loop_hands_every_logged_metric_on(tmp_path: Path, toy, toy_data, fabric, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer))
    config = TrainingConfig(steps=4, batch_size=4, log_every=2, tensorboard=True)
    run = Run.create(tmp_path / "run", config)
    drain(fit(toy(), toy_data(), config, fabric=fabric, run=run))
    (writer,) = Writer.made
    assert (writer.folder, writer.purge_step, writer.is_closed) == (str(run.folder / "tensorboard"), 1, True)
    logged = [
        (name, value, event["step"]) for event in run.events() for name, value in event["metrics"].items()
    ]
    assert {step for _, _, step in logged} == {2, 4}
    assert writer.scalars == [(name, pytest.approx(value), step) for name, value, step in logged]


@pytest.mark.filterwarnings("ignore")  # TensorBoard's own
def test_the_loop_logs_what_the_events_hold(tmp_path: Path, toy, toy_data, fabric) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = TrainingConfig(steps=4, batch_size=4, log_every=2, tensorboard=True)
    run = Run.create(tmp_path / "run", config)
    drain(fit(toy(), toy_data(), config, fabric=fabric, run=run))
    board = EventAccumulator(str(run.folder / "tensorboard"))
    board.Reload()
    for name in ("loss", "error", "lr"):
        logged = [(event.step, event.value) for event in board.Scalars(name)]
        expected = [(event["step"], pytest.approx(event["metrics"][name])) for event in run.events()]
        assert logged == expected
