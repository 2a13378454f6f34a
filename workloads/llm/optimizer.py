"""The optimizer of a language model, and how it takes what a changed run file says."""

from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from agent.config import Training


def make_optimizer(model: nn.Module, training: Training) -> AdamW:
    """AdamW with weight decay on the matrices only: not on norms and biases."""
    matrices = [param for param in model.parameters() if param.ndim >= 2]
    others = [param for param in model.parameters() if param.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": training.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return AdamW(groups, lr=training.learning_rate, betas=training.betas, fused=True)


def retune(optimizer: Optimizer, scheduler: LambdaLR, training: Training) -> None:
    """Give both what the run file says, whatever a checkpoint has brought back: to the bit the same where it says what
    it said then. `optimizer` as in `make_optimizer`: what decays first, then what does not."""
    for group, decay in zip(optimizer.param_groups, (training.weight_decay, 0.0), strict=True):
        group |= {"weight_decay": decay, "betas": training.betas, "initial_lr": training.learning_rate}
    scheduler.base_lrs = [training.learning_rate for _ in optimizer.param_groups]
    rates = [training.learning_rate * factor(scheduler.last_epoch) for factor in scheduler.lr_lambdas]
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    scheduler._last_lr = list(rates)
