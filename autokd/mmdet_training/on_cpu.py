"""Several processes of mmengine's Runner without a GPU: imported, this module joins them by gloo.

mmengine's launcher asks for a GPU, unless torch.distributed is initialized already. So with

    custom_imports = dict(imports=["autokd.mmdet_training", "autokd.mmdet_training.on_cpu"])
    model_wrapper_cfg = dict(type="MMDistributedDataParallel", device_ids=None, broadcast_buffers=False)

in the config, ``torchrun ... tools/train.py distilled.py --launcher pytorch`` trains on CPUs. If there is a GPU, or
torchrun has not started the process, the import does nothing.
"""

from __future__ import annotations

import atexit

import torch
from torch import distributed


def meet_on_cpu() -> bool:
    """Join the processes that torchrun started, by gloo; return whether that was done."""
    if torch.cuda.is_available() or distributed.is_initialized() or not distributed.is_torchelastic_launched():
        return False
    distributed.init_process_group("gloo")
    atexit.register(_part)
    return True


def _part() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()


meet_on_cpu()
