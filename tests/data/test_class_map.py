import pytest

from fadrm_hf.data.class_map import ClassMap, describe_difference
from fadrm_hf.errors import ClassMapError

pytestmark = pytest.mark.numerical


def named(*names: str) -> ClassMap:
    return ClassMap(names, names)


def test_permutation_by_id_puts_the_others_columns_into_our_order():
    ours, other = named("a", "b", "c"), named("c", "a", "b")
    order = ours.permutation_from(other)
    assert order == (1, 2, 0)
    assert tuple(other.ids[index] for index in order) == ours.ids


def test_ids_win_over_names():
    ours = ClassMap(("n1", "n2"), ("crane", "heron"))
    other = ClassMap(("n2", "n1"), ("crane", "heron"))
    assert ours.permutation_from(other) == (1, 0)


@pytest.mark.parametrize(
    "theirs",
    [
        ("Sweet Pepper", "maple-tree", "TENCH"),
        ("sweetpepper", "mapletree", "tench"),
        ("sweet_pepper, capsicum", "Maple Tree, Acer", "tench, Tinca tinca"),
    ],
)
def test_names_match_without_case_separators_and_synonyms(theirs):
    ours = ClassMap(("0", "1", "2"), ("tench", "sweet_pepper", "maple tree"))
    assert ours.permutation_from(ClassMap(("x", "y", "z"), theirs)) == (2, 0, 1)


def test_full_names_tell_apart_what_first_synonyms_do_not():
    ours = ClassMap(("0", "1"), ("crane, bird", "crane, machine"))
    assert ours.permutation_from(ClassMap(("a", "b"), ("Crane, Machine", "Crane, Bird"))) == (1, 0)


def test_the_other_may_have_more_classes():
    assert named("b", "d").permutation_from(named("a", "b", "c", "d")) == (1, 3)


def test_a_duplicate_that_is_not_needed_does_no_harm():
    assert named("b").permutation_from(named("crane", "b", "Crane")) == (1,)


@pytest.mark.parametrize(
    ("ours", "other"),
    [
        (("a", "b"), ("a", "c")),
        (("a", "b", "c"), ("a", "b")),
        (("Crane", "b"), ("crane", "CRANE", "b")),
        (("crane", "CRANE"), ("b", "crane", "heron")),
    ],
)
def test_absent_or_ambiguous_classes_do_not_match(ours, other):
    assert named(*ours).permutation_from(named(*other)) is None


def test_equal_maps_need_no_unambiguous_names():
    assert named("crane", "crane").permutation_from(named("crane", "crane")) == (0, 1)


def test_hash_depends_on_order_and_bounds_of_ids_only():
    assert named("a", "b").hash == ClassMap(("a", "b"), ("x", "y")).hash
    assert len({named("a", "b").hash, named("b", "a").hash, named("ab").hash, named('a", "b').hash}) == 4
    assert len(named("a").hash) == 64


def test_json_round_trip():
    ours = ClassMap(("n1", "n2"), ("tench, Tinca", "Köter"))
    assert ClassMap.from_json(ours.to_json()) == ours


def test_a_name_for_each_id():
    with pytest.raises(ClassMapError, match="2 ids and 1 names"):
        ClassMap(("a", "b"), ("a",))


def test_difference_in_order_names_positions_and_permutation():
    text = describe_difference(named("a", "b", "c"), named("a", "c", "b"))
    assert "2 of 3 classes" in text
    assert "class 1 ('b') is its class 2" in text
    assert text.endswith("permutation [0, 2, 1]")


def test_difference_of_many_classes_is_shortened():
    names = [f"class{index:03d}" for index in range(1000)]
    text = describe_difference(named(*names), named(*reversed(names)))
    assert "1000 of 1000" in text
    assert "…" in text
    assert len(text) < 300


def test_difference_names_absent_classes_and_both_counts():
    text = describe_difference(named("cat", "dog"), named("cat", "bus", "car"))
    assert "2 classes, the other 3" in text
    assert "1 of the source's classes" in text
    assert "'dog'" in text


def test_difference_names_ambiguous_classes():
    assert "'crane' occurs twice" in describe_difference(named("Crane", "b"), named("crane", "CRANE", "b"))


def test_no_difference_is_said_plainly():
    assert describe_difference(named("a"), named("a")) == "the same classes and order"
    assert "then 1 more" in describe_difference(named("a"), named("a", "b"))
