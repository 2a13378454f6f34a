"""A loop that saves with torch's distributed checkpoint (DCP): beside the training, and at once when it is told."""

import signal
import time

import torch
import torch.distributed.checkpoint as dcp
from spot_training.dcp import StorageReader, StorageWriter
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

STEPS, EVERY = 200, 40

told = []
signal.signal(signal.SIGUSR1, lambda *_: told.append(True))

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Dropout(0.1), nn.Linear(256, 8))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)


def state(step: int) -> dict:
    weights, moments = get_state_dict(model, optimizer)
    return {"model": weights, "optimizer": moments, "random": torch.get_rng_state(), "step": torch.tensor(step)}


reader, writer = StorageReader("saves"), StorageWriter("saves")
step, saving = 0, None
if reader.newest:
    found = state(0)
    dcp.load(found, storage_reader=reader)
    set_state_dict(model, optimizer, model_state_dict=found["model"], optim_state_dict=found["optimizer"])
    torch.set_rng_state(found["random"])
    step = int(found["step"])
print(f"begins at step {step}", flush=True)
while step < STEPS:
    rows = torch.randn(64, 64)
    loss = nn.functional.cross_entropy(model(rows), rows.argmax(1) % 8)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    step += 1
    time.sleep(0.05)  # so that it takes long enough to be taken away
    if told or step % EVERY == 0 or step == STEPS:
        if saving:
            saving.result()  # one at a time
            saving = None
        if told or step == STEPS:
            told.clear()
            dcp.save(state(step), checkpoint_id=f"step-{step}", storage_writer=writer)
        else:
            saving = dcp.async_save(state(step), checkpoint_id=f"step-{step}", storage_writer=writer)
