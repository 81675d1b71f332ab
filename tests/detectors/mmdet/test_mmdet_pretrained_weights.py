"""Weights that a config names are data: a pickle in them is not run, and downloads come from the zoo's hosts alone."""

from __future__ import annotations

import functools
import http.server
import threading

import pytest
import torch

from autokd.config import MmdetDetector
from autokd.detectors.mmdet import build_mmdet_model
from autokd.detectors.mmdet.library import require_mmdet
from autokd.detectors.mmdet.pretrained_weights import inert_weights, is_zoo_address
from autokd.errors import DetectorError
from tests.support.mmdet_cases import CONFIGS


class Payload:
    """A pickle that writes a file when it is read by an ordinary unpickler."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.fixture
def spoiled(tmp_path):
    """Return a checkpoint with true weights of the backbone beside a payload, and the file that the payload writes."""
    require_mmdet()
    from mmdet.models import ResNet

    backbone = ResNet(depth=18, base_channels=8)
    torch.manual_seed(5)
    weights = {name: torch.randn_like(v) if v.is_floating_point() else v for name, v in backbone.state_dict().items()}
    sign = tmp_path / "RUN"
    folder = tmp_path / "served"
    folder.mkdir()
    torch.save({"state_dict": weights, "payload": Payload(sign)}, folder / "evil.pth")
    return folder / "evil.pth", sign, weights


def _model(folder, weights):
    config = folder / "student.py"
    init = f"dict(type='Pretrained', checkpoint={str(weights)!r})"
    config.write_text(f"_base_ = {str(CONFIGS / 'retinanet.py')!r}\nmodel = dict(backbone=dict(init_cfg={init}))\n")
    return build_mmdet_model(MmdetDetector(framework="mmdet", config=str(config)), 5)


def test_the_payload_of_these_tests_runs_where_nothing_guards(spoiled):
    path, sign, _ = spoiled
    torch.load(path, weights_only=False)
    assert sign.exists()


def test_weights_of_a_file_are_loaded_and_code_in_it_is_not_run(spoiled, tmp_path):
    path, sign, weights = spoiled
    loaded = _model(tmp_path, path).backbone.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in weights.items())
    assert not sign.exists()
    assert torch.load.__module__ == "torch.serialization"  # the guard has gone


def test_weights_of_a_foreign_host_are_refused_before_a_download(spoiled, tmp_path, monkeypatch):
    path, sign, _ = spoiled
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=path.parent))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with pytest.raises(DetectorError, match=r"not on a host of MMDetection's zoo"):
            _model(tmp_path, f"http://127.0.0.1:{server.server_address[1]}/evil.pth")
    finally:
        server.shutdown()
        server.server_close()
    assert asked == []
    assert not sign.exists()


def test_a_download_that_is_there_already_is_read_as_data(spoiled, tmp_path, monkeypatch):
    path, sign, weights = spoiled
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    cached = tmp_path / "torch" / "hub" / "checkpoints" / "resnet18-of-tests.pth"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(path.read_bytes())
    loaded = _model(tmp_path, "https://download.pytorch.org/models/resnet18-of-tests.pth").backbone.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in weights.items())
    assert not sign.exists()


def test_an_empty_file_of_weights_is_an_error_of_autokds(tmp_path):
    (tmp_path / "empty.pth").write_bytes(b"")
    with pytest.raises(DetectorError, match="MMDetection cannot build this model"):
        _model(tmp_path, tmp_path / "empty.pth")


def test_other_functions_of_torch_are_guarded_too(tmp_path):
    with inert_weights(), pytest.raises(OSError, match="Download the file yourself"):
        torch.hub.load_state_dict_from_url("https://example.org/a.pth", model_dir=str(tmp_path))


@pytest.mark.parametrize(
    ("url", "is_zoo"),
    [
        ("https://download.pytorch.org/models/resnet50-11ad3fa6.pth", True),
        ("http://mmassets.onedl.ai/mmdetection/v2.0/a.pth", True),
        ("https://github.com/SwinTransformer/storage/releases/download/v1.0.0/swin.pth", True),
        ("https://github.com/someone/else/releases/a.pth", False),
        ("https://github.com/SwinTransformer/storage-of-evil/a.pth", False),
        ("https://github.com/SwinTransformer/storage/../../evil/a.pth", False),
        ("https://download.pytorch.org.evil.example/a.pth", False),
        ("https://download.pytorch.org@evil.example/a.pth", False),
        ("https://download.pytorch.org:8080/a.pth", False),
        ("https://download.pytorch.org:x/a.pth", False),
        ("ftp://download.pytorch.org/a.pth", False),
        ("file:///etc/passwd", False),
    ],
)
def test_hosts_of_the_zoo_are_told_apart(url, is_zoo):
    assert is_zoo_address(url) is is_zoo


def test_every_address_in_the_zoos_configs_is_one_of_its_hosts():
    """Independent of our list: addresses of weights as mmdet's and mmengine's installed files have them."""
    import re
    from pathlib import Path

    import mmdet
    import mmengine

    texts = [p.read_text() for p in (Path(mmdet.__file__).parent / ".mim" / "configs").rglob("*.py")]
    texts += [p.read_text() for p in (Path(mmengine.__file__).parent / "hub").glob("*.json")]
    found = {url for text in texts for url in re.findall(r"https?://[^\s'\"]+\.pth(?=['\"])", text)}
    assert len(found) > 50
    assert [url for url in found if not is_zoo_address(url)] == []
