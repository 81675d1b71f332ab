_base_ = "_base.py"
two_stage_neck = dict(type="FPN", in_channels=[8, 16, 32, 64], out_channels=16, num_outs=5)
rpn_head = dict(
    type="RPNHead",
    in_channels=16,
    feat_channels=16,
    anchor_generator=dict(type="AnchorGenerator", scales=[4], ratios=[0.5, 1.0, 2.0], strides=[4, 8, 16, 32, 64]),
    bbox_coder=dict(type="DeltaXYWHBBoxCoder"),
    loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=True),
    loss_bbox=dict(type="L1Loss"),
)
extractor = dict(
    type="SingleRoIExtractor",
    roi_layer=dict(type="RoIAlign", output_size=7, sampling_ratio=0),
    out_channels=16,
    featmap_strides=[4, 8, 16, 32],
)
box_head = dict(
    type="Shared2FCBBoxHead",
    in_channels=16,
    fc_out_channels=32,
    roi_feat_size=7,
    num_classes=80,
    bbox_coder=dict(type="DeltaXYWHBBoxCoder", target_stds=[0.1, 0.1, 0.2, 0.2]),
    reg_class_agnostic=False,
    loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=False),
    loss_bbox=dict(type="L1Loss"),
)
rpn_train = dict(
    assigner=dict(type="MaxIoUAssigner", pos_iou_thr=0.7, neg_iou_thr=0.3, min_pos_iou=0.3),
    sampler=dict(type="RandomSampler", num=64, pos_fraction=0.5, neg_pos_ub=-1, add_gt_as_proposals=False),
    allowed_border=-1,
    pos_weight=-1,
)
rpn_proposal = dict(nms_pre=200, max_per_img=50, nms=dict(type="nms", iou_threshold=0.7), min_bbox_size=0)
box_train = dict(
    assigner=dict(type="MaxIoUAssigner", pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.5),
    sampler=dict(type="RandomSampler", num=32, pos_fraction=0.25, neg_pos_ub=-1, add_gt_as_proposals=True),
    pos_weight=-1,
)
