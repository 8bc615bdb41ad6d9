"""Pictures as they are: many bits, many bands, odd files. Values are compared with those that were put in."""

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from fixtures.layouts import make, picture, splits
from PIL import Image, PngImagePlugin

from fadrm_hf.config import SourceConfig
from fadrm_hf.data.sources import Source, images, load_source
from fadrm_hf.data.sources.tiff import read_tiff
from fadrm_hf.errors import ConfigError, SourceError

RNG = np.random.default_rng(0)


def tiff(values: np.ndarray, photometric: int = 1, extra: tuple[int, ...] = (), **how: int) -> bytes:
    """A TIFF of (H, W, bands) as other programs write it: strips of two rows, or tiles; apart or together."""
    height, width, bands = values.shape
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    pack = zlib.compress if how.get("compression") == 8 else bytes
    planes = [values[:, :, band : band + 1] for band in range(bands)] if how.get("planar") == 2 else [values]
    if side := how.get("tile"):
        padded = [np.pad(plane, ((0, -height % side), (0, -width % side), (0, 0))) for plane in planes]
        parts = [plane[top : top + side, left : left + side] for plane in padded
                 for top in range(0, plane.shape[0], side) for left in range(0, plane.shape[1], side)]  # fmt: skip
    else:
        parts = [plane[top : top + 2] for plane in planes for top in range(0, height, 2)]
    if how.get("predictor") == 2:
        parts = [np.diff(part, axis=1, prepend=np.zeros_like(part[:, :1])) for part in parts]
    packed = [pack(part.tobytes()) for part in parts]
    starts = [8 + sum(map(len, packed[:place])) for place in range(len(packed))]
    offsets, lengths = (324, 325) if side else (273, 279)
    tags = {
        256: (width,), 257: (height,), 258: (values.itemsize * 8,) * bands, 259: (how.get("compression", 1),),
        262: (photometric,), 277: (bands,), 284: (how.get("planar", 1),), 317: (how.get("predictor", 1),),
        339: (kind,) * bands, offsets: tuple(starts), lengths: tuple(map(len, packed)),
    }  # fmt: skip
    tags |= {338: extra} if extra else {}
    tags |= {322: (side,), 323: (side,)} if side else {278: (2,)}
    place = 8 + sum(map(len, packed))
    inner = place + 2 + 12 * len(tags) + 4
    entries, data = b"", b""
    for tag, numbers in sorted(tags.items()):
        content = struct.pack(f"<{len(numbers)}I", *numbers)
        at = content if len(numbers) == 1 else struct.pack("<I", inner + len(data))
        data += b"" if len(numbers) == 1 else content
        entries += struct.pack("<HHI", tag, 4, len(numbers)) + at
    head = b"II*\0" + struct.pack("<I", place)
    return head + b"".join(packed) + struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0) + data


def deep_png(values: np.ndarray) -> bytes:
    """A PNG of (H, W, bands) with 16 bits in each band, which Pillow does not write."""
    height, width, bands = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[bands], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    parts = [struct.pack(">I", len(part)) + kind + part + struct.pack(">I", zlib.crc32(kind + part))
             for kind, part in chunks]  # fmt: skip
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def of_images(root: Path, contents: list[bytes], **settings: object) -> Source:
    """A source of these images, in two classes."""
    files = {f"train/{'ab'[at % 2]}/{at}.tif": content for at, content in enumerate(contents)}
    return load_source(SourceConfig(name=str(make(root, files)), size=8, **settings))


def grey(source: Source, row: int) -> np.ndarray:
    return np.asarray(source.image("train", row))[:, :, 0]


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.rint((values.astype(np.float64).clip(low, high) - low) * 255 / (high - low)).astype(np.uint8)


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [
        (RNG.integers(0, 4096, (8, 8)).astype(np.uint16), 0, 4095),
        (RNG.integers(0, 1024, (8, 8)).astype(np.uint16), 0, 1023),
        (RNG.integers(0, 256, (8, 8)).astype(np.int32), 0, 255),
        (RNG.integers(-1000, 3000, (8, 8)).astype(np.int32), None, None),
        (RNG.random((8, 8)).astype(np.float32), 0, 1),
        (RNG.random((8, 8)).astype(np.float32) * 250, 0, 255),
        (RNG.normal(size=(8, 8)).astype(np.float32), None, None),
    ],
    ids=["12-bit", "10-bit", "int32", "hounsfield", "fractions", "floats", "negative"],
)
def test_the_range_of_deep_images_is_measured_said_and_can_be_set(values, low, high, tmp_path):
    values[0, 0], values[0, 1] = values.max(), values.min()
    low, high = (values.min(), values.max()) if low is None else (low, high)
    contents = [saved(Image.fromarray(values), "TIFF")] * 2
    source = of_images(tmp_path / "a", contents)
    assert np.abs(grey(source, 0).astype(int) - scaled(values, low, high)).max() <= (values.dtype.kind == "f")
    assert source.report.value_range == pytest.approx((low, high))
    assert any("is black" in text for _, text in source.report.lines())
    chosen = of_images(tmp_path / "b", contents, value_range=(float(low), float(high) * 2))
    assert np.abs(grey(chosen, 0).astype(int) - scaled(values, low, high * 2)).max() <= (values.dtype.kind == "f")
    assert chosen.fingerprint != source.fingerprint


