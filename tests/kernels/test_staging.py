"""Arrays that go to the device together, into tensors that stay where they are."""

import numpy as np
import pytest
import torch

from kernels.staging import ALIGNMENT, Staging

FIELDS = {
    "words": ((3, 5), torch.int32),
    "one": ((1,), torch.int64),
    "none": ((0, 7), torch.int32),
    "numbers": ((4,), torch.float32),
}
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.mark.parametrize("device", DEVICES)
def test_what_is_filled_arrives_in_the_same_tensors_every_time(device: str) -> None:
    staging = Staging(FIELDS, torch.device(device), n_buffers=2)
    addresses = {name: tensor.data_ptr() for name, tensor in staging.tensors.items()}
    for turn in range(5):
        arrays = staging.arrays()
        arrays["words"][:] = np.arange(15).reshape(3, 5) + turn
        arrays["one"][:] = -turn
        arrays["numbers"][:] = turn / 3
        staging.send()
        assert staging.tensors["words"].tolist() == (torch.arange(15).view(3, 5) + turn).tolist()
        assert staging.tensors["one"].tolist() == [-turn]
        torch.testing.assert_close(staging.tensors["numbers"].cpu(), torch.full((4,), turn / 3))
        assert {name: tensor.data_ptr() for name, tensor in staging.tensors.items()} == addresses


def test_every_array_begins_where_a_kernel_may_assume_it() -> None:
    staging = Staging(FIELDS, torch.device("cpu"))
    first = min(tensor.data_ptr() for tensor in staging.tensors.values() if tensor.numel())
    for name, (shape, dtype) in FIELDS.items():
        tensor = staging.tensors[name]
        assert (tuple(tensor.shape), tensor.dtype) == (tuple(shape), dtype)
        assert not tensor.numel() or (tensor.data_ptr() - first) % ALIGNMENT == 0


def test_nothing_is_staged_without_fields() -> None:
    staging = Staging({}, torch.device("cpu"))
    staging.send()
    assert staging.tensors == {}
