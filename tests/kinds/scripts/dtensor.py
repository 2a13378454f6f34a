"""A DTensor

Kinds of tensors: is a DTensor: training over several ranks can't be tracked yet
"""

import torch
import torch.distributed as dist
from spot_training import Session
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import distribute_module

torch.manual_seed(0)
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
session = Session.open()
model = distribute_module(nn.Linear(4, 1), init_device_mesh("cpu", (1,)))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
session.track(model=model, optimizer=optimizer)
