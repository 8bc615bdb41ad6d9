"""A view is what was done to an image before a network saw it: crop, flip, roll, mix. Drawn, stored, replayed.

Crop, flip, roll and bilinear resizing are linear and separable: each output row reads the image at one vertical
position (`sample_positions`), and each output column at one horizontal position. Two forms use these positions:

- `view_matrices`: two small matrices, `view = R_h @ image @ R_w.T`, for recovery, where one view serves a whole batch
  and gradients flow back to the pixels (as released: one box and one flip per batch and iteration).
- `render_views`: two taps per axis, for soft labels. It consists of elementwise operations only, so the pixels of a
  replayed view are bit for bit those that were labelled, whatever the batch, the thread count or the device.

Pixel (i, j) covers the square [i, i+1) x [j, j+1), as in torchvision with `align_corners=False`. A crop is never
larger than its image and is resized to the image's own size, so a view only enlarges and needs no antialiasing.

Where the tiles of a mosaic are shuffled (RDED, arXiv 2312.03526), rows and columns of tiles change places before the
crop, independently. Of 2 x 2 tiles that is a circular shift by half a side along either axis, so such a view is stored
as any other: a crop that starts in the image and may run over its border, beyond which row r is row r - S.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from math import log

import torch
from torch import Tensor

from fadrm_hf.data.image_table import ImageTable
from fadrm_hf.errors import ConfigError
from fadrm_hf.runtime.transfer import send

Area = tuple[float, float]

_ASPECT = (3 / 4, 4 / 3)
_ATTEMPTS = 10


def draw_crops(num: int, size: int, area: Area | Tensor, generator: torch.Generator) -> Tensor:
    """Draw random crop boxes of a square image: uniform area, log-uniform aspect ratio between 3/4 and 4/3.

    The law is torchvision's `RandomResizedCrop.get_params`: up to ten attempts, then the whole image.

    Args:
        num: Number of boxes.
        size: Side of the image in pixels.
        area: Least and largest area as fractions of the image, the same for all boxes or (num, 2) float64.
        generator: Source of randomness.

    Returns:
        (num, 4) int64: top, left, height, width, inside the image.
    """
    shape = (num, _ATTEMPTS)
    low, high = torch.as_tensor(area, dtype=torch.float64).expand(num, 2).split(1, dim=1)
    areas = (torch.rand(shape, dtype=torch.float64, generator=generator) * (high - low) + low) * size * size
    aspects = torch.empty(shape, dtype=torch.float64).uniform_(log(_ASPECT[0]), log(_ASPECT[1]), generator=generator)
    heights = (areas / aspects.exp()).sqrt().round().long()
    widths = (areas * aspects.exp()).sqrt().round().long()
    fits = (heights >= 1) & (heights <= size) & (widths >= 1) & (widths <= size)
    first = fits.to(torch.uint8).argmax(dim=1, keepdim=True)
    any_fits = fits.any(dim=1)
    height = torch.where(any_fits, heights.gather(1, first).squeeze(1), size)
    width = torch.where(any_fits, widths.gather(1, first).squeeze(1), size)
    place = torch.rand((2, num), dtype=torch.float64, generator=generator)
    top = (place[0] * (size - height + 1)).long()
    left = (place[1] * (size - width + 1)).long()
    return torch.stack((top, left, height, width), dim=1)


def draw_windows(num: int, size: int, padding: int, generator: torch.Generator) -> Tensor:
    """Draw random windows of a padded image by the law of torchvision's `RandomCrop`.

    Args:
        num: Number of windows.
        size: Side of image and window in pixels.
        padding: Pixels around the image.
        generator: Source of randomness.

    Returns:
        (num, 4) int64: top, left, height, width; top and left from -`padding` to `padding`.
    """
    corner = torch.randint(-padding, padding + 1, (num, 2), generator=generator)
    return torch.cat((corner, torch.full((num, 2), size)), dim=1)


def draw_flips(num: int, probability: float, generator: torch.Generator) -> Tensor:
    """Draw (num,) bool: true with `probability`."""
    return torch.rand(num, dtype=torch.float64, generator=generator) < probability


def sample_positions(start: Tensor, length: Tensor, size: int, flip: Tensor, shift: Tensor) -> Tensor:
    """Return where along one axis each output pixel reads the image.

    Args:
        start: (n,) int64, first pixel of the crop.
        length: (n,) int64, pixels of the crop.
        size: Number of output pixels.
        flip: (n,) bool, whether the resized crop is mirrored.
        shift: (n,) int64, circular shift applied last (`torch.roll`).

    Returns:
        (n, size) float64 positions in pixel indices, clamped to the crop's border.
    """
    output = (torch.arange(size, device=start.device) - shift[:, None]).remainder(size)
    output = torch.where(flip[:, None], size - 1 - output, output)
    scale = length.double() / torch.full_like(length, size, dtype=torch.float64)  # a GPU divides by a number inexactly
    inside = (output.double() + 0.5) * scale[:, None] - 0.5
    return start[:, None] + inside.clamp_min(0.0).minimum(length[:, None] - 1.0)


def interpolation_matrix(positions: Tensor, size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the bilinear weights that read `positions`.

    Args:
        positions: (..., out) positions in [0, size - 1].
        size: Pixels of the input along this axis.
        dtype: Type of the result.

    Returns:
        (..., out, size); each row holds at most two weights, which sum to 1.
    """
    pixels = torch.arange(size, dtype=positions.dtype, device=positions.device)
    return (1.0 - (positions[..., None] - pixels).abs()).clamp_min(0.0).to(dtype)


