"""The rules of buf's STANDARD and COMMENTS categories that the API must keep, checked on the compiled descriptors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc

ROOT = Path(__file__).parents[3] / "proto"
FILES = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("runner/**/*.proto"))
SNAKE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
PASCAL = re.compile(r"([A-Z][a-z0-9]*)+")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, FileDescriptorProto]:
    target = tmp_path_factory.mktemp("proto") / "set"
    well_known = Path(protoc.__file__).parent / "_proto"
    code = protoc.main(
        [
            "protoc",
            f"-I{ROOT}",
            f"-I{well_known}",
            "--include_source_info",
            f"--descriptor_set_out={target}",
            *FILES,
        ]
    )
    assert code == 0
    return {file.name: file for file in FileDescriptorSet.FromString(target.read_bytes()).file}


def elements(file: FileDescriptorProto) -> Iterator[tuple[tuple[int, ...], str]]:
    """Yield the path and name of every element that needs a comment (descriptor.proto numbers the paths)."""
    for i, message in enumerate(file.message_type):
        yield (4, i), message.name
        for j, field in enumerate(message.field):
            yield (4, i, 2, j), f"{message.name}.{field.name}"
        for j, oneof in enumerate(message.oneof_decl):
            if not oneof.name.startswith("_"):
                yield (4, i, 8, j), f"{message.name}.{oneof.name}"
    for i, enum in enumerate(file.enum_type):
        yield (5, i), enum.name
        for j, value in enumerate(enum.value):
            yield (5, i, 2, j), f"{enum.name}.{value.name}"
    for i, service in enumerate(file.service):
        yield (6, i), service.name
        for j, method in enumerate(service.method):
            yield (6, i, 2, j), f"{service.name}.{method.name}"


@pytest.mark.parametrize("name", FILES)
def test_everything_has_a_comment_that_is_a_sentence(compiled, name: str) -> None:
    """Each rpc, message, field, enum and value says in the third person what it does."""
    file = compiled[name]
    comments = {
        tuple(item.path): item.leading_comments.strip() for item in file.source_code_info.location
    }
    found = list(elements(file))
    assert len(found) > 3
    assert [label for path, label in found if not comments.get(path, "").endswith(".")] == []


@pytest.mark.parametrize("name", FILES)
def test_names(compiled, name: str) -> None:
    """Files and fields are snake_case, types PascalCase, enum values prefixed and their zero UNSPECIFIED."""
    file = compiled[name]
    assert file.package == "runner.v1"
    assert SNAKE.fullmatch(Path(name).stem)
    for message in file.message_type:
        assert PASCAL.fullmatch(message.name)
        for field in message.field:
            assert SNAKE.fullmatch(field.name), field.name
            is_timestamp = field.type_name == ".google.protobuf.Timestamp"
            assert is_timestamp == field.name.endswith("_time"), field.name
    for enum in file.enum_type:
        prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", enum.name).upper() + "_"
        assert all(value.name.startswith(prefix) for value in enum.value), enum.name
        assert (enum.value[0].name, enum.value[0].number) == (prefix + "UNSPECIFIED", 0)


@pytest.mark.parametrize("name", FILES)
def test_every_rpc_has_its_own_pair(compiled, name: str) -> None:
    """Request and response are named after the rpc and used once."""
    for service in compiled[name].service:
        assert service.name.endswith("Service")
        for method in service.method:
            assert method.input_type == f".runner.v1.{method.name}Request"
            assert method.output_type == f".runner.v1.{method.name}Response"


def test_reasons_on_the_wire_are_those_of_the_errors() -> None:
    """Every reason that an error class carries to a client exists in the published enum."""
    from daemon.server.statuses import STATUS

    text = (ROOT / "runner/v1/error.proto").read_text()
    published = set(re.findall(r"ERROR_REASON_(\w+) =", text)) - {"UNSPECIFIED"}
    assert published == set(STATUS)
