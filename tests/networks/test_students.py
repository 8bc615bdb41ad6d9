import pytest
import torch
import torchvision

from fadrm_hf.config import StudentConfig
from fadrm_hf.config.architectures import ARCHITECTURES, find_architecture, full_name, list_students
from fadrm_hf.errors import StudentError
from fadrm_hf.networks.small_images import small_variant
from fadrm_hf.networks.students import check_student, count_parameters, create_student, sizes_of

pytestmark = pytest.mark.numerical

# What torchvision states of its own networks, and timm's authors of those that torchvision lacks.
TORCHVISION = {
    "resnet18": "resnet18", "resnet50": "resnet50", "resnet101": "resnet101", "efficientnet_b0": "efficientnet_b0",
    "mobilenetv2": "mobilenet_v2", "shufflenetv2_x0_5": "shufflenet_v2_x0_5", "swin_tiny": "swin_t",
    "wrn50_2": "wide_resnet50_2", "densenet121": "densenet121", "densenet169": "densenet169",
    "densenet201": "densenet201", "convnext_tiny": "convnext_tiny", "vgg11_bn": "vgg11_bn",
}  # fmt: skip


def built(name: str, num_classes: int, size: int) -> tuple[int, tuple[int, ...]]:
    """Parameters, and the shape of the logits of two images; no memory is taken and nothing is computed."""
    with torch.device("meta"), torch.no_grad():
        student = create_student(name, num_classes, size).eval()
        shape = tuple(student(torch.zeros(2, 3, size, size)).shape)
    return sum(parameter.numel() for parameter in student.parameters()), shape


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_of_the_tables_is_built_by_its_short_name(name: str) -> None:
    architecture = ARCHITECTURES[name]
    parameters = {}
    for size, num_classes in ((32, 10), (224, 1000)):
        parameters[num_classes, size], shape = built(name, num_classes, size)
        assert shape == (2, num_classes)
    assert parameters[architecture.measured_at] == architecture.parameters
    assert full_name(name) == architecture.student == StudentConfig(student=name).student
    assert find_architecture(name) is find_architecture(architecture.student) is architecture
    library_name = architecture.student.removeprefix("timm/")
    assert architecture.has_small_stem == (small_variant(library_name) is not None)


@pytest.mark.parametrize("name", TORCHVISION)
def test_parameters_are_those_that_torchvision_states(name: str) -> None:
    (weights, *_) = torchvision.models.get_model_weights(TORCHVISION[name])
    assert ARCHITECTURES[name].parameters == weights.meta["num_params"]
    assert find_architecture(f"torchvision/{TORCHVISION[name]}") is ARCHITECTURES[name]


def test_a_line_of_the_list_says_what_a_student_is() -> None:
    assert list_students()["timm/mobilenetv2_100"] == (
        "mobilenetv2: MobileNetV2; 3.5 M parameters (1,000 classes, 224 px); 3x3 stem up to 64 px; FADRM Table 2, "
        "EDC Table 2"
    )


@pytest.mark.parametrize("name", ["timm/resnet18", "torchvision/resnet18"])
def test_small_images_get_the_small_stem(name: str) -> None:
    student = create_student(name, 5, 32)
    assert student.conv1.kernel_size == (3, 3)
    assert create_student(name, 5, 224).conv1.kernel_size == (7, 7)


def test_torchvision_names_reach_timms_twin() -> None:
    assert create_student("torchvision/mobilenet_v2", 5, 32, "library").conv_stem.stride == (1, 1)
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
        ("resnet81", r"'resnet81' must be 'timm/ARCHITECTURE'.*or a short name, of resnet18, resnet50"),
        ("keras/resnet18", r"'keras/resnet18' must be"),
    ],
)
def test_unknown_students_are_refused_with_a_hint(name: str, message: str) -> None:
    with pytest.raises(StudentError, match=message):
        create_student(name, 5, 32)


def test_an_image_that_is_too_small_is_refused_with_the_sizes_that_are_not() -> None:
    """GCViT partitions its maps into windows of a 32nd of the image, and divides by what is left of them."""
    before = torch.random.get_rng_state()
    message = (
        r"cannot take images of 16x16 pixels \(.*zero\); of the usual sizes it takes 32, 64, 96, 128, 160, 224: set"
    )
    with pytest.raises(StudentError, match=message):
        check_student("timm/gcvit_xxtiny", 5, 16)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_parameters_of_a_student_are_counted_for_its_classes_and_size() -> None:
    assert count_parameters("resnet18", 10, 32) == 11_173_962  # kuangliu's ResNet-18 for CIFAR-10
    assert count_parameters("convnet4_bn", 10, 64) == sum(
        parameter.numel() for parameter in create_student("convnet4_bn", 10, 64).parameters()
    )
    assert sizes_of("convnet4_bn") == [16, 32, 64, 96, 128, 160, 224]
