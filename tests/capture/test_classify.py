"""The classification table and the names of resources."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indelible.capture.classify import Exchange, Rules, action
from indelible.capture.resources import full_template, parse_template, parse_url, resource, singular
from indelible.taxonomy import GUIDE_EVENT_TYPES, STATUSES

RULES = Rules()


@pytest.mark.parametrize(
    ("method", "path", "status", "kind", "outcome"),
    [
        ("GET", "/api/nodes", 200, "data_access", "success"),
        ("HEAD", "/api/nodes", 200, "data_access", "success"),
        ("POST", "/api/nodes", 201, "data_create", "success"),
        ("PUT", "/api/nodes/1", 200, "data_modify", "success"),
        ("PATCH", "/api/nodes/1", 422, "data_modify", "failure"),
        ("DELETE", "/api/nodes/1", 204, "data_delete", "success"),
        ("GET", "/api/nodes", 401, "data_access", "denied"),
        ("GET", "/api/nodes", 404, "data_access", "failure"),
        ("GET", "/api/nodes", 500, "data_access", "failure"),
        ("GET", "/api/nodes", None, "data_access", "failure"),
        ("GET", "/api/nodes", 403, "permission_denied", "denied"),
        ("DELETE", "/api/admin/users/1", 403, "permission_denied", "denied"),
        ("POST", "/api/auth/login", 200, "login", "success"),
        ("POST", "/login/", 303, "login", "success"),
        ("POST", "/api/auth/login", 401, "login_failed", "failure"),
        ("POST", "/api/auth/login", 422, "login_failed", "failure"),
        ("POST", "/api/auth/login", 500, "login_failed", "failure"),
        ("POST", "/api/auth/login", 403, "login_failed", "denied"),
        ("POST", "/admin/login", 200, "login", "success"),
        ("GET", "/api/auth/login", 200, "data_access", "success"),  # the form, not the log-in
        ("OPTIONS", "/api/auth/login", 200, "api_request", "success"),
        ("POST", "/api/auth/logout", 204, "logout", "success"),
        ("GET", "/logout", 302, "logout", "success"),
        ("POST", "/api/auth/logout", 401, "logout", "denied"),
        ("POST", "/api/auth/register", 201, "user_created", "success"),
        ("POST", "/api/auth/register", 409, "data_create", "failure"),
        ("GET", "/api/auth/register", 200, "data_access", "success"),
        ("GET", "/api/admin/users", 200, "admin_action", "success"),
        ("PATCH", "/api/admin/users/1", 404, "admin_action", "failure"),
        ("GET", "/Admin", 200, "admin_action", "success"),
        ("GET", "/api/administrators", 200, "data_access", "success"),
        ("OPTIONS", "/api/nodes", 204, "api_request", "success"),
        ("WEBSOCKET", "/ws", 101, "api_request", "success"),
        ("WEBSOCKET", "/ws", 403, "permission_denied", "denied"),
        ("PROPFIND", "/dav", 207, "api_request", "success"),
    ],
)
def test_the_table(method: str, path: str, status: int | None, kind: str, outcome: str) -> None:
    """Each row of the classification table, first match first."""
    assert RULES(Exchange(method, path, status)) == (kind, outcome)


def test_an_exception_goes_before_everything() -> None:
    """Whatever was asked for, an exception is ``api_request_error`` and a failure."""
    assert RULES(Exchange("POST", "/api/auth/login", 500, raised=True)) == ("api_request_error", "failure")
    assert RULES(Exchange("GET", "/api/admin", 200, raised=True)) == ("api_request_error", "failure")


@given(st.text(max_size=10), st.text(max_size=30), st.none() | st.integers(100, 999), st.booleans())
def test_every_request_has_a_place(method: str, path: str, status: int | None, raised: bool) -> None:
    """There is no request that the vocabulary has no words for."""
    kind, outcome = RULES(Exchange(method, path, status, raised))
    assert kind in GUIDE_EVENT_TYPES
    assert outcome in STATUSES


def test_actions() -> None:
    """The action is the log-in's, log-out's or registration's name, else the method's verb."""
    assert [action("data_access", m) for m in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")] == [
        "read", "read", "create", "update", "update", "delete", "options", "trace",
    ]  # fmt: skip
    assert [action(t, "POST") for t in ("login", "login_failed", "logout", "user_created", "admin_action")] == [
        "login", "login", "logout", "register", "create",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("plural", "expected"),
    [
        ("nodes", "node"), ("policies", "policy"), ("status", "status"), ("statuses", "status"), ("addresses", "address"),
        ("address", "address"), ("boxes", "box"), ("batches", "batch"), ("caches", "cache"), ("people", "person"),
        ("analysis", "analysis"), ("databases", "database"), ("responses", "response"), ("ties", "tie"), ("movies", "movie"),
        ("dns", "dns"), ("audit_logs", "audit_log"), ("gas", "gas"), ("access", "access"), ("data", "data"),
        ("series", "series"),
        ("keys", "key"), ("sizes", "size"), ("buses", "bus"), ("news", "news"), ("user", "user"), ("s", "s"), ("", ""),
    ],
)  # fmt: skip
def test_singular(plural: str, expected: str) -> None:
    """Plurals as paths have them become singulars; words that only end in s stay."""
    assert singular(plural) == expected


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("/api/nodes/{node_id}", ("node", "node_id")),
        ("/api/nodes/{node_id}/restart", ("node", "node_id")),
        ("/api/nodes", ("node", None)),
        ("/api/v1/orgs/{org}/users/{uid}", ("user", "uid")),
        ("/files/{bucket}/{key:path}", ("file", "key")),
        ("/api/audit-logs/{ id }", ("audit_log", "id")),
        ("/api/auth/login", ("auth", None)),
        ("/login", (None, None)),
        ("/api/admin", ("admin", None)),
        ("/api/admin/users/{id}", ("user", "id")),
        ("/{id}", (None, "id")),
        ("/reports/{year}-{month}.pdf", ("report", "month")),
        ("/", (None, None)),
        ("/api", (None, None)),
    ],
)
def test_templates(template: str, expected: tuple[str | None, str | None]) -> None:
    """The last parameter is the id, the word before it the type; prefixes are no types."""
    assert parse_template(template) == expected


UUID = "0193d5a0-7c2e-7000-8000-000000000001"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/api/nodes/42", ("node", "42")),
        ("/api/policies/", ("policy", None)),
        (f"/api/users/{UUID}/posts", ("user", UUID)),
        ("/api/status", ("status", None)),
        ("/jobs/507f1f77bcf86cd799439011", ("job", "507f1f77bcf86cd799439011")),
        ("/jobs/01ARZ3NDEKTSV4RRFFQ69G5FAV", ("job", "01ARZ3NDEKTSV4RRFFQ69G5FAV")),
        ("/customers/cus_4fdAW5", ("customer", "cus_4fdAW5")),
        ("/42", (None, None)),
        ("/", (None, None)),
        ("/api/Ünïcode", (None, None)),
        ("/api/a%0Ab", (None, None)),
    ],
)
def test_urls_without_a_template(path: str, expected: tuple[str | None, str | None]) -> None:
    """Without a route the URL names the resource, as far as a segment looks like an id."""
    assert parse_url(path) == expected


@given(st.text(max_size=60))
def test_no_url_makes_it_raise(path: str) -> None:
    """Any text is a path; what is told as a type is a plain word."""
    for parse in (parse_url, parse_template):
        kind, _ = parse(path)
        assert kind is None or kind.replace("_", "a").isalnum()


@pytest.mark.parametrize(
    ("template", "path", "params", "full"),
    [
        ("/nodes/{nid}", "/api/nodes/5", {"nid": "5"}, "/api/nodes/{nid}"),
        ("/nodes/{nid}", "/t/acme/nodes/5", {"nid": 5, "tenant": "acme"}, "/t/{tenant}/nodes/{nid}"),
        ("/{key}", "/files/a/b/c", {"key": "a/b/c"}, "/files/{key}"),
        ("/", "/api/nodes/", {}, "/api/nodes/"),
        ("/restart", "/nodes/5/restart", {"nid": "5"}, "/nodes/{nid}/restart"),
        ("/a/b/c", "/c", {}, "/a/b/c"),
    ],
)
def test_the_outer_part_of_a_template(template: str, path: str, params: dict[str, Any], full: str) -> None:
    """Mounts and router prefixes are put back before the template that the scope tells."""
    assert full_template(template, path, params) == full


def test_an_unknown_address_names_no_resource() -> None:
    """404 without a route: the words of the path are the client's, and stay out of the type."""
    assert resource({}, "/api/nodes/42", 404) == (None, None)
    assert resource({}, "/api/nodes/42", 200) == ("node", "42")
    assert resource({"path_template": "/api/nodes/{id}", "path_params": {"id": 42}}, "/api/nodes/42", 404) == (
        "node",
        42,
    )
