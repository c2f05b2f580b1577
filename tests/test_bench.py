"""The measurements run as their documentation says; what they find is not judged here."""

from conftest import ROOT, python_in


def test_tokenize_is_measured_beside_the_tokenizer_alone() -> None:
    done = python_in(ROOT, "bench.tokenize", "--rows", "40", "--mapped", "3", "--rounds", "2")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("40 rows of ")
    assert lines[2].split() == ["rows/s", "bare", "stage", "map", "stage/bare", "by", "processor"]
    assert [line.split()[0] for line in lines[3:]] == ["1", "2", "median"]
