"""A ResNet-18 of an eighth of its width under a pyramid of 16 channels, p3 to p7; colors as in MMDetection's zoo."""

default_scope = "mmdet"
backbone = dict(
    type="ResNet",
    depth=18,
    base_channels=8,
    num_stages=4,
    out_indices=(0, 1, 2, 3),
    frozen_stages=-1,
    norm_cfg=dict(type="BN", requires_grad=True),
    norm_eval=False,
    style="pytorch",
)
neck = dict(
    type="FPN",
    in_channels=[8, 16, 32, 64],
    out_channels=16,
    start_level=1,
    add_extra_convs="on_output",
    num_outs=5,
)
preprocessor = dict(
    type="DetDataPreprocessor",
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True,
    pad_size_divisor=32,
)
test_dataloader = dict(dataset=dict(type="CocoDataset", pipeline=[]))
