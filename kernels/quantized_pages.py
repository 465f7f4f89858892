"""Keys and values in 8 bits: how they are rounded, and where their scales lie in a page.

    page, K or V, head   | t0 | t1 | … | t31 | scales of t0 … t31, float32 |      rows of head_dim bytes
                           block_size rows     ceil(4 block_size / head_dim) rows

Every token of a head has its own scale, the largest magnitude of its vector over the largest number of the format.
Symmetric, so that zero stays zero. Rounding is done here, in torch, and nowhere else: kernels only multiply back.
"""

import torch

__all__ = ["FORMATS", "SCALE_BYTES", "block_size_of", "dequantize", "page_rows", "quantize", "scales_of"]

FORMATS = (torch.int8, torch.float8_e4m3fn)
"""Element types of quantised pages."""
SCALE_BYTES = 4


def page_rows(block_size: int, head_dim: int, dtype: torch.dtype) -> int:
    """Rows of head_dim elements that a page has for each head of K and of V."""
    return block_size if dtype not in FORMATS else block_size + -(-SCALE_BYTES * block_size // head_dim)


def block_size_of(pages: torch.Tensor) -> int:
    """Tokens in a page of [page, 2, kv_head, rows, head_dim]."""
    rows, head_dim = pages.shape[3:]
    if pages.dtype not in FORMATS:
        return rows
    # page_rows grows with the block size, so it can be turned round: the largest block that fits.
    block_size = rows * head_dim // (head_dim + SCALE_BYTES)
    return block_size + (page_rows(block_size + 1, head_dim, pages.dtype) <= rows)


def quantize(vectors: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Round vectors [..., d] to (elements of dtype [..., d], scales float32 [...]), so that elements * scale is near
    them."""
    wide = vectors.float()
    largest = 127.0 if dtype == torch.int8 else torch.finfo(dtype).max
    scales = wide.abs().amax(-1) / largest
    steps = wide / scales.clamp(min=torch.finfo(torch.float32).tiny)[..., None]
    # A tiny scale is rounded itself, so that a quotient can come out beyond the format.
    steps = steps.clamp(-largest, largest)
    return (steps.round() if dtype == torch.int8 else steps).to(dtype), scales


def scales_of(pages: torch.Tensor, block_size: int) -> torch.Tensor:
    """The scales in quantised pages, a view: float32 [page, 2, kv_head, block_size]."""
    *outer, rows, head_dim = pages.shape
    vectors = pages.view(torch.uint8).view(*outer, rows * head_dim)
    first = block_size * head_dim
    return vectors[..., first : first + SCALE_BYTES * block_size].view(torch.float32)


def dequantize(pages: torch.Tensor, block_size: int) -> torch.Tensor:
    """Pages [page, 2, kv_head, rows, head_dim] as numbers [page, 2, kv_head, block_size, head_dim]: float32 for
    quantised pages, the others as they are."""
    if pages.dtype not in FORMATS:
        return pages
    return pages[:, :, :, :block_size].float() * scales_of(pages, block_size)[..., None]
