"""Kinds of requests that S3 stores make: what a fault of the proxy may be meant for."""

from tests.conformance.artifacts.proxy import Request


def is_put(request: Request) -> bool:
    return request.method == "PUT" and "uploadId" not in request.target


def is_begin(request: Request) -> bool:
    return request.method == "POST" and request.target.endswith("?uploads")


def is_second_part(request: Request) -> bool:
    return "partNumber=2" in request.target


def is_end(request: Request) -> bool:
    return request.method == "POST" and "uploadId" in request.target


def is_abort(request: Request) -> bool:
    return request.method == "DELETE" and "uploadId" in request.target


def is_get(request: Request) -> bool:
    return request.method == "GET" and "list-type" not in request.target


def is_later_part(request: Request) -> bool:
    return is_get(request) and not request.headers.get("range", "bytes=0-").startswith("bytes=0-")


def is_list(request: Request) -> bool:
    return request.method == "GET" and "list-type" in request.target


def is_any(request: Request) -> bool:
    return True
