import pytest
import timm
import torch

from fadrm_hf.errors import StudentError
from fadrm_hf.students import create_student, list_students


def test_listed_students_exist_and_are_described() -> None:
    students = list_students()
    known = set(timm.list_models())
    assert all(name.removeprefix("timm/") in known for name in students)
    assert all(description for description in students.values())


@pytest.mark.parametrize("name", ["timm/resnet18", "torchvision/resnet18"])
def test_small_images_get_the_small_stem(name: str) -> None:
    student = create_student(name, 5, 32)
    assert student.conv1.kernel_size == (3, 3)
    assert create_student(name, 5, 224).conv1.kernel_size == (7, 7)


def test_torchvision_names_reach_timms_twin() -> None:
    assert create_student("torchvision/mobilenet_v2", 5, 32).conv_stem.stride == (1, 1)
    assert type(create_student("torchvision/mobilenet_v2", 5, 224)).__module__.startswith("torchvision")


def test_a_transformer_of_a_fixed_size_is_told_the_size() -> None:
    student = create_student("timm/vit_tiny_patch16_224", 5, 64).eval()
    with torch.no_grad():
        assert student(torch.zeros(1, 3, 64, 64)).shape == (1, 5)


def test_the_same_random_state_gives_the_same_student() -> None:
    first, second = (torch.manual_seed(3) and create_student("timm/resnet10_narrow", 5, 16) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm/resnet81", r"unknown student 'timm/resnet81'; did you mean .*--student\.student"),
        ("torchvision/resnet81", r"did you mean .*'torchvision/resnet"),
        ("resnet18", r"'resnet18' must be 'timm/ARCHITECTURE'"),
        ("keras/resnet18", r"'keras/resnet18' must be"),
    ],
)
def test_unknown_students_are_refused_with_a_hint(name: str, message: str) -> None:
    with pytest.raises(StudentError, match=message):
        create_student(name, 5, 32)
