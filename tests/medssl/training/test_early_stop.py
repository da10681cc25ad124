from __future__ import annotations

import torch
from torch import nn

from medssl.training.early_stop import EarlyStop


def judged(folder, scores, *, patience=2):
    """A module whose weight is the step, judged every 10 steps with the given scores."""
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    module = nn.Linear(1, 1)
    scores = iter(scores)
    early = EarlyStop(folder, module, lambda: next(scores), every=10, patience=patience)
    return module, early


def step_to(module, early, first, last):
    for step in range(first, last + 1):
        nn.init.constant_(module.weight, float(step))
        if early(step):
            return step
    return None


def test_stops_after_patience_and_puts_the_best_back(tmp_path):
    module, early = judged(tmp_path, [0.2, 0.5, 0.4, 0.5, 0.9])
    assert step_to(module, early, 1, 60) == 40, "an equal score is not better"
    assert early.restore_best() == 20
    assert float(module.weight.detach()) == 20


def test_a_resumed_run_knows_scores_and_best_weights(tmp_path):
    module, early = judged(tmp_path, [0.5, 0.4])
    step_to(module, early, 1, 24)
    module, early = judged(tmp_path, [0.4, 0.3])  # the last checkpoint was at step 15: step 20 again
    assert early.history == {10: 0.5, 20: 0.4}
    assert step_to(module, early, 16, 60) == 30
    assert early.restore_best() == 10
    assert float(module.weight.detach()) == 10


def test_a_score_that_is_no_number_counts_as_zero(tmp_path):
    module, early = judged(tmp_path, [float("nan"), 0.1])
    step_to(module, early, 1, 20)
    assert early.history == {10: 0.0, 20: 0.1}
    assert early.best_step == 20


def test_judging_needs_no_gradients(tmp_path):
    _, early = judged(tmp_path, [0.1])
    seen = []
    early._score = lambda: seen.append(torch.is_grad_enabled()) or 0.1
    early.judge(10)
    assert seen == [False]


def test_while_nothing_is_found_it_goes_on_and_keeps_what_learned_longest(tmp_path):
    module, early = judged(tmp_path, [0.0, float("nan"), 0.0, 0.0, 0.0, 0.3, 0.2, 0.1])
    assert step_to(module, early, 1, 50) is None
    assert early.restore_best() == 50
    assert float(module.weight.detach()) == 50
    assert step_to(module, early, 51, 90) == 80
    assert early.best_step == 60


def test_looks_before_the_encoder_thaws_do_not_count(tmp_path):
    module, early = judged(tmp_path, [0.5, 0.4, 0.4, 0.4, 0.4])
    early._begin = 30
    assert step_to(module, early, 1, 90) == 50
    assert early.best_step == 10
