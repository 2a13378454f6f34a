# saves with torch DCP and `spot_training.dcp.StorageWriter`, and spoils the save at once
# Group: Whose save it is
# Promise: what it saved: the agent holds it before `dcp.save` returns
# Expect: step-2/.metadata step-2/__0_0.distcp=PK step=2
# How: window=8

import torch
import torch.distributed.checkpoint as dcp
from spot_training.dcp import StorageWriter
from told import SAVES, train_for, train_until_told

writer = StorageWriter(SAVES, sync_files=False)
dcp.save({"weights": torch.ones(1000)}, checkpoint_id="step-1", storage_writer=writer)
train_until_told()
dcp.async_save({"weights": torch.ones(1000)}, checkpoint_id="step-2", storage_writer=writer).result()
(SAVES / "step-2/__0_0.distcp").write_text("spoiled")
train_for(60)
