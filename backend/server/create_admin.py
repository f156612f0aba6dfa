"""Make an admin: ``python -m backend.server.create_admin USERNAME``, password from standard input or a prompt."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import sys

from fastapi import HTTPException
from pydantic import ValidationError

from .database import close_db, init_db
from .routes.auth import add_user
from .schemas import Registration
from .services.audit_service import get_audit_service, log_audit_event
from .settings import SettingsError


async def create_admin(account: Registration) -> None:
    """Store the account as an admin, and say so in the audit log."""
    await init_db()
    service = get_audit_service()
    await service.start()
    try:
        user = await asyncio.to_thread(add_user, account.username, account.email, account.password, role="admin")
        await log_audit_event(
            event_type="user_created",
            action="create",
            status="success",
            user_id=user.id,
            resource_type="user",
            resource_id=str(user.id),
            new_value=user.audited(),
            metadata={"command": "create_admin"},
        )
    finally:
        await service.stop()
        await close_db()


def read_password() -> str:
    """One line of standard input, or typed twice at a terminal."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    password = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != password:
        raise SystemExit("The two passwords differ.")
    return password


def main() -> None:
    """Read the arguments and the password, make the admin; one line on standard error if that cannot be."""
    parser = argparse.ArgumentParser(prog="python -m backend.server.create_admin", description=__doc__)
    parser.add_argument("username")
    parser.add_argument("--email", help="default: USERNAME@localhost")
    options = parser.parse_args()
    email = options.email or f"{options.username.replace('@', '.')}@localhost"
    try:
        account = Registration(username=options.username, email=email, password=read_password())
        asyncio.run(create_admin(account))
    except ValidationError as exc:
        wrong = exc.errors(include_input=False)[0]
        raise SystemExit(f"{wrong['loc'][0]}: {wrong['msg']}") from None
    except HTTPException as exc:
        raise SystemExit(f"{options.username}: {exc.detail}") from None
    except SettingsError as exc:
        raise SystemExit(str(exc)) from None
    print(f"{options.username} is an admin now.")  # noqa: T201 - a command


if __name__ == "__main__":
    main()
