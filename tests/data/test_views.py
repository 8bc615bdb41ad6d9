"""Views against torchvision, and against themselves: replayed bits must be the labelled bits."""

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import RandomResizedCrop
from torchvision.transforms.v2 import functional as transforms

from fadrm_hf.data.pixels import normalise
from fadrm_hf.data.views import (
    BatchViews,
    LabelViews,
    apply_view,
    draw_crops,
    interpolation_matrix,
    render_views,
    sample_positions,
)
from fadrm_hf.errors import ConfigError
from fadrm_hf.runtime.randomness import generator

pytestmark = pytest.mark.numerical


def torchvision_view(images, crop, flip, roll=(0, 0)):
    """Crop, resize, flip, roll by torchvision and torch, on (n, C, S, S) float64."""
    size = images.shape[-1]
    view = transforms.resized_crop(images, *[int(edge) for edge in crop], [size, size], antialias=False)
    view = transforms.horizontal_flip(view) if flip else view
    return view.roll(tuple(int(shift) for shift in roll), dims=(2, 3))


@pytest.mark.parametrize("size", [8, 17, 32])
def test_two_matrices_equal_torchvision(size):
    rng = generator(0, "test", size)
    images = torch.randn((2, 3, size, size), dtype=torch.float64, generator=rng)
    views = BatchViews.draw(100, size, (0.08, 1.0), 0.5, 4, rng)
    rows, columns = views.matrices(size, torch.float64)
    assert views.flip.any() and not views.flip.all()
    for t in range(100):
        expected = torchvision_view(images, views.crop[t], views.flip[t], views.roll[t])
        torch.testing.assert_close(apply_view(images, rows[t], columns[t]), expected, rtol=0, atol=1e-12)


def test_view_is_one_box_per_batch():
    rng = generator(1, "test")
    image = torch.randn((1, 3, 16, 16), generator=rng)
    rows, columns = BatchViews.draw(1, 16, (0.08, 1.0), 0.5, 2, rng).matrices(16)
    views = apply_view(image.expand(4, -1, -1, -1), rows[0], columns[0])
    assert all(torch.equal(views[0], view) for view in views)


def test_gradient_of_a_view_is_its_transpose():
    rng = generator(2, "test")
    image = torch.randn((1, 3, 12, 12), dtype=torch.float64, generator=rng, requires_grad=True)
    rows, columns = (m[0] for m in BatchViews.draw(1, 12, (0.08, 1.0), 1.0, 3, rng).matrices(12, torch.float64))
    seen = torch.randn((1, 3, 12, 12), dtype=torch.float64, generator=rng)
    (gradient,) = torch.autograd.grad(apply_view(image, rows, columns), image, seen)
    torch.testing.assert_close(gradient, rows.T @ seen @ columns, rtol=0, atol=1e-12)


def test_rows_of_a_matrix_sum_to_one_and_stay_inside_the_crop():
    crops = draw_crops(200, 20, (0.08, 1.0), generator(3, "test"))
    upright, still = torch.zeros(200, dtype=torch.bool), torch.zeros(200, dtype=torch.int64)
    matrix = interpolation_matrix(sample_positions(crops[:, 0], crops[:, 2], 20, upright, still), 20, torch.float64)
    torch.testing.assert_close(matrix.sum(-1), torch.ones(200, 20, dtype=torch.float64))
    for (top, _, height, _), rows in zip(crops.tolist(), matrix, strict=True):
        used = rows.sum(0).nonzero().flatten()
        assert used.min() >= top and used.max() < top + height


def test_crops_follow_the_law_of_random_resized_crop():
    size, num = 32, 20_000
    ours = draw_crops(num, size, (0.08, 1.0), generator(4, "test")).double()
    torch.manual_seed(0)
    image, rrc = torch.zeros(3, size, size), RandomResizedCrop(size, scale=(0.08, 1.0))
    theirs = torch.tensor([list(rrc.make_params([image]).values()) for _ in range(num)], dtype=torch.float64)
    assert bool((ours[:, 0] + ours[:, 2] <= size).all() and (ours[:, 1] + ours[:, 3] <= size).all())
    for column in range(4):
        quantiles = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95], dtype=torch.float64)
        gap = ours[:, column].quantile(quantiles) - theirs[:, column].quantile(quantiles)
        assert gap.abs().max() <= 1.0
        assert (ours[:, column].mean() - theirs[:, column].mean()).abs() < 0.3


