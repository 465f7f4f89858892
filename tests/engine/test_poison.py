"""Who may have killed the engine is remembered, and nobody else."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from engine.poison import Suspects, content_key
from engine.request import SamplingParams

KEYS: Sequence[bytes] = [content_key("submit", i, SamplingParams()) for i in range(5)]


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_equal_content_has_equal_keys_and_other_content_another() -> None:
    assert content_key("submit", [1, 2], SamplingParams(seed=1)) == content_key(
        "submit", [1, 2], SamplingParams(seed=1)
    )
    different = [content_key("submit", [1, 2], SamplingParams(seed=seed)) for seed in (1, 2)]
    assert len({*different, content_key("submit", [1], SamplingParams(seed=1)), *KEYS}) == 8


def test_suspicion_is_bounded_and_ends_with_success() -> None:
    suspects = Suspects(max_entries=3)
    for _ in range(2):
        suspects.note_death(KEYS[:2])
    assert [suspects.is_poison(key) for key in KEYS[:3]] == [True, True, False]
    suspects.clear(KEYS[0])
    assert not suspects.is_poison(KEYS[0])
    suspects.note_death(KEYS[2:])
    assert not suspects.is_poison(KEYS[1]), "pushed out by newer suspects"


@given(
    st.lists(
        st.tuples(st.floats(0, 15), st.sampled_from(["death", "success"]), st.sets(st.sampled_from(KEYS))), max_size=30
    )
)
def test_two_deaths_without_a_success_or_a_long_time_between_them_make_a_poison(
    happenings: list[tuple[float, str, set[bytes]]],
) -> None:
    clock = Clock()
    suspects = Suspects(memory_s=10.0, clock=clock)
    deaths: dict[bytes, list[float]] = {key: [] for key in KEYS}
    for pause_s, kind, keys in happenings:
        clock.now_s += pause_s
        for key in keys:
            if kind == "success" or (deaths[key] and clock.now_s - deaths[key][-1] >= 10.0):
                deaths[key].clear()
            if kind == "success":
                suspects.clear(key)
            else:
                deaths[key].append(clock.now_s)
        if kind == "death":
            suspects.note_death(keys)
        for key, times in deaths.items():
            assert suspects.is_poison(key) == (len(times) >= 2 and clock.now_s - times[-1] < 10.0)
