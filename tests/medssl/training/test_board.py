from __future__ import annotations

import sys
from pathlib import Path

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
