"""200 mixed jobs on two queens and three ants: in peace, and while everything is killed, stopped and restarted."""

import pytest

from tests.e2e.colony.trial import Trial

pytestmark = pytest.mark.timeout(300)

JOBS = 200
CHAOS_S = 25.0
SEED = 250


def test_mixed_jobs_end_as_they_must_on_every_broker(trial: Trial) -> None:
    wrong = trial.undisturbed(JOBS, over_s=8.0)
    assert not wrong, trial.report(wrong)


def test_nothing_is_lost_or_runs_twice_whatever_is_killed(trial: Trial) -> None:
    wrong = trial.disturbed(SEED, CHAOS_S, JOBS)
    assert not wrong, trial.report(wrong)
