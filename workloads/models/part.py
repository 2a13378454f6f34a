"""Parts that begin with another run's weights: `model.vision.from: gs://BUCKET/PREFIX/RUN_ID@STEP`."""

import torch
from spot_training.tensors import tensors_in
from torch import nn

from agent.checkpoint.components import ComponentError, of_address
from agent.config import Model
from agent.store import StoreError
from workloads.errors import ModelError

_SHOWN = 5


def start_parts(whole: nn.Module, model: Model) -> list[str]:
    """Give each part the weights that the run file asks for; what was done, in words. Where nothing is trained yet
    only: call it where `session.track(...)` gave 0, and never reads a checkpoint that another run has let go since.

    Raises:
        ModelError: a checkpoint is not there or not whole, or a part has other names or shapes there.
    """
    told = []
    for name, address in model.starts.items():
        key = ".".join(filter(None, ("model", name, "from")))
        parts = dict(whole.named_children()) | {"": whole}
        if name not in parts:
            raise ModelError(f"{key}: this trainer's model has no part of that name: leave it out")
        told.append(start_part(parts[name], address, component=name or None, key=key))
    return told


def start_part(part: nn.Module, address: str, *, component: str | None, key: str) -> str:
    """Load `part` from the component of that name in the checkpoint at `address`, or from all of a model that has no
    such part: a language model that was trained by itself. Nothing is changed where not all of it fits. `key`: the run
    file's, for the sentences. Raises ModelError."""
    try:
        checkpoint = of_address(address)
        whole = len(checkpoint.modules) == 1 and checkpoint.modules[0] in checkpoint.configs
        path = checkpoint.find(None if whole else component)
        slots = checkpoint.below(path)
        ours = _tensors(part)
        wrong = [f"{address} has no {name}" for name in sorted(ours.keys() - slots.keys())]
        wrong += [f"there is no {path}.{name} here" for name in sorted(slots.keys() - ours.keys())]
        for name in sorted(ours.keys() & slots.keys()):
            if (there := list(slots[name].shape)) != (here := list(ours[name].shape)):
                wrong.append(f"{name} is {there} there and {here} here")
        if wrong:
            more = f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
            raise ModelError(f"{key}: {'; '.join(wrong[:_SHOWN])}{more}. Write the part as that run had it")
        file, layout = checkpoint.read(slots)
    except (ComponentError, StoreError) as error:
        raise ModelError(f"{key}: {error}") from error
    theirs = tensors_in(file, size=layout.size)
    with torch.no_grad():
        for name, tensor in ours.items():
            tensor.copy_(theirs[name])
    return f"{key.removesuffix('.from')} starts from {address}: {len(ours)} tensors of {path}"


def _tensors(part: nn.Module) -> dict[str, torch.Tensor]:
    """What a checkpoint has of it: what is tied once, and no buffers that are not persistent."""
    kept = part.state_dict(keep_vars=True)
    buffers = {name: buffer for name, buffer in part.named_buffers() if name in kept}
    return dict(part.named_parameters()) | buffers
