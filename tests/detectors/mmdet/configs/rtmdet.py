_base_ = "_base.py"
model = dict(
    type="RTMDet",
    data_preprocessor=dict(
        type="DetDataPreprocessor", mean=[103.53, 116.28, 123.675], std=[57.375, 57.12, 58.395], pad_size_divisor=32
    ),
    backbone=dict(
        type="CSPNeXt",
        arch="P5",
        expand_ratio=0.5,
        deepen_factor=0.167,
        widen_factor=0.125,
        norm_cfg=dict(type="BN"),
        act_cfg=dict(type="SiLU"),
    ),
    neck=dict(
        type="CSPNeXtPAFPN",
        in_channels=[32, 64, 128],
        out_channels=16,
        num_csp_blocks=1,
        expand_ratio=0.5,
        norm_cfg=dict(type="BN"),
        act_cfg=dict(type="SiLU"),
    ),
    bbox_head=dict(
        type="RTMDetSepBNHead",
        num_classes=80,
        in_channels=16,
        stacked_convs=1,
        feat_channels=16,
        anchor_generator=dict(type="MlvlPointGenerator", offset=0, strides=[8, 16, 32]),
        bbox_coder=dict(type="DistancePointBBoxCoder"),
        loss_cls=dict(type="QualityFocalLoss", use_sigmoid=True, beta=2.0),
        loss_bbox=dict(type="GIoULoss", loss_weight=2.0),
        with_objectness=False,
        exp_on_reg=True,
        share_conv=True,
        pred_kernel_size=1,
        norm_cfg=dict(type="BN"),
        act_cfg=dict(type="SiLU"),
    ),
    train_cfg=dict(assigner=dict(type="DynamicSoftLabelAssigner", topk=13), allowed_border=-1, pos_weight=-1),
    test_cfg=dict(nms_pre=1000, score_thr=0.0, nms=dict(type="nms", iou_threshold=0.65), max_per_img=100),
)
