_base_ = "_base.py"
model = dict(
    type="YOLOX",
    data_preprocessor=dict(
        type="DetDataPreprocessor",
        pad_size_divisor=32,
        batch_augments=[dict(type="BatchSyncRandomResize", random_size_range=(480, 800), size_divisor=32, interval=1)],
    ),
    backbone=dict(type="CSPDarknet", deepen_factor=0.33, widen_factor=0.125, out_indices=(2, 3, 4)),
    neck=dict(type="YOLOXPAFPN", in_channels=[32, 64, 128], out_channels=16, num_csp_blocks=1),
    bbox_head=dict(
        type="YOLOXHead", num_classes=80, in_channels=16, feat_channels=16, stacked_convs=1, strides=(8, 16, 32)
    ),
    train_cfg=dict(assigner=dict(type="SimOTAAssigner", center_radius=2.5)),
    test_cfg=dict(score_thr=0.0, max_per_img=100, nms=dict(type="nms", iou_threshold=0.65)),
)
