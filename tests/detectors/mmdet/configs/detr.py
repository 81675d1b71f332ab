_base_ = "_base.py"
layer = dict(
    self_attn_cfg=dict(embed_dims=16, num_heads=2, dropout=0.1, batch_first=True),
    ffn_cfg=dict(
        embed_dims=16, feedforward_channels=32, num_fcs=2, ffn_drop=0.1, act_cfg=dict(type="ReLU", inplace=True)
    ),
)
model = dict(
    type="DETR",
    num_queries=20,
    data_preprocessor=dict(
        type="DetDataPreprocessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=1,
    ),
    backbone=dict(
        type="ResNet",
        depth=18,
        base_channels=8,
        num_stages=4,
        out_indices=(3,),
        frozen_stages=-1,
        norm_cfg=dict(type="BN", requires_grad=False),
        norm_eval=True,
        style="pytorch",
    ),
    neck=dict(
        type="ChannelMapper", in_channels=[64], kernel_size=1, out_channels=16, act_cfg=None, norm_cfg=None, num_outs=1
    ),
    encoder=dict(num_layers=1, layer_cfg=layer),
    decoder=dict(
        num_layers=2,
        layer_cfg=dict(cross_attn_cfg=layer["self_attn_cfg"], **layer),
        return_intermediate=True,
    ),
    positional_encoding=dict(num_feats=8, normalize=True),
    bbox_head=dict(
        type="DETRHead",
        num_classes=80,
        embed_dims=16,
        loss_cls=dict(type="CrossEntropyLoss", bg_cls_weight=0.1, use_sigmoid=False, loss_weight=1.0, class_weight=1.0),
        loss_bbox=dict(type="L1Loss", loss_weight=5.0),
        loss_iou=dict(type="GIoULoss", loss_weight=2.0),
    ),
    train_cfg=dict(
        assigner=dict(
            type="HungarianAssigner",
            match_costs=[
                dict(type="ClassificationCost", weight=1.0),
                dict(type="BBoxL1Cost", weight=5.0, box_format="xywh"),
                dict(type="IoUCost", iou_mode="giou", weight=2.0),
            ],
        )
    ),
    test_cfg=dict(max_per_img=20),
)
