"""Each error says what it should, and each fix that it offers is one."""

import pathlib
import pickle
import re

import pytest

import house
from errors import golden
from errors.case import CONTENT, Case, Remedy, case
from errors.cases import CASES
from linnet import nn
from linnet._errors import MAX_LINES

TEXTS = golden.texts()
PAGES = house.ROOT / "docs" / "errors"


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_message_is_the_golden_one_and_its_fixes_work(case):
    error = case.provoke()
    assert case.text_of(error) == TEXTS.get((case.code, case.name)), golden.ACCEPT
    assert_well_formed(error, case)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (type(error), str(error))
    assert again.fixes == error.fixes
    assert_fixed(case, error.fixes)


def assert_well_formed(error, case):
    """What holds for each message: a first line that stands alone, and few others."""
    first, *others = case.text_of(error).splitlines()
    assert error.code == case.code
    assert case.start
    assert first.startswith(case.start)
    assert first.endswith(f" [{case.code}]")
    assert len(first.split()) > 5
    assert len(others) < MAX_LINES
    assert error.fixes, "an error teaches how to go on"
    assert not re.search(rf"Array\(|{CONTENT}| 0x[0-9a-f]+", str(error))


def assert_fixed(case, fixes):
    """Each fix, put where a reader would put it, makes the program work."""
    assert len(fixes) == len(case.remedies)
    for (_, code), remedy in zip(fixes, case.remedies, strict=True):
        assert remedy.check
        case.run(remedy.applied(case.program, code))


def test_codes_cases_and_pages_are_the_same():
    codes = house.error_codes(house.sources("linnet/**/*.py"))
    assert {case.code for case in CASES} == codes
    assert {page.stem for page in PAGES.glob("LN-*.md")} == codes
    assert {code for code, _ in TEXTS} == codes
    assert set(TEXTS) == {(case.code, case.name) for case in CASES}


def test_names_of_cases_are_unique():
    assert len({str(case) for case in CASES}) == len(CASES)


# ---- the guards can fail


def harmless():
    return case("LN-NONE-99", "harmless", "model = nn.Dense(3)", start="nothing")


def test_a_mistake_that_is_none_is_seen():
    with pytest.raises(AssertionError, match="no error came of `model = "):
        harmless().provoke()


@pytest.mark.parametrize(
    ("fix", "check"),
    [
        ("model = nn.Dense(-3)", "assert True"),
        ("model = nn.Dense(3)", "assert model.features == 4"),
        ("model = nn.Dense(3)", ""),
    ],
)
def test_a_fix_that_does_not_help_is_seen(fix, check):
    wrong = Case("LN-VALUE-01", "", "model = nn.Dense(-3)", (Remedy(check),), "Dense")
    with pytest.raises((AssertionError, nn.ConfigError)):
        assert_fixed(wrong, [("", fix)])


@pytest.mark.parametrize("fixes", [[], [("", ""), ("", "")]])
def test_a_fix_without_a_remedy_is_seen(fixes):
    wrong = Case("LN-VALUE-01", "", "model = nn.Dense(-3)", (Remedy("pass"),), "Dense")
    with pytest.raises(AssertionError):
        assert_fixed(wrong, fixes)


def test_a_remedy_for_a_line_that_is_not_there_is_seen():
    with pytest.raises(AssertionError, match="'b = 2' is 0 times in the program"):
        Remedy("", before="b = 2").applied("a = 1", "a = 2")


GOOD = {
    "what": "`x` has a fault that is explained.",
    "code": "LN-NONE-99",
    "fixes": [("", "")],
}


@pytest.mark.parametrize(
    "wrong",
    [
        {"what": "`x` is [1.234 1.234], which is too much."},
        {"what": "`x` is Array(1), which is too much."},
        {"what": "`x` is <object at 0x7f12>, which is strange."},
        {"what": "`x` is bad."},
        {"code": "LN-NONE-98"},
        {"fixes": []},
        {"at": "encoder (Dense)"},
        {"facts": {str(i): "fact" for i in range(20)}},
    ],
)
def test_a_bad_message_is_seen(wrong):
    about = Case("LN-NONE-99", "", "", (), "`x`")
    assert_well_formed(nn.ShapeError(**GOOD), about)
    with pytest.raises(AssertionError):
        assert_well_formed(nn.ShapeError(**GOOD | wrong), about)


def test_a_changed_text_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(golden, "FOLDER", pathlib.Path(tmp_path))
    two = [case for case in CASES if case.code == "LN-RNG-03"]
    golden.accept(two)
    assert golden.texts() == {(c.code, c.name): str(c.provoke()) for c in two}
    page = tmp_path / "LN-RNG-03.txt"
    page.write_text(page.read_text("utf-8").replace("seed", "sead"), "utf-8")
    assert golden.texts() != {(c.code, c.name): str(c.provoke()) for c in two}
