_base_ = "_base.py"
deformable_neck = dict(
    type="ChannelMapper",
    in_channels=[16, 32, 64],
    kernel_size=1,
    out_channels=16,
    act_cfg=None,
    norm_cfg=dict(type="GN", num_groups=4),
    num_outs=4,
)
deformable_backbone = dict(
    type="ResNet",
    depth=18,
    base_channels=8,
    num_stages=4,
    out_indices=(1, 2, 3),
    frozen_stages=-1,
    norm_cfg=dict(type="BN", requires_grad=False),
    norm_eval=True,
    style="pytorch",
)
encoder_layer = dict(
    self_attn_cfg=dict(embed_dims=16, num_heads=2, num_levels=4, num_points=2, batch_first=True),
    ffn_cfg=dict(embed_dims=16, feedforward_channels=32, ffn_drop=0.1),
)
decoder_layer = dict(
    self_attn_cfg=dict(embed_dims=16, num_heads=2, dropout=0.1, batch_first=True),
    cross_attn_cfg=dict(embed_dims=16, num_heads=2, num_levels=4, num_points=2, batch_first=True),
    ffn_cfg=dict(embed_dims=16, feedforward_channels=32, ffn_drop=0.1),
)
query_losses = dict(
    loss_cls=dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=2.0),
    loss_bbox=dict(type="L1Loss", loss_weight=5.0),
    loss_iou=dict(type="GIoULoss", loss_weight=2.0),
)
matching = dict(
    assigner=dict(
        type="HungarianAssigner",
        match_costs=[
            dict(type="FocalLossCost", weight=2.0),
            dict(type="BBoxL1Cost", weight=5.0, box_format="xywh"),
            dict(type="IoUCost", iou_mode="giou", weight=2.0),
        ],
    )
)
