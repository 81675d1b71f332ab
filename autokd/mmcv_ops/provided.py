"""Importing this module provides mmcv's operators: for ``custom_imports`` in a config of mmengine."""

from autokd.mmcv_ops.provide import provide_mmcv_ops

provide_mmcv_ops()
