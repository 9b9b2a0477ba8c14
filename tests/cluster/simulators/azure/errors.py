"""Errors as ARM and AKS answer them."""

from typing import Any

from tests.cluster.simulators import web

PENDING = "please wait for it to finish before starting a new operation. See https://aka.ms/aks-pending-operation"


class ArmError(Exception):
    """One refusal. `flat` is AKS's own shape: no envelope, and a subcode."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        flat: bool = False,
        details: list[dict[str, Any]] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.flat, self.details, self.headers = flat, details, headers

    def answer(self) -> web.Answer:
        if self.flat:
            document: dict[str, Any] = {"code": self.code, "details": self.details, "message": self.message}
            return web.json_answer(self.status, document | {"subcode": ""}, self.headers)
        error: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.details:
            error["details"] = self.details
        return web.json_answer(self.status, {"error": error}, self.headers)


def busy(what: str) -> ArmError:
    """Another operation holds the pool or the cluster; the code is the same as for a lack of quota."""
    return ArmError(409, "OperationNotAllowed", f"Operation is not allowed: Another {what} is in progress, {PENDING}")
