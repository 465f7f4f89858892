"""Memory in large pages behaves like any other."""

import pytest
import torch

from kernels import huge_pages


@pytest.mark.parametrize("shape", [(3,), (1000, 1100), (5, 3 * 2**20), (0, 4)])
@pytest.mark.parametrize("dtype", [torch.int8, torch.bfloat16, torch.float32])
def test_memory_is_contiguous_writable_and_large_tensors_begin_at_a_page(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    one, other = (huge_pages.empty(shape, dtype) for _ in range(2))
    assert one.shape == torch.Size(shape)
    assert one.dtype == dtype
    assert one.is_contiguous()
    one.fill_(1)
    other.fill_(2)
    assert one.eq(1).all()
    if one.nbytes >= huge_pages.HUGE_PAGE:
        assert one.data_ptr() % huge_pages.HUGE_PAGE == 0