def label_views(num, size, seed, cutmix=True, flip=0.5, tiles=1, area=(0.08, 1.0)):
    rng = generator(seed, "test")
    images = torch.randint(0, 256, (num, 3, size, size), dtype=torch.uint8, generator=rng)
    return images, LabelViews.draw(torch.randperm(num, generator=rng), size, area, flip, cutmix, rng, tiles)


def test_rendered_views_equal_torchvision():
    images, views = label_views(24, 20, 5, cutmix=False)
    rendered = render_views(images, views)
    for i in range(24):
        expected = torchvision_view(images[views.image[i]][None].double(), views.crop[i], views.flip[i])[0]
        torch.testing.assert_close(rendered[i].double(), expected, rtol=0, atol=2e-4)  # of 255


def read_by_hand(line, start, length, size):
    """One axis of an upright view: two neighbours inside the crop, weighted in float32."""
    read = []
    for i in range(size):
        position = start + min(max((i + 0.5) * (length / size) - 0.5, 0.0), length - 1.0)
        near = int(position)
        weight = np.float32(position - near)
        read.append(line[near] * (np.float32(1.0) - weight) + line[min(near + 1, size - 1)] * weight)
    return np.stack(read)


def test_views_inside_their_images_keep_the_bits_of_two_taps():
    images, views = label_views(12, 9, 13, cutmix=False, flip=0.0)
    rendered = render_views(images, views).numpy()
    for row in range(12):
        top, left, height, width = views.crop[row].tolist()
        pixels = images[views.image[row]].numpy().astype(np.float32).transpose(1, 2, 0)  # (S, S, 3)
        lines = read_by_hand(pixels, top, height, 9).transpose(1, 0, 2)
        assert np.array_equal(read_by_hand(lines, left, width, 9).transpose(2, 1, 0), rendered[row])


def shuffled_tiles(image, swap_rows, swap_columns):
    """An image (3, S, S) as a mosaic of four, with rows and columns of tiles in the order asked for."""
    strips = list(image.chunk(2, dim=1))
    image = torch.cat(strips[::-1] if swap_rows else strips, dim=1)
    strips = list(image.chunk(2, dim=2))
    return torch.cat(strips[::-1] if swap_columns else strips, dim=2)


def test_shuffled_views_are_crops_of_images_with_other_rows_and_columns_of_tiles():
    """Crops and flips are those that are drawn without shuffling; pixels are torchvision's of the shuffled image."""
    images, plain = label_views(64, 20, 10, cutmix=False)
    _, views = label_views(64, 20, 10, cutmix=False, tiles=2)
    swaps = (views.crop[:, :2] - plain.crop[:, :2]).remainder(20)
    assert torch.equal(views.crop[:, 2:], plain.crop[:, 2:]) and torch.equal(views.flip, plain.flip)
    assert set(swaps.flatten().tolist()) == {0, 10}
    rendered = render_views(images, views)
    for i in range(64):
        mosaic = shuffled_tiles(images[views.image[i]].double(), *swaps[i].tolist())
        expected = torchvision_view(mosaic[None], plain.crop[i], plain.flip[i])[0]
        torch.testing.assert_close(rendered[i].double(), expected, rtol=0, atol=2e-4)  # of 255
    crosses = (views.crop[:, :2] + views.crop[:, 2:]) > 20
    assert crosses.any(), "some crops run over the border"