@dataclass(frozen=True)
class BatchViews:
    """One view per iteration, each shared by a whole batch.

    Attributes:
        crop: (T, 4) int64: top, left, height, width.
        flip: (T,) bool.
        roll: (T, 2) int64: circular shift of rows and of columns, in pixels.
    """

    crop: Tensor
    flip: Tensor
    roll: Tensor

    @classmethod
    def draw(
        cls,
        num: int,
        size: int,
        area: Area | Tensor,
        flip_probability: float,
        max_roll: int,
        generator: torch.Generator,
        padding: int | None = None,
        symmetric_roll: bool = False,
    ) -> "BatchViews":
        """Draw `num` views of images of side `size`.

        Args:
            num: Number of views.
            size: Side of the images in pixels.
            area: Least and largest area of a crop, or (num, 2) float64 of them.
            flip_probability: Probability of a flip.
            max_roll: Shifts are uniform on 0..max_roll, both included.
            generator: Source of randomness.
            padding: Windows of the image with so many pixels around it, instead of crops of an area.
            symmetric_roll: Shifts are uniform on -max_roll..max_roll instead.
        """
        if padding is None:
            crop = draw_crops(num, size, area, generator)
        else:
            crop = draw_windows(num, size, padding, generator)
        flip = draw_flips(num, flip_probability, generator)
        least = -max_roll if symmetric_roll else 0
        return cls(crop, flip, torch.randint(least, max_roll + 1, (num, 2), generator=generator))

    def split(self, num: int) -> Iterator["BatchViews"]:
        """Yield the views in blocks of `num` iterations: the matrices of thousands would take gigabytes."""
        for parts in zip(self.crop.split(num), self.flip.split(num), self.roll.split(num), strict=True):
            yield BatchViews(*parts)

    def matrices(
        self, size: int, dtype: torch.dtype = torch.float32, device: torch.device | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the row and column matrices of every view, each (T, size, size), on a device.

        Positions are computed here and expanded there: to a GPU travel T * size numbers in place of T * size^2.
        """
        top, left, height, width = self.crop.unbind(dim=1)
        upright = torch.zeros_like(self.flip)
        rows = sample_positions(top, height, size, upright, self.roll[:, 0])
        columns = sample_positions(left, width, size, self.flip, self.roll[:, 1])
        if device is not None:
            rows, columns = send([rows, columns], device)
        return interpolation_matrix(rows, size, dtype), interpolation_matrix(columns, size, dtype)


def apply_view(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Apply a view's matrices: `rows @ images @ columns.T`.

    Args:
        images: (B, C, H, W), any real values.
        rows: (h, H) weights.
        columns: (w, W) weights.

    Returns:
        (B, C, h, w).
    """
    return rows @ (images @ columns.T)


@dataclass(frozen=True)
class LabelViews:
    """Views as the soft-label table stores them, one per row; self-contained, so rows may be regrouped.

    Attributes:
        image: (n,) int64, row of the image table.
        crop: (n, 4) int64: top, left, height, width in pixels of the stored image; the crop of a shuffled mosaic goes
            on at the opposite border.
        flip: (n,) bool.
        mix_image: (n,) int64, row of the partner, -1 where nothing is mixed in.
        mix_crop: (n, 4) int64, the partner's crop.
        mix_flip: (n,) bool, the partner's flip.
        mix_box: (n, 4) int64: top, left, height, width of the box, in output pixels, that shows the partner.
    """

    image: Tensor
    crop: Tensor
    flip: Tensor
    mix_image: Tensor
    mix_crop: Tensor
    mix_flip: Tensor
    mix_box: Tensor

    @classmethod
    def draw(
        cls,
        image: Tensor,
        size: int,
        area: Area,
        flip_probability: float,
        cutmix: bool,
        generator: torch.Generator,
        shuffle_tiles: int = 1,
    ) -> "LabelViews":
        """Draw one view of each image of a batch; with `cutmix`, one box and one permutation for the batch.

        Args:
            image: (n,) int64 rows of the image table.
            size: Side of the images in pixels.
            area: Least and largest area of a crop.
            flip_probability: Probability of a flip.
            cutmix: Whether views are mixed (`draw_mix_box`, as released).
            generator: Source of randomness.
            shuffle_tiles: 2: rows and columns of the 2 x 2 tiles of each image are permuted before its crop (code of
                RDED, LINs-lab/RDED @ 3f6453d; EDC's, shaoshitong/EDC @ 80116a7, returns the tiles unpermuted). 1: not.

        Raises:
            ConfigError: The tiles are not halves of the images' side.
        """
        require_tiles(size, shuffle_tiles)
        num = len(image)
        crop = draw_crops(num, size, area, generator)
        flip = draw_flips(num, flip_probability, generator)
        if shuffle_tiles == 2:
            crop = _shuffle_halves(crop, size, generator)
        if not cutmix:
            nothing = torch.zeros((num, 4), dtype=torch.int64)
            return cls(image, crop, flip, torch.full_like(image, -1), nothing, torch.zeros_like(flip), nothing.clone())
        partner = torch.randperm(num, generator=generator)
        box = draw_mix_box(size, generator).expand(num, 4)
        return cls(image, crop, flip, image[partner], crop[partner], flip[partner], box.clone())

    @classmethod
    def from_columns(cls, columns: dict[str, Tensor]) -> "LabelViews":
        """Read the views from the columns of a soft-label table."""
        as_stored = {f.name: columns[f.name] for f in fields(cls)}
        return cls(**{k: v if v.dtype == torch.bool else v.long() for k, v in as_stored.items()})

    def columns(self) -> dict[str, Tensor]:
        """Return the table's columns, in its types: int32 rows, int16 boxes, bool flips."""
        small = {"image": torch.int32, "mix_image": torch.int32, "flip": torch.bool, "mix_flip": torch.bool}
        return {f.name: getattr(self, f.name).to(small.get(f.name, torch.int16)) for f in fields(self)}

    @classmethod
    def cat(cls, parts: Sequence["LabelViews"]) -> "LabelViews":
        """Concatenate the views of successive batches."""
        return cls(**{f.name: torch.cat([getattr(part, f.name) for part in parts]) for f in fields(cls)})

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, rows: slice) -> "LabelViews":
        return LabelViews(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def to(self, device: torch.device) -> "LabelViews":
        """Return the views on the device that renders them."""
        return LabelViews(*send([getattr(self, f.name) for f in fields(self)], device))

    def mix_shares(self, size: int) -> Tensor:
        """Return (n,) float32 in [0, 1]: the share of each view's size x size pixels that shows the partner."""
        height, width = self.mix_box[:, 2], self.mix_box[:, 3]
        return torch.where(self.mix_image >= 0, height * width, 0) / size**2

    def unmixed(self) -> "LabelViews":
        """Return the same crops and flips with nothing mixed in."""
        return LabelViews(
            self.image, self.crop, self.flip, torch.full_like(self.image, -1), self.crop, self.flip, self.mix_box
        )


def require_tiles(size: int, shuffle_tiles: int) -> None:
    """Refuse to shuffle what are no tiles of one size.

    Args:
        size: Side of the images in pixels.
        shuffle_tiles: 1 (nothing is shuffled) or 2 (2 x 2 tiles).

    Raises:
        ConfigError: Other numbers of tiles, or two on an odd side.
    """
    if shuffle_tiles not in (1, 2):
        raise ConfigError(f"relabel.shuffle_tiles is {shuffle_tiles}, expected 1 or 2; set --relabel.shuffle_tiles")
    if size % shuffle_tiles:
        raise ConfigError(
            f"relabel.shuffle_tiles is {shuffle_tiles}, which needs images of an even side, but they have {size} "
            "pixels; set --relabel.shuffle_tiles 1, or --source.size to an even number"
        )


def _shuffle_halves(crop: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Return crops (n, 4) of the unshuffled image, from those of images whose halves changed places along an axis."""
    shift = torch.randint(0, 2, (len(crop), 2), generator=generator) * (size // 2)
    return torch.cat(((crop[:, :2] + shift).remainder(size), crop[:, 2:]), dim=1)


def draw_mix_box(size: int, generator: torch.Generator) -> Tensor:
    """Draw CutMix's box: lambda ~ Beta(1, 1), side ratio sqrt(1 - lambda), uniform centre, clipped at the border.

    Args:
        size: Side of the images in pixels.
        generator: Source of randomness.

    Returns:
        (4,) int64: top, left, height, width.
    """
    mix = torch.rand((), dtype=torch.float64, generator=generator)  # lambda ~ Beta(1, 1)
    side = int(size * (1.0 - mix).sqrt())
    centre = torch.randint(0, size, (2,), generator=generator)
    low = (centre - side // 2).clamp(0, size)
    high = (centre + side // 2).clamp(0, size)
    return torch.cat((low, high - low))


def render_views(images: Tensor | ImageTable, views: LabelViews) -> Tensor:
    """Draw stored views, bit for bit as they were labelled.

    Args:
        images: (N, C, S, S) uint8, the whole image table, on the device that renders.
        views: n views of its rows; on the CPU, so that nothing here waits for a GPU.

    Returns:
        (n, C, S, S) float32 pixels in [0, 255].
    """
    there = views.to(images.device)
    rows = views if isinstance(images, ImageTable) else there  # a table finds its rows on the CPU
    rendered = _crop_and_flip(images[rows.image], there.crop, there.flip)
    if not bool((views.mix_image >= 0).any()):
        return rendered
    partner = _crop_and_flip(images[rows.mix_image.clamp_min(0)], there.mix_crop, there.mix_flip)
    inside = _inside(there.mix_box, images.shape[-1]) & (there.mix_image >= 0)[:, None, None]
    return torch.where(inside[:, None], partner, rendered)


def _crop_and_flip(images: Tensor, crop: Tensor, flip: Tensor) -> Tensor:
    """Return (n, C, S, S) float32 of images (n, C, S, S), each cropped and flipped as its view says."""
    size = images.shape[-1]
    top, left, height, width = crop.unbind(dim=1)
    still = torch.zeros_like(top)
    vertical = sample_positions(top, height, size, torch.zeros_like(flip), still)
    horizontal = sample_positions(left, width, size, flip, still)
    return _two_taps(_two_taps(images.to(torch.float32), vertical, 2), horizontal, 3)


def _two_taps(images: Tensor, positions: Tensor, dim: int) -> Tensor:
    """Interpolate (n, C, H, W) linearly along `dim` at (n, out) positions; elementwise, hence exact.

    Positions go on at the opposite border. At the last pixel of a crop the second tap has weight 0, whichever it is.
    """
    lower = positions.floor()
    view = [len(positions), 1, 1, 1]
    view[dim] = -1
    index = lower.long().view(view)
    weight = (positions - lower).to(images.dtype).view(view)
    shape = list(images.shape)
    shape[dim] = positions.shape[1]
    near = images.gather(dim, index.remainder(images.shape[dim]).expand(shape))
    far = images.gather(dim, (index + 1).remainder(images.shape[dim]).expand(shape))
    return near * (1.0 - weight) + far * weight


def _inside(boxes: Tensor, size: int) -> Tensor:
    """Return (n, size, size) bool: which output pixels are in each box."""
    pixels = torch.arange(size, device=boxes.device)
    top, left, height, width = (edge[:, None] for edge in boxes.unbind(dim=1))
    rows = (pixels >= top) & (pixels < top + height)
    columns = (pixels >= left) & (pixels < left + width)
    return rows[:, :, None] & columns[:, None, :]
