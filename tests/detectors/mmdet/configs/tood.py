_base_ = "_base.py"
model = dict(
    type="TOOD",
    data_preprocessor={{_base_.preprocessor}},
    backbone={{_base_.backbone}},
    neck={{_base_.neck}},
    bbox_head=dict(
        type="TOODHead",
        num_classes=80,
        in_channels=16,
        stacked_convs=2,
        feat_channels=16,
        norm_cfg=dict(type="GN", num_groups=4),
        anchor_type="anchor_free",
        anchor_generator=dict(
            type="AnchorGenerator", ratios=[1.0], octave_base_scale=4, scales_per_octave=1, strides=[8, 16, 32, 64, 128]
        ),
        initial_loss_cls=dict(type="FocalLoss", use_sigmoid=True, activated=True),
        loss_cls=dict(type="QualityFocalLoss", use_sigmoid=True, activated=True, beta=2.0),
        loss_bbox=dict(type="GIoULoss", loss_weight=2.0),
    ),
    train_cfg=dict(
        initial_epoch=0,
        initial_assigner=dict(type="ATSSAssigner", topk=9),
        assigner=dict(type="TaskAlignedAssigner", topk=13),
        alpha=1,
        beta=6,
        allowed_border=-1,
        pos_weight=-1,
    ),
    test_cfg=dict(nms_pre=1000, score_thr=0.0, nms=dict(type="nms", iou_threshold=0.6), max_per_img=100),
)
