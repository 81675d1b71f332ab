"""The operators of mmcv's compiled extension, supplied by torchvision's if that extension is absent.

``onedl-mmcv`` installs as pure Python; MMDetection imports ``mmcv._ext``, which only a compiler makes.
``provide_mmcv_ops()`` puts a module of that name in its place, unless a real one can be imported:

    from autokd.mmcv_ops import provide_mmcv_ops

    provide_mmcv_ops()          # before the first ``import mmdet.models`` or ``import mmcv.ops``

In processes that AutoKD does not start: ``custom_imports = dict(imports=["autokd.mmcv_ops.provided"])`` in the config,
which mmengine imports when it reads it (``tools/train.py``, ``init_detector``), or, with no change to any file,
``python -m autokd.mmcv_ops tools/test.py config.py ...``.

Importing this package loads neither torch nor mmcv.
"""

from autokd.mmcv_ops.provide import operators_state, provide_mmcv_ops

__all__ = ["operators_state", "provide_mmcv_ops"]
