"""The bars of CONTRIBUTING.md: lengths of files and functions, numbers of parameters."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.code_size import CPP_ENDINGS, cpp_parameters, parameter_counts, python_lengths

ROOT = Path(__file__).resolve().parents[1]
PYTHON_LINES, CPP_LINES, FUNCTION_LINES, PARAMETERS = 400, 500, 60, 8
PYTHON = ("mrsi_fast", "kernels", "benchmarks", "training", "csrc", "tests", "examples")


@pytest.mark.parametrize("folder", PYTHON)
def test_python_functions_and_files_are_short(folder: str) -> None:
    long = [str(one) for one in python_lengths(ROOT / folder) if one.count > FUNCTION_LINES]
    for path in sorted((ROOT / folder).rglob("*.py")):
        lines = len(path.read_text(encoding="utf-8").splitlines())
        long += [f"{path} ({lines})"] if lines > PYTHON_LINES else []
    assert not long, "\n".join(long)


def test_cpp_functions_and_files_are_short() -> None:
    sources = [path for path in sorted((ROOT / "csrc").rglob("*")) if path.suffix in CPP_ENDINGS]
    assert len(sources) > 30
    long = [str(path) for path in sources if len(path.read_text(encoding="utf-8").splitlines()) > CPP_LINES]
    long += [str(one) for one in cpp_parameters(ROOT / "csrc") if one.count > PARAMETERS]
    assert not long, "\n".join(long)


def test_parameters_are_counted() -> None:
    source = """
    #define CHECK(a, b) if (a) { b; }
    // comment(a, b) {
    static inline void one(const float* const* row, std::array<int, 4> sizes, int (*f)(int, int)) { two(1, 2, 3, 4); }
    int64_t declared(int64_t a,
                     int64_t b);
    Plan::Plan(int a, int b) : a_(a), b_(b) {}
    auto sum = [](int a, int b, int c) -> int { return a + b + c; };
    void none(void) { if (x) { g(1, 2); } return call(1, 2); }
    asm volatile("" : "=r"(a), "=r"(b));
    Kernel k = make(1, 2, 3);
    """
    assert list(parameter_counts(source)) == [
        ("one", 3), ("declared", 2), ("Plan", 2), ("a lambda", 3), ("none", 0),
    ]  # fmt: skip
