"""Workers wait for each other, and not for one that is gone."""

import threading
import time

import pytest

from bundled_models.team import Team, TeamError


def test_nobody_passes_before_everybody_has_come() -> None:
    team, passed = Team(3), []

    def work(index: int) -> None:
        for turn in range(20):
            time.sleep(0.001 * index)
            team.wait(index)
            passed.append(turn)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(passed) == 60
    assert all(abs(turn - i // 3) <= 1 for i, turn in enumerate(passed))


def test_a_worker_that_is_gone_is_noticed() -> None:
    with pytest.raises(TeamError, match="has ended"):
        Team(2).wait(0, lambda: False)
    with pytest.raises(TeamError, match="did not come"):
        Team(2, timeout_s=0.01).wait(0)
