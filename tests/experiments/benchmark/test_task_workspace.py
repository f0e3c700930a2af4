"""Who tests, validates and trains: patients on one side, the same for ever, and nothing that was pretrained on."""

from __future__ import annotations

import pytest
from support.raw_folders import make_raw

from swinssl.core.errors import UserError
from swinssl.dataset.raw_dataset import RawDataset
from swinssl.experiments.benchmark.config import Task
from swinssl.experiments.benchmark.task_workspace import divide

GROUPS = {f"case_{i}": f"patient {i // 2}" for i in range(12)}


def ids(cases):
    return {case.id for case in cases}


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return RawDataset.load(make_raw(tmp_path_factory.mktemp("raw") / "Dataset001_Livers", cases=12))


@pytest.fixture(scope="module")
def patients(tmp_path_factory):
    return RawDataset.load(make_raw(tmp_path_factory.mktemp("raw") / "Dataset002_Scans", cases=12, groups=GROUPS))


def test_the_parts_are_of_the_sizes_asked_for_and_share_no_case(raw):
    cases = divide(Task(dataset="1", test=4, validation=2), raw, None, name="livers")
    assert [len(part) for part in (cases.test, cases.validation, cases.pool)] == [4, 2, 6]
    assert ids(cases.test) | ids(cases.validation) | ids(cases.pool) == ids(raw.cases)
    assert divide(Task(dataset="1", test=4, validation=2, shots=(3,)), raw, None, name="x") == cases


def test_a_patient_is_on_one_side(patients):
    cases = divide(Task(dataset="2", test=3, validation=2), patients, None, name="scans")
    sides = [{case.group for case in part} for part in (cases.test, cases.validation, cases.pool)]
    assert not sides[0] & sides[1] and not sides[0] & sides[2] and not sides[1] & sides[2]
    assert len(cases.test) == 4  # whole patients, at least as many as asked for


def test_named_test_cases_keep_their_patients_out_of_training(patients):
    cases = divide(Task(dataset="2", test=("case_0",), validation=2), patients, None, name="scans")
    assert ids(cases.test) == {"case_0"}
    assert "case_1" not in ids(cases.pool) | ids(cases.validation)
    with pytest.raises(UserError, match="nobody"):
        divide(Task(dataset="2", test=("nobody",)), patients, None, name="scans")


def test_test_cases_of_another_data_set_leave_all_of_this_one(raw, patients):
    cases = divide(Task(dataset="1", test_dataset="2", validation=2), raw, patients, name="livers")
    assert len(cases.test) == 12 and len(cases.pool) == 10


def test_too_few_cases_are_refused_with_the_numbers(raw):
    with pytest.raises(UserError, match=r"12 labelled cases .* leave 3 .* 4 are asked for"):
        divide(Task(dataset="1", test=5, validation=4, shots=(4,)), raw, None, name="livers")
