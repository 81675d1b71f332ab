"""The user's file: five lines work, and everything wrong is named with its line before anything is trained."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from autokd.config import ResolvedConfig, RunConfig, complete_recipes, config_digest, config_yaml, load_config
from autokd.documents import load_document
from autokd.errors import ConfigError, SpaceError

FIVE_LINES = """\
data: {format: shapes}
teacher:
  backbone: {width: 32}
  train: {}
student: {}
"""


def resolved(more: str = "", text: str = FIVE_LINES) -> ResolvedConfig:
    return complete_recipes(load_config(text + more))


def test_a_file_of_five_lines_works():
    config = load_config(FIVE_LINES)
    assert config.search.sampler == "mcts"
    assert config.proxy.reward == ("val_loss_parts", "cka", "ap")
    assert config.proxy.warm_start is None
    assert config.full.baselines[0] == "none"


def test_the_proxy_trains_as_full_does_where_it_says_nothing_else():
    config = resolved("full: {learning_rate: 0.5, batch_size: 3}\nproxy: {batch_size: 5}\n")
    assert (config.proxy.learning_rate, config.proxy.batch_size, config.proxy.epochs) == (0.5, 5, 2)


@pytest.mark.parametrize(("full", "proxy"), [(8, 4), (9, 4), (16, 8), (3, 2), (2, 2), (1, 1)])
def test_the_proxys_batches_are_half_of_the_full_ones_and_of_two_images_where_these_have_two(full, proxy):
    assert resolved(f"full: {{batch_size: {full}}}\n").proxy.batch_size == proxy


def test_the_warm_start_is_half_of_a_full_training_unless_told_otherwise():
    def warm_start(proxy):
        return resolved(f"full: {{epochs: 9}}\nproxy: {{{proxy}}}\n").proxy.warm_start

    assert warm_start("") is warm_start("warm_start: null") is None
    assert warm_start("warm_start: {}").epochs == 4
    assert warm_start("warm_start: {epochs: 7}").epochs == 7


def test_a_resolved_configuration_reads_back_the_same():
    config = resolved(
        "proxy: {warm_start: null}\nspace: {gradient_ratio: [10, 40]}\nfull: {batch_size: 6, epochs: 3}\n"
    )
    again = complete_recipes(load_config(config_yaml(config)))
    assert again == config
    assert config_yaml(again) == config_yaml(config)
    assert complete_recipes(config) is config


def test_a_configuration_goes_to_other_processes_with_its_space():
    config = resolved("space: {gradient_ratio: [10, 40]}\n")
    config.space.sample(np.random.default_rng(0))
    assert pickle.loads(pickle.dumps(config)) == config


def test_a_configuration_in_python_resolves_as_its_file_does():
    data = load_document(FIVE_LINES).data | {"full": {"learning_rate": 0.5}, "space": {"gradient_ratio": [10, 40]}}
    config = complete_recipes(RunConfig.model_validate(data))
    assert config.proxy.learning_rate == 0.5
    assert config.space == resolved("space: {gradient_ratio: [10, 40]}\n").space
    with pytest.raises(SpaceError, match="space: gradient_ratio"):
        RunConfig.model_validate(data | {"space": {"gradient_ratio": [0]}})


def test_paths_become_absolute_and_coco_is_the_ordinary_format(tmp_path, monkeypatch):
    (tmp_path / "set" / "images").mkdir(parents=True)
    (tmp_path / "set" / "a.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    config = load_config("data: {root: set, train: a.json, val: a.json}\nteacher: {train: {}}\nstudent: {}\n")
    assert config.data.root == tmp_path / "set"


def test_environment_variables_in_a_data_root_are_expanded(tmp_path, monkeypatch):
    (tmp_path / "images").mkdir()
    (tmp_path / "a.json").write_text("{}")
    monkeypatch.setenv("MY_DATA", str(tmp_path))
    config = load_config("data: {root: $MY_DATA, train: a.json, val: a.json}\nteacher: {train: {}}\nstudent: {}\n")
    assert config.data.root == tmp_path


@pytest.mark.parametrize(
    ("old", "new", "place", "found"),
    [
        ("student: {}", "studend: {}", "<text>:5: studend", "Did you mean 'student'?"),
        ("width: 32", "widht: 32", "<text>:3: teacher.backbone.widht", "Did you mean 'width'?"),
        ("shapes", "shape", "<text>:1: data.format", "Did you mean 'shapes'?"),
        ("shapes}", "shapes, nun_train: 3}", "<text>:1: data.nun_train", "Did you mean 'num_train'?"),
        ("train: {}", "train: {epochs: 0}", "<text>:4: teacher.train.epochs", "greater than 0"),
        ("  train: {}\n", "", "<text>:2: teacher", "neither weights nor a training"),
        ("  train: {}", "  checkpoint: absent.pt", "<text>:4: teacher.checkpoint", "no such file"),
        ("student: {}", "student: {framework: keras}", "<text>:5: student.framework", "'keras'"),
        ("student: {}", "student: {architecture: fcoss}", "<text>:5: student.architecture", "Did you mean 'fcos'?"),
        ("format: shapes", "root: nowhere, train: a, val: b", "<text>:1: data.root", "no such folder"),
        ("format: shapes", "root: ~nosuch/x, train: a, val: b", "<text>:1: data.root", "no such folder"),
        ("format: shapes", f"root: {'x' * 10_000}, train: a, val: b", "<text>:1: data.root", "no such folder"),
        ("student: {}", "student: {}\nspace: {gradient_ratio: [0]}", "<text>:6: space.gradient_ratio", "above 0"),
        ("student: {}", "student: {}\nsearch: {enqueue: [pdk]}", "<text>:6: search.enqueue[0]", "Did you mean 'pkd'?"),
        ("student: {}", "student: {}\nfull: {baselines: [non]}", "<text>:6: full.baselines[0]", "Did you mean 'none'?"),
        ("student: {}", "student: {}\nfull: {seeds: []}", "<text>:6: full.seeds", "at least 1 item"),
        ("student: {}", "student: {}\nfull: {seeds: [1, 1]}", "<text>:6: full.seeds", "appears twice"),
        (
            "student: {}",
            "student: {}\nfull: {optimizer: dot}\nruntime: {full_processes: 2}",
            "<text>:7: runtime",
            "Choose one of them",
        ),
        ("student: {}", "student: {}\nruntime: {full_processes: 9}", "<text>:6: runtime", "full.batch_size is 8"),
        (
            "student: {}",
            "student: {framework: mmdet, config: x}\nruntime: {full_processes: 2}",
            "<text>:6: runtime",
            "mmengine's own launcher",
        ),
    ],
)
def test_a_wrong_file_is_refused_with_place_and_remedy(old, new, place, found):
    with pytest.raises(ConfigError) as error:
        load_config(FIVE_LINES.replace(old, new))
    assert place in str(error.value)
    assert found in str(error.value)


def test_every_error_of_a_file_is_told_at_once():
    with pytest.raises(ConfigError) as error:
        load_config(FIVE_LINES.replace("shapes", "shape").replace("student", "studend"))
    assert len(str(error.value).splitlines()) >= 2


def test_a_file_never_executes_code(tmp_path):
    marker = tmp_path / "executed"
    with pytest.raises(ConfigError, match="data only"):
        load_config(f"data: !!python/object/apply:os.mkdir ['{marker}']\nteacher: {{}}\nstudent: {{}}\n")
    assert not marker.exists()


def test_where_boxes_start_is_part_of_the_digest_and_for_fcos_alone():
    plain, one = (resolved(text=FIVE_LINES.replace("student: {}", f"student: {{{start}}}"))
                  for start in ("", "box_init: 1"))  # fmt: skip
    assert config_digest(plain) != config_digest(one)
    assert load_config(config_yaml(one)).student.box_init == 1
    with pytest.raises(ConfigError, match=r"student.*\n?.*box_init, which only fcos has.*leave it out of a retinanet"):
        load_config(FIVE_LINES.replace("student: {}", "student: {architecture: retinanet, box_init: 1}"))
