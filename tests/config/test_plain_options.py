"""Options of MMDetection's configs are data: what could name, load or import something is refused with its line."""

from __future__ import annotations

import json

import pytest

from autokd.config import load_config
from autokd.errors import ConfigError

TEXT = """
data: {{format: shapes}}
teacher: {{train: {{epochs: 3}}}}
student:
  framework: mmdet
  config: retinanet_r18_fpn_1x_coco
  options: {options}
"""


@pytest.mark.parametrize(
    "options",
    [
        '{model.neck: {_delete_: true, type: subprocess.check_output, args: "id > PWNED", shell: true}}',
        "{model.neck.type: subprocess.check_output}",
        "{model.neck._delete_: true}",
        "{model.neck._scope_: os}",
        "{_base_: evil}",
        "{model.backbone.init_cfg: {type: Pretrained, checkpoint: http://host/evil.pth}}",
        "{model.backbone.init_cfg.checkpoint: evil}",
        "{model.backbone.pretrained: evil}",
        "{load_from: evil}",
        "{model.teacher_config: evil}",
        "{model.teacher_ckpt: evil}",
        "{custom_imports.imports: [evil]}",
        "{custom_hooks: [evil]}",
        "{default_scope: evil}",
        "{model.neck.norm: os.system}",
        "{model.neck.norm: ./evil}",
        "{model.neck.norm: http://host}",
        '{model.neck.norm: ""}',
        "{model.neck.norm: [on_input, {type: x}]}",
        "{model.neck.norm: [[[[[1]]]]]}",
        "{model.neck.norm: .inf}",
        '{"model..neck": 3}',
        '{"": 3}',
        '{"model.__class__": 3}',
    ],
)
def test_an_option_that_is_more_than_data_is_refused(options):
    with pytest.raises(ConfigError, match=r":7: student\.options: "):
        load_config(TEXT.format(options=options))


@pytest.mark.parametrize(
    "options",
    [
        {"model.neck.out_channels": 64},
        {"model.neck.add_extra_convs": "on_output"},
        {"model.neck.in_channels": [4, 8, 16, 32]},
        {"model.bbox_head.anchor_generator.scales": [[1.5, 2.0], [3.0]]},
        {"model.backbone.norm_eval": False},
        {"model.backbone.frozen_stages": -1},
        {"model.backbone.init_cfg": None},
        {"model.roi_head.bbox_head.0.num_classes": 2},
    ],
)
def test_numbers_and_words_are_options(options):
    assert load_config(TEXT.format(options=json.dumps(options))).student.options == options
