"""Plain data whose fields say what their values must be.

A field is annotated with a type of pydantic's. Where that has a description,
it is the rule that an error states: "epochs must be 1 or more. Received:
epochs=0".
"""

import dataclasses
import functools
import inspect
import typing

import pydantic
from pydantic.dataclasses import dataclass, is_pydantic_dataclass

from kanets.checks import nearest


@typing.dataclass_transform(frozen_default=True)
def typed(kind=None, *, called=None, others=()):
    """A frozen dataclass that checks its values.

    A field whose type is such a class is a section, and may be given as a
    dict. A list stands for a tuple, and an int for a float.

    Args:
        kind: the class, as of `dataclasses.dataclass`.
        called: str, what sentences call it; default: by its name.
        others: names that a misspelt field may mean besides those it has.

    Returns:
        The class. It raises a ValueError that names the unknown fields, with
        the nearest known ones, or else the first value against its rule.
    """
    if kind is None:
        return functools.partial(typed, called=called, others=others)
    config = pydantic.ConfigDict(extra="forbid")
    kind = dataclass(frozen=True, config=config)(kind)
    signature, initialize = inspect.signature(kind), kind.__init__

    @functools.wraps(initialize)
    def __init__(self, *args, **kwargs):
        named = signature.bind_partial(*args).arguments
        try:
            initialize(self, **named, **kwargs)
        except pydantic.ValidationError as error:
            where = called or kind.__name__
            values = {**named, **kwargs}
            raise _refusal(error, kind, values, where, others) from None

    kind.__init__ = __init__
    return kind


def refused(name, value, rule):
    """The error of a value; a section's name may stand before its name."""
    return ValueError(
        f"{name} must be {rule}. Received: {name.rpartition('.')[2]}={value!r}"
    )


def _refusal(error, kind, values, where, others):
    problems = error.errors(include_url=False)
    unknown = [
        p for p in problems if p["type"] == "unexpected_keyword_argument"
    ]
    problem = (unknown or problems)[0]
    place = problem["loc"]
    if "error" in problem.get("ctx", ()):  # raised by a check of ours
        return problem["ctx"]["error"]
    path = []
    while is_pydantic_dataclass(kind) and len(path) < len(place):
        fields, name = kind.__pydantic_fields__, place[len(path)]
        if name not in fields:
            names = [
                p["loc"][-1] for p in unknown if p["loc"][:-1] == place[:-1]
            ]
            hint = nearest(names, [*fields, *others])
            return ValueError(
                f"The fields of {where} are {[*fields]}{hint}. "
                f"Received: {sorted(names)}"
            )
        kind, value = fields[name].annotation, values.get(name)
        path, values = [*path, name], value
        where, others = f"[{name}] of {where}", ()
    rule = fields[name].description
    if rule is None and len(path) < len(place):  # of what is in a value
        path, value = map(str, place), problem["input"]
    return refused(".".join(path), value, rule or _rule(problem))


def _rule(problem):
    """A rule that no description states."""
    match problem["type"], problem.get("ctx"):
        case "missing", _:
            return "given"
        case "literal_error", {"expected": values}:
            return f"one of {values}"
        case "dataclass_type", {"class_name": name}:
            by_hand = dataclasses.is_dataclass(problem["input"])
            return f"of the class {name}" if by_hand else "a section"
    return problem["msg"].removeprefix("Input should be ").partition(",")[0]
