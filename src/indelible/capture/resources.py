"""What a request was about: resource type and id from the route's template, else from the URL."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

_PLACEHOLDER: Final = re.compile(r"\{\s*(\w+)")
_PREFIX: Final = re.compile(r"api|rest|v\d+(?:\.\d+)*|admin")
_ACTION_WORDS: Final = frozenset(("login", "logout", "register"))
_TYPE: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_ID: Final = re.compile(
    r"\d+|[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}|[0-9a-fA-F]{24,64}|[0-7][0-9A-HJKMNP-TV-Z]{25}"
    r"|(?=[\w-]*\d)[A-Za-z]+[_-][\w-]+"  # prefixed ids: usr_1a2b
)
_SINGULAR: Final = {
    "people": "person", "children": "child", "indices": "index", "matrices": "matrix", "vertices": "vertex",
    "analyses": "analysis", "movies": "movie", "cookies": "cookie", "caches": "cache", "statuses": "status",
    "aliases": "alias", "buses": "bus", "bonuses": "bonus", "viruses": "virus", "campuses": "campus",
    "leaves": "leaf", "series": "series", "species": "species", "news": "news", "analytics": "analytics",
    "kubernetes": "kubernetes", "canvas": "canvas", "atlas": "atlas", "alias": "alias", "https": "https",
    "axes": "axis", "sizes": "size", "lens": "lens", "diagnoses": "diagnosis",
}  # fmt: skip


def singular(word: str) -> str:
    """The singular of an English plural, as path segments have them: ``policies`` → ``policy``, ``status`` stays."""
    head, joint, last = word.rpartition("_")
    if last in _SINGULAR:
        last = _SINGULAR[last]
    elif len(last) <= 3 or not last.endswith("s") or last.endswith(("ss", "us", "is")):
        pass
    elif last.endswith("ies"):
        last = last[:-3] + "y" if len(last) > 4 else last[:-1]
    elif last.endswith(("sses", "xes", "zzes", "ches", "shes")):
        last = last[:-2]
    else:
        last = last[:-1]
    return head + joint + last


def _type(segments: list[str]) -> str | None:
    words = [segment.lower().replace("-", "_") for segment in segments]
    plain = [word for word in words if not _PREFIX.fullmatch(word)] or [word for word in words[-1:] if word == "admin"]
    if plain and plain[-1] in _ACTION_WORDS:
        plain.pop()
    if not plain or not _TYPE.fullmatch(plain[-1]):
        return None
    return singular(plain[-1])


@lru_cache(maxsize=1024)
def parse_template(template: str) -> tuple[str | None, str | None]:
    """The resource type and the name of the path parameter that holds its id.

    The last parameter is the id, the words before it name the type: ``/api/orgs/{org}/users/{uid}/role`` → ``user``,
    ``uid``. Without a parameter the last word names the type.
    """
    segments = [segment for segment in template.split("/") if segment]
    last = max((at for at, segment in enumerate(segments) if _PLACEHOLDER.search(segment)), default=None)
    words = [segment for segment in segments[:last] if "{" not in segment]
    if last is None:
        return _type(words), None
    return _type(words), _PLACEHOLDER.findall(segments[last])[-1]


def parse_url(path: str) -> tuple[str | None, str | None]:
    """The same from a URL without a template: ``/api/nodes/42`` → ``node``, ``42``. Only what looks like an id is one."""
    segments = [segment for segment in path[:2048].split("/") if segment]
    last = max((at for at, segment in enumerate(segments) if at and _ID.fullmatch(segment)), default=None)
    words = [segment for segment in segments[:last] if not _ID.fullmatch(segment)]
    return _type(words), segments[last] if last is not None else None


def full_template(template: str, path: str, params: Mapping[str, object]) -> str:
    """The template from the root on: mounts and the prefixes of included routers stand before what the scope tells.

    They are taken from the path itself, where the values of their parameters are replaced by the names. ``path`` is that
    of the request without the server's own root path.
    """
    segments = [segment for segment in path.split("/") if segment]
    inner = [segment for segment in template.split("/") if segment]
    covered = sum(_width(segment, params) for segment in inner)
    free = {name: value for name, value in params.items() if f"{{{name}" not in template}
    return _named(segments[: max(0, len(segments) - covered)], free) + "/" + "/".join(inner)


def mounted_template(path: str, root_path: str, params: Mapping[str, object]) -> str:
    """The template of a mount whose application has no routes of its own, such as static files."""
    segments = [segment for segment in path.split("/") if segment]
    return _named(_within(segments, root_path), params)


def _within(segments: list[str], mounted: str) -> list[str]:
    """The segments that the mounts on the way have eaten: those at the end of ``mounted``."""
    eaten = [segment for segment in mounted.split("/") if segment]
    return next((segments[:n] for n in range(len(segments), 0, -1) if eaten[-n:] == segments[:n]), [])


def _width(segment: str, params: Mapping[str, object]) -> int:
    """How many segments of a path this segment of a template stands for: a parameter may hold slashes."""
    match = _PLACEHOLDER.match(segment)
    if match is None or match[1] not in params:
        return 1
    return sum(1 for part in str(params[match[1]]).split("/") if part)


def _named(segments: list[str], params: Mapping[str, object]) -> str:
    names = {str(value): name for name, value in params.items()}
    return "".join(f"/{{{names[segment]}}}" if segment in names else f"/{segment}" for segment in segments)


def resource(scope: Mapping[str, Any], path: str, status: int | None) -> tuple[str | None, object]:
    """Resource type and id of a served request. An address that no route knows names no resource.

    The template is what the innermost router matched (Starlette, FastAPI: ``route``; Litestar: ``path_template``).
    """
    route = scope.get("route")
    template = scope.get("path_template") or getattr(route, "path_format", None) or getattr(route, "path", None)
    if not isinstance(template, str):
        template = None
    mount = hasattr(route, "routes")
    if status == 404 and (template is None or mount):
        return None, None
    if template is None:
        return parse_url(path)
    params: Mapping[str, object] = scope.get("path_params") or {}
    if mount:
        kind, parameter = parse_template(mounted_template(path, str(scope.get("root_path") or ""), params))
    else:
        kind, parameter = parse_template(template)
        if kind is None or (parameter is None and params):  # the words, or the parameter, are in the part before
            kind, parameter = parse_template(full_template(template, path, params))
    return kind, params.get(parameter) if parameter is not None else None
