"""The benchmark's numbers: a chain counts up to its first failure, whatever its length."""

import pytest

from langsteer.evaluation.long_horizon_report import BenchmarkSummary

TASKS = ("open_drawer", "turn_on_led", "close_drawer", "turn_off_led", "open_drawer")


def chain(completed):
    tried = TASKS[: completed + 1]
    subtasks = [
        {"task": task, "success": place < completed, "prediction_ms": 10.0 * (place + 1)}
        for place, task in enumerate(tried)
    ]
    return {"completed": completed, "subtasks": subtasks}


@pytest.fixture
def summary():
    return BenchmarkSummary([chain(completed) for completed in (0, 1, 3, 5)])


def test_average_length_is_the_sum_of_the_shares_of_chains_of_each_length(summary):
    in_a_row = [rate.value for rate in summary.in_a_row().values()]
    assert in_a_row == [0.75, 0.5, 0.5, 0.25, 0.25]
    assert summary.average_length == pytest.approx(sum(in_a_row)) == pytest.approx(9 / 4)


def test_rates_of_tasks_count_every_attempt_up_to_the_first_failure(summary):
    rates = {task: (rate.successes, rate.attempts) for task, rate in summary.tasks().items()}
    assert rates == {
        "open_drawer": (4, 5),  # four first tasks, and one last one
        "turn_on_led": (2, 3),
        "close_drawer": (2, 2),
        "turn_off_led": (1, 2),
    }
    attempts = sum(attempts for _, attempts in rates.values())
    assert attempts == 1 + 2 + 4 + 5
    assert summary.prediction_ms() == 20.0
