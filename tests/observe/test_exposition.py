"""The text format: what is written is what a parser reads, in pieces of whole lines."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from wgmp.observe.exposition import Family, labels, write

VALUES = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=30)


@given(VALUES, VALUES)
def test_any_label_is_read_back(first: str, second: str) -> None:
    family = Family("wgmp_x_total", "counter", "Some", [(labels(a=first, b=second), 3)])
    (read,) = text_string_to_metric_families("".join(write([family])))
    (sample,) = read.samples
    assert sample.labels == {name: v for name, v in (("a", first), ("b", second)) if v}
    assert sample.value == 3
    assert (read.type, read.documentation) == ("counter", "Some")


def test_a_long_family_comes_in_pieces_that_end_with_a_line() -> None:
    samples = [(labels(n=str(number)), number) for number in range(10_000)]
    pieces = list(write([Family("wgmp_x", "gauge", "Some", samples)]))
    assert len(pieces) > 5
    assert all(piece.endswith("\n") and len(piece) < 100_000 for piece in pieces)
    (read,) = text_string_to_metric_families("".join(pieces))
    assert [sample.value for sample in read.samples] == list(range(10_000))


def test_without_labels_there_are_no_braces() -> None:
    assert "".join(write([Family("wgmp_x", "gauge", "Some", [(labels(a=""), 0.5)])])) == (
        "# HELP wgmp_x Some\n# TYPE wgmp_x gauge\nwgmp_x 0.5\n"
    )