def test_whole_sixteen_bits_are_as_they_were(tmp_path):
    values = RNG.integers(0, 65536, (8, 8)).astype(np.uint16)
    values[0, 0] = 65535
    source = of_images(tmp_path, [saved(Image.fromarray(values), "PNG")] * 2)
    assert source.report.value_range is None
    assert np.array_equal(grey(source, 0), np.rint(values / 257).astype(np.uint8))


@pytest.mark.parametrize(
    "how", [{}, {"planar": 2}, {"compression": 8, "predictor": 2}, {"tile": 16, "compression": 8}]
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_bands_are_chosen_by_their_number(how, dtype, tmp_path):
    if how.get("predictor") and dtype is np.float32:
        pytest.skip("the horizontal predictor is for whole numbers")
    values = RNG.integers(0, 256, (7, 9, 6)).astype(dtype)
    values[0, 0] = 255
    contents = [tiff(values, **how)] * 2
    assert np.array_equal(read_tiff(contents[0]), values)
    with pytest.raises(SourceError, match=r"6 bands.*--source.bands"):
        of_images(tmp_path / "a", contents).pixels("train", [0])
    source = of_images(tmp_path / "b", contents, bands=(4, 2, 0))
    assert np.array_equal(np.asarray(source.image("train", 0)), values[:, :, [4, 2, 0]].astype(np.uint8))
    assert any("bands [4, 2, 0]" in text for _, text in source.report.lines())
    with pytest.raises(SourceError, match="6 bands, counted from 0"):
        of_images(tmp_path / "c", contents, bands=(7, 0, 1)).image("train", 0)


@pytest.mark.parametrize("size", [(5, 7), (90, 70)])
def test_lzw_is_what_pillow_packs(size):
    values = RNG.integers(0, 20, (*size, 3)).astype(np.uint8)
    values[:3] = 9
    assert np.array_equal(read_tiff(saved(Image.fromarray(values), "TIFF", compression="tiff_lzw")), values)
    assert np.array_equal(read_tiff(saved(Image.fromarray(values), "TIFF", compression="packbits")), values)


@pytest.mark.parametrize("extra", [(), (0,)], ids=["not said", "unspecified"])
def test_a_fourth_band_is_not_transparency(extra, tmp_path):
    values = RNG.integers(0, 256, (8, 8, 4)).astype(np.uint8)
    source = of_images(tmp_path, [tiff(values, 2, extra)] * 2)
    assert np.array_equal(np.asarray(source.image("train", 0)), values[:, :, :3])
    clear = Image.fromarray(np.zeros((8, 8, 4), np.uint8))
    assert images.decode(saved(clear, "TIFF")).getpixel((0, 0)) == (255, 255, 255)


def test_deep_colours_of_a_tiff_keep_their_bits(tmp_path):
    values = RNG.integers(0, 4096, (8, 8, 3)).astype(np.uint16)
    values[0, 0] = 4095
    source = of_images(tmp_path, [tiff(values, 2)] * 2)
    assert np.array_equal(np.asarray(source.image("train", 0)), scaled(values, 0, 4095))


@pytest.mark.parametrize("bands", [2, 3, 4])
def test_deep_colours_of_a_png_keep_their_bits(bands, tmp_path):
    values = RNG.integers(0, 4096, (8, 8, bands)).astype(np.uint16)
    values[0, 0] = 4095
    if bands != 3:
        values[:, :, -1] = 65535
        values[1, 1, -1] = 0
    source = of_images(tmp_path, [deep_png(values)] * 2)
    assert source.report.value_range == (0, 4095)
    expected = scaled(values[:, :, :1].repeat(3, 2) if bands == 2 else values[:, :, :3], 0, 4095)
    expected[1, 1] = expected[1, 1] if bands == 3 else 255
    assert np.array_equal(np.asarray(source.image("train", 0)), expected)


def test_a_png_of_whole_sixteen_bits_is_as_pillow_reads_it(tmp_path):
    values = RNG.integers(0, 65536, (8, 8, 3)).astype(np.uint16)
    values[0, 0] = 65535
    source = of_images(tmp_path, [deep_png(values)] * 2)
    assert source.report.value_range is None
    assert np.array_equal(np.asarray(source.image("train", 0)), (values >> 8).astype(np.uint8))


def test_text_in_a_png_is_passed_over():
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", "x" * 3_000_000, zip=True)
    assert images.decode(saved(Image.new("RGB", (4, 2), (9, 8, 7)), "PNG", pnginfo=text)).getpixel((0, 0)) == (9, 8, 7)


def test_an_exif_tag_of_another_kind_keeps_the_orientation():
    exif = Image.Exif()
    exif[0x0112] = 6
    content = saved(Image.new("RGB", (4, 2)), "JPEG", exif=exif)
    broken = content.replace(struct.pack(">HHI", 0x0112, 3, 1), struct.pack(">HHI", 0x0112, 3, 2))
    assert images.decode(content).size == (2, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own, of a tag that leads nowhere
        assert images.decode(broken).size in ((2, 4), (4, 2))


def test_a_single_pixel_is_an_image():
    assert images.decode(saved(Image.new("RGB", (1, 1), (9, 8, 7)), "PNG")).getpixel((0, 0)) == (9, 8, 7)


def test_printers_colours_are_read():
    content = saved(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG")
    assert images.decode(content).getpixel((4, 4)) == pytest.approx((255, 0, 0), abs=3)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG"])
def test_of_several_pictures_in_a_file_the_first_is_read(kind):
    pictures = [Image.new("RGB", (4, 4), colour) for colour in ((9, 8, 7), (255, 0, 0))]
    content = saved(pictures[0], kind, save_all=True, append_images=pictures[1:])
    assert images.decode(content).getpixel((0, 0)) == pytest.approx((9, 8, 7), abs=3)


@pytest.mark.skipif(".avif" not in Image.registered_extensions(), reason="this Pillow reads no AVIF")
def test_avif_is_read():
    assert images.decode(saved(Image.new("RGB", (8, 8), (255, 0, 0)), "AVIF")).getpixel((4, 4)) == pytest.approx(
        (255, 0, 0), abs=6
    )


def test_heic_names_what_reads_it():
    with pytest.raises(SourceError, match="pip install pillow-heif"):
        images.decode(b"\0\0\0\x18ftypheic" + bytes(64))


@pytest.mark.parametrize("content", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"8BPS\0\1" + bytes(64)])
def test_no_other_format_is_opened(content, monkeypatch):
    monkeypatch.setattr("subprocess.Popen", None)
    monkeypatch.setattr("subprocess.check_call", None)
    with pytest.raises(SourceError, match="no image file"):
        images.decode(content)


def test_a_pointer_is_named_and_left_out_where_that_is_asked_for(tmp_path):
    files = splits() | {"train/bus/z.png": "version https://git-lfs.github.com/spec/v1\n"}
    make(tmp_path, files)
    with pytest.raises(SourceError, match="git lfs pull"):
        load_source(SourceConfig(name=str(tmp_path), size=8))
    assert len(load_source(SourceConfig(name=str(tmp_path), size=8, on_corrupt="skip")).train) == 4


@pytest.mark.parametrize("name", ["a.png", "a", "a.PNG", "a.jpg_large"])
def test_images_are_known_by_their_first_bytes(name, tmp_path):
    files = {f"{kind}/{number}{name}": picture(number) for number, kind in ((1, "x"), (2, "y"))}
    assert len(load_source(SourceConfig(name=str(make(tmp_path, files)), size=8)).train) == 2


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"bands": (0, 1, -1)}, "source.bands"),
        ({"value_range": (5.0, 5.0)}, "source.value_range"),
        ({"test_fraction": 1.0}, "source.test_fraction"),
        ({"test_fraction": 0.2, "test_split": "test"}, "source.test_split"),
    ],
)
def test_impossible_settings_are_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        SourceConfig(**settings)
