"""Requests by chance: any message of the protocol, with names that hit what is there often enough to get somewhere."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

M = TypeVar("M", bound=Message)

_ODD_TEXT = st.text(max_size=12) | st.sampled_from(("", " ", "*", "a || b", "%DLQ%team", "x" * 300, "\x00", "é" * 200))
_INTEGERS = st.sampled_from((0, 1, 2, 7, 32, 1000)) | st.integers(-(2**31), 2**31 - 1)
_UNSIGNED = st.sampled_from((0, 1, 2, 7, 32, 1000)) | st.integers(0, 2**32 - 1)
_LONG = st.sampled_from((0, 1, -1, 2**40)) | st.integers(-(2**63), 2**63 - 1)
_LONG_UNSIGNED = st.sampled_from((0, 1, 2**40)) | st.integers(0, 2**64 - 1)
_BY_TYPE: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=40),
    FieldDescriptor.TYPE_INT32: _INTEGERS,
    FieldDescriptor.TYPE_INT64: _LONG,
    FieldDescriptor.TYPE_UINT32: _UNSIGNED,
    FieldDescriptor.TYPE_UINT64: _LONG_UNSIGNED,
    FieldDescriptor.TYPE_FIXED64: _LONG_UNSIGNED,
    FieldDescriptor.TYPE_FLOAT: st.floats(width=32),
    FieldDescriptor.TYPE_DOUBLE: st.floats(),
}
_DEPTH = 6


Words = Callable[[str], Sequence[str]]
"""What a text field may well hold, by its place: the names of the fields that lead to it from the second last on, as in
`topic.name` or `system_properties.message_id`."""


def requests(kind: Callable[..., M], words: Words, depth: int = _DEPTH) -> st.SearchStrategy[M]:
    """Messages of that class."""

    @st.composite
    def build(draw: st.DrawFn) -> M:
        message = kind()
        _fill(draw, message, words, depth, "")
        return message

    return build()


def _fill(draw: st.DrawFn, message: Message, words: Words, depth: int, within: str) -> None:
    for field in message.DESCRIPTOR.fields:
        if not draw(st.sampled_from((True,) * 7 + (False,))):
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            for key in draw(st.lists(_ODD_TEXT, max_size=3)):
                getattr(message, field.name)[key] = draw(_ODD_TEXT)
        elif field.message_type is not None:
            _fill_submessage(draw, message, field, words, depth)
        elif field.is_repeated:
            getattr(message, field.name).extend(draw(st.lists(_values(field, words, within), max_size=4)))
        else:
            setattr(message, field.name, draw(_values(field, words, within)))


def _fill_submessage(draw: st.DrawFn, message: Message, field: Any, words: Words, depth: int) -> None:
    if not depth:
        return
    if field.is_repeated:
        for _ in range(draw(st.integers(0, 3))):
            _fill(draw, getattr(message, field.name).add(), words, depth - 1, field.name)
    else:
        part = getattr(message, field.name)
        part.SetInParent()
        _fill(draw, part, words, depth - 1, field.name)


def _values(field: Any, words: Words, within: str) -> st.SearchStrategy[Any]:
    if field.type == FieldDescriptor.TYPE_STRING:
        known = words(f"{within}.{field.name}")
        return _mostly(known) if known else _ODD_TEXT
    if field.type == FieldDescriptor.TYPE_ENUM:
        return st.sampled_from([value.number for value in field.enum_type.values]) | st.sampled_from((99, -1))
    return _BY_TYPE[field.type]


@st.composite
def _mostly(draw: st.DrawFn, known: Sequence[str]) -> str:
    return draw(st.sampled_from(known) if draw(st.integers(0, 9)) else _ODD_TEXT)
