_base_ = "_two_stage.py"
model = dict(
    type="FasterRCNN",
    data_preprocessor={{_base_.preprocessor}},
    backbone={{_base_.backbone}},
    neck={{_base_.two_stage_neck}},
    rpn_head={{_base_.rpn_head}},
    roi_head=dict(type="StandardRoIHead", bbox_roi_extractor={{_base_.extractor}}, bbox_head={{_base_.box_head}}),
    train_cfg=dict(rpn={{_base_.rpn_train}}, rpn_proposal={{_base_.rpn_proposal}}, rcnn={{_base_.box_train}}),
    test_cfg=dict(
        rpn={{_base_.rpn_proposal}},
        rcnn=dict(score_thr=0.0, nms=dict(type="nms", iou_threshold=0.5), max_per_img=100),
    ),
)
