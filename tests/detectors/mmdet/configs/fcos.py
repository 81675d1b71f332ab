_base_ = "_base.py"
model = dict(
    type="FCOS",
    data_preprocessor=dict(
        type="DetDataPreprocessor", mean=[102.9801, 115.9465, 122.7717], std=[1.0, 1.0, 1.0], pad_size_divisor=32
    ),
    backbone={{_base_.backbone}},
    neck={{_base_.neck}},
    bbox_head=dict(
        type="FCOSHead",
        num_classes=80,
        in_channels=16,
        stacked_convs=1,
        feat_channels=16,
        strides=[8, 16, 32, 64, 128],
        norm_on_bbox=True,
        centerness_on_reg=True,
        center_sampling=True,
        norm_cfg=dict(type="GN", num_groups=4),
        loss_bbox=dict(type="GIoULoss"),
    ),
    test_cfg=dict(nms_pre=1000, score_thr=0.0, nms=dict(type="nms", iou_threshold=0.5), max_per_img=100),
)