def test_three_of_four_shuffles_change_a_mosaic_and_all_four_are_as_likely():
    """A shuffle that returned its tiles as they were, as in the released code of EDC, would change none."""
    images, views = label_views(400, 8, 11, cutmix=False, flip=0.0, tiles=2, area=(1.0, 1.0))
    rendered = render_views(images, views)
    orders = [(rows, columns) for rows in (False, True) for columns in (False, True)]
    mosaics = [torch.stack([shuffled_tiles(images[i], *order) for i in views.image]) for order in orders]
    found = [int((rendered == mosaic).flatten(1).all(dim=1).sum()) for mosaic in mosaics]
    assert sum(found) == 400
    assert all(abs(number - 100) < 5 * (400 * 3 / 16) ** 0.5 for number in found), found


@pytest.mark.parametrize(
    ("size", "tiles", "message"), [(15, 2, "even side, but they have 15"), (16, 3, "expected 1 or 2")]
)
def test_tiles_of_no_common_size_are_refused(size, tiles, message):
    with pytest.raises(ConfigError, match=message):
        label_views(4, size, 0, tiles=tiles)


@pytest.mark.parametrize("tiles", [1, 2])
def test_cutmix_pastes_the_partner_view_into_one_box_of_the_batch(tiles):
    images, views = label_views(12, 16, 6, tiles=tiles)
    plain = render_views(images, views.unmixed())
    where = {int(image): row for row, image in enumerate(views.image)}
    mixed = render_views(images, views)
    top, left, height, width = views.mix_box[0].tolist()
    assert (views.mix_box == views.mix_box[0]).all() and 0 < height * width < 256
    for row in range(12):
        expected = plain[row].clone()
        partner = plain[where[int(views.mix_image[row])]]
        expected[:, top : top + height, left : left + width] = partner[:, top : top + height, left : left + width]
        assert torch.equal(mixed[row], expected)


@pytest.mark.parametrize("tiles", [1, 2])
def test_replayed_views_are_bit_equal_in_any_grouping_and_after_storage(tiles):
    images, views = label_views(33, 32, 7, tiles=tiles)
    rendered = normalise(render_views(images, views), (0.5, 0.4, 0.3), (0.2, 0.3, 0.25))
    stored = LabelViews.from_columns(views.columns())
    threads = torch.get_num_threads()
    for size in (1, 5, 16):
        torch.set_num_threads(size % 2 + 1)
        pieces = []
        for rows in torch.arange(33).split(size):
            piece = LabelViews.from_columns({name: column[rows] for name, column in stored.columns().items()})
            pieces.append(normalise(render_views(images, piece), (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)))
        assert torch.equal(torch.cat(pieces), rendered)
    torch.set_num_threads(threads)


def test_columns_have_the_types_of_the_table():
    _, views = label_views(4, 224, 8)
    types = {name: column.dtype for name, column in views.columns().items()}
    assert types == {
        "image": torch.int32,
        "crop": torch.int16,
        "flip": torch.bool,
        "mix_image": torch.int32,
        "mix_crop": torch.int16,
        "mix_flip": torch.bool,
        "mix_box": torch.int16,
    }


def test_unmixed_views_are_marked():
    _, views = label_views(4, 16, 9, cutmix=False)
    assert (views.mix_image == -1).all()


def test_normalise_is_the_affine_map():
    pixels = torch.tensor([0.0, 127.5, 255.0]).view(1, 3, 1, 1)
    expected = torch.tensor([(0 - 0.5) / 0.2, (0.5 - 0.4) / 0.3, (1 - 0.3) / 0.25]).view(1, 3, 1, 1)
    torch.testing.assert_close(normalise(pixels, (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)), expected)


@pytest.mark.gpu
def test_views_of_a_gpu_are_those_of_a_cpu_bit_for_bit():
    """Sides that no power of two divides, whose reciprocals are rounded."""
    for size in (16, 49, 224):
        images = torch.randint(0, 256, (9, 3, size, size), generator=generator(0, "images"), dtype=torch.uint8)
        views = LabelViews.draw(torch.arange(9), size, (0.08, 1.0), 0.5, True, generator(0, "views"))
        assert torch.equal(render_views(images.cuda(), views).cpu(), render_views(images, views))
