"""Which decoder reads images: the card's where it works, with a message where it does not. No card is needed here."""

from __future__ import annotations

import io
import json
import logging
import re

import numpy as np
import pytest
import torch
from PIL import Image

from autokd.config import CocoData
from autokd.data import load_datasets
from autokd.data.pixel_readers import CardReader, HostReader, choose_reader, resampled

CPU, CARD = torch.device("cpu"), torch.device("cuda", 0)


def decode_by_pillow(data):
    """Stand in for a card's decoder, on the host."""
    with Image.open(io.BytesIO(data.numpy().tobytes())) as image:
        if image.mode not in ("RGB", "L"):
            raise RuntimeError("four channels")
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def no_nvjpeg(device):
    def decode(data):
        raise RuntimeError("torchvision was not compiled with nvJPEG support\nsecond line")

    return decode


def test_the_card_decodes_where_it_can(caplog):
    assert isinstance(choose_reader("gpu", CARD, lambda device: decode_by_pillow), CardReader)
    assert isinstance(choose_reader("cpu", CARD, lambda device: decode_by_pillow), HostReader)
    assert not caplog.records


@pytest.mark.parametrize(
    ("device", "decoder_of", "why"),
    [
        (CPU, lambda device: decode_by_pillow, "trainings run on the cpu"),
        (CARD, no_nvjpeg, "not compiled with nvJPEG support\\).*Install torchvision's build for CUDA"),
        (CARD, lambda device: lambda data: torch.zeros(1, 8, 8), "found \\(1, 8, 8\\)"),
    ],
)
def test_pillow_decodes_with_a_message_where_the_card_cannot(device, decoder_of, why, caplog):
    with caplog.at_level(logging.WARNING):
        assert isinstance(choose_reader("gpu", device, decoder_of), HostReader)
    (record,) = caplog.records
    assert re.search(why, record.getMessage())


@pytest.fixture
def folder(tmp_path):
    """A set of a color JPEG, a gray one, one of four channels, one that is scaled into its frame, and a PNG."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (5, 6, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)  # 40 x 48
    color = Image.fromarray(pixels)
    images = {
        "color.jpg": color, "gray.jpg": color.convert("L"), "four.jpg": color.convert("CMYK"),
        "half.jpg": color.resize((24, 20)), "color.png": color,
    }  # fmt: skip
    entries = []
    for number, (name, image) in enumerate(images.items(), start=1):
        image.save(tmp_path / name)
        entries.append({"id": number, "file_name": name, "width": 48, "height": 40})
    boxes = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 3, 20, 20], "area": 400, "iscrowd": 0}]
    coco = {"images": entries, "annotations": boxes, "categories": [{"id": 1, "name": "cell"}]}
    (tmp_path / "all.json").write_text(json.dumps(coco))
    return tmp_path


def test_a_set_read_by_the_card_has_pillows_pixels_and_what_it_cannot_read_is_read_by_pillow(folder, tmp_path):
    data = CocoData(root=folder, images=".", train="all.json", val="all.json", image_size_px=(64, 64))
    dataset = load_datasets(data, tmp_path / "cache", check=False, memory_limit_bytes=0).train
    by_pillow = [dataset.load(index).pixels_CHW for index in range(5)]
    decoded = []

    def decode(data):
        decoded.append(decode_by_pillow(data))
        return decoded[-1]

    dataset.reader = CardReader(CPU, decode)
    for index, expected in enumerate(by_pillow):
        difference = (dataset.load(index).pixels_CHW.int() - expected.int()).abs()
        assert int(difference.max()) <= 1
    assert len(decoded) == 3  # not the PNG, not four channels
    assert dataset.at_size((32, 32)).reader is dataset.reader


def test_a_jpeg_that_is_cut_short_is_an_error_and_not_gray(folder, tmp_path):
    path = folder / "color.jpg"
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(Exception, match="cannot be read"):
        CardReader(CPU, decode_by_pillow)(path, (40, 48), (40, 48), 8)


def test_scaling_on_a_card_rounds_as_the_hosts_filter_does():
    pixels = torch.from_numpy(np.random.default_rng(1).integers(0, 255, (3, 40, 48), dtype=np.uint8))
    on_meta = resampled(pixels.to("meta"), (20, 30), antialias=True)
    assert (on_meta.shape, on_meta.dtype) == ((3, 20, 30), torch.uint8)
    assert resampled(pixels, (40, 48), antialias=True) is pixels
