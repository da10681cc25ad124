"""Optimisers, who gets weight decay, and the learning rate as a function of the step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from medssl.config.training import TrainingConfig

_POWER = 0.9
"""Of the schedule poly (nnU-Net)."""


def parameter_groups(
    module: nn.Module,
    weight_decay: float,
    scale: Callable[[str], float] | None = None,
    apart: Callable[[str], bool] | None = None,
) -> list[dict[str, Any]]:
    """Parameters by weight decay and learning-rate scale.

    Norms, biases (everything of one axis) and prototypes decay not: prototypes are unit vectors, decay
    would only fight their normalisation.

    Args:
        module: parameters that require gradients are taken.
        weight_decay: for the weights of convolutions and linear layers.
        scale: factor on the learning rate by parameter name (layer-wise decay); 1 where None.
        apart: parameters by name that share no group with the others, whatever their scale; none where None.
    """
    groups: dict[tuple[bool, float, bool], dict[str, Any]] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        decays = parameter.ndim > 1 and "prototypes" not in name.split(".")
        factor, is_apart = 1.0 if scale is None else scale(name), apart is not None and apart(name)
        own = {"weight_decay": weight_decay if decays else 0.0, "decays": decays, "lr_scale": factor}
        groups.setdefault((decays, factor, is_apart), {"params": [], **own})["params"].append(parameter)
    return list(groups.values())


def build_optimizer(
    module: nn.Module,
    config: TrainingConfig,
    scale: Callable[[str], float] | None = None,
    apart: Callable[[str], bool] | None = None,
) -> Optimizer:
    """The optimiser of the settings over all trainable parameters, in groups by `parameter_groups`."""
    groups = parameter_groups(module, config.weight_decay, scale, apart)
    betas = (config.momentum, config.beta2)
    if config.optimizer == "sgd":
        nesterov = config.nesterov and config.momentum > 0
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=nesterov)
    if config.optimizer == "larc":
        return Larc(groups, lr=config.lr, momentum=config.momentum)
    if config.optimizer == "lamb":
        return Lamb(groups, lr=config.lr, betas=betas)
    return AdamW(groups, lr=config.lr, betas=betas)


def learning_rate(step: int, config: TrainingConfig) -> float:
    """Linear warm-up, then down along the schedule to ``final_lr`` times the peak.

    A cosine is there at the last step; poly, (1 - e / E)^0.9 at step e of E, one step behind it.

    Args:
        step: 0 for the first update.
        config: steps, lr, schedule, warmup, warmup_start, final_lr, milestones, step_factor.
    """
    warmup = round(config.warmup * config.steps)
    if step < warmup and config.warmup_start is not None:
        return config.lr * (config.warmup_start + (1 - config.warmup_start) * step / warmup)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    if config.schedule == "steps":
        passed = sum(step >= round(share * config.steps) for share in config.milestones)
        return config.lr * config.step_factor**passed
    done, behind = step - warmup, config.steps - warmup
    left: float
    if config.schedule == "poly":
        left = (1 - min(1.0, done / max(1, behind))) ** _POWER
    else:
        left = (1 + math.cos(math.pi * min(1.0, done / max(1, behind - 1)))) / 2
    return config.lr * (config.final_lr + (1 - config.final_lr) * left)


def weight_decay(step: int, config: TrainingConfig) -> float:
    """Half a cosine from ``weight_decay`` to ``final_weight_decay``; constant without the latter.

    Args:
        step: 0 for the first update.
        config: steps, weight_decay, final_weight_decay.
    """
    final = config.weight_decay if config.final_weight_decay is None else config.final_weight_decay
    cosine = (1 + math.cos(math.pi * min(1.0, step / max(1, config.steps - 1)))) / 2
    return final + (config.weight_decay - final) * cosine


def set_weight_decay(optimizer: Optimizer, value: float) -> None:
    """Give every group that decays this decay."""
    for group in optimizer.param_groups:
        if group.get("decays", group["weight_decay"] > 0):
            group["weight_decay"] = value


def set_learning_rate(optimizer: Optimizer, value: float) -> None:
    """Give every group ``value`` times its own scale."""
    for group in optimizer.param_groups:
        group["lr"] = value * group.get("lr_scale", 1.0)


class Lamb(Optimizer):
    """Layer-wise adaptive moments: Adam's direction, as long as the weights it changes.

    w <- w - lr * r * u,  u = m_hat / (sqrt(v_hat) + eps) + decay * w,  r = |w| / |u| (1 where either is 0;
    parameters without weight decay keep r = 1, as in the reference code).

    Args:
        params: parameters or groups.
        lr: learning rate.
        betas: decay of the first and second moment.
        eps: added to the root of the second moment.

    You et al., "Large batch optimization for deep learning: training BERT in 76 minutes", 2020, algorithm 2.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        loss = _evaluated(closure)
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["step"] = torch.zeros(())
                    state["exp_avg"] = torch.zeros_like(parameter)
                    state["exp_avg_sq"] = torch.zeros_like(parameter)
                state["step"] += 1
                count = float(state["step"])
                state["exp_avg"].lerp_(parameter.grad, 1 - beta1)
                state["exp_avg_sq"].lerp_(parameter.grad.square(), 1 - beta2)
                first = state["exp_avg"] / (1 - beta1**count)
                second = state["exp_avg_sq"] / (1 - beta2**count)
                update = first / (second.sqrt() + group["eps"])
                ratio = torch.ones((), device=parameter.device)
                if group["weight_decay"] > 0:
                    update = update + group["weight_decay"] * parameter
                    weight_norm, update_norm = parameter.norm(), update.norm()
                    usable = (weight_norm > 0) & (update_norm > 0)
                    ratio = torch.where(usable, weight_norm / update_norm.clamp_min(1e-12), ratio)
                parameter.sub_(update * ratio * group["lr"])
        return loss


class Larc(torch.optim.SGD):
    """Momentum SGD in which the learning rate of every tensor follows its length.

    g <- (g + decay * w) * trust * |w| / (|g| + decay * |w|), then w <- w - lr * momentum(g); as it is where
    |w| or |g| is 0. The form without clipping, that of SwAV.

    Args:
        params: parameters or groups.
        lr: learning rate.
        momentum: plain, not Nesterov's.
        trust: trust coefficient.

    You, Gitman, Ginsburg, "Large batch training of convolutional networks", 2017, equation 6.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.9,
        trust: float = 1e-3,
    ) -> None:
        super().__init__(params, lr=lr, momentum=momentum)
        self.trust = trust

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        loss = _evaluated(closure)
        decays = [group["weight_decay"] for group in self.param_groups]
        for group, decay in zip(self.param_groups, decays, strict=True):
            group["weight_decay"] = 0.0  # it is in the gradient
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                weight_norm, gradient_norm = parameter.norm(), parameter.grad.norm()
                usable = (weight_norm > 0) & (gradient_norm > 0)
                rate = self.trust * weight_norm / (gradient_norm + decay * weight_norm).clamp_min(1e-12)
                adapted = (parameter.grad + decay * parameter) * rate
                parameter.grad.copy_(torch.where(usable, adapted, parameter.grad))
        super().step()
        for group, decay in zip(self.param_groups, decays, strict=True):
            group["weight_decay"] = decay
        return loss


def _evaluated(closure: Callable[[], float] | None) -> float | None:
    """The loss of a closure, if there is one."""
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()
