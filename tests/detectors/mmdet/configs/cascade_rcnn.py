_base_ = "_two_stage.py"
model = dict(
    type="CascadeRCNN",
    data_preprocessor={{_base_.preprocessor}},
    backbone={{_base_.backbone}},
    neck={{_base_.two_stage_neck}},
    rpn_head={{_base_.rpn_head}},
    roi_head=dict(
        type="CascadeRoIHead",
        num_stages=2,
        stage_loss_weights=[1, 0.5],
        bbox_roi_extractor={{_base_.extractor}},
        bbox_head=[
            dict(
                type="Shared2FCBBoxHead",
                in_channels=16,
                fc_out_channels=32,
                roi_feat_size=7,
                num_classes=80,
                bbox_coder=dict(type="DeltaXYWHBBoxCoder", target_stds=[std, std, 2 * std, 2 * std]),
                reg_class_agnostic=True,
                loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=False),
                loss_bbox=dict(type="SmoothL1Loss", beta=1.0),
            )
            for std in (0.1, 0.05)
        ],
    ),
    train_cfg=dict(
        rpn={{_base_.rpn_train}},
        rpn_proposal={{_base_.rpn_proposal}},
        rcnn=[
            dict(
                assigner=dict(type="MaxIoUAssigner", pos_iou_thr=iou, neg_iou_thr=iou, min_pos_iou=iou),
                sampler=dict(type="RandomSampler", num=32, pos_fraction=0.25, neg_pos_ub=-1, add_gt_as_proposals=True),
                pos_weight=-1,
            )
            for iou in (0.5, 0.6)
        ],
    ),
    test_cfg=dict(
        rpn={{_base_.rpn_proposal}},
        rcnn=dict(score_thr=0.0, nms=dict(type="nms", iou_threshold=0.5), max_per_img=100),
    ),
)
