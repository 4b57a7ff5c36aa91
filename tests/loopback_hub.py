"""A small Hub on 127.0.0.1: what huggingface_hub 2.4 calls for ``create_repo`` and ``upload_folder``.

Measured, in this order, with Xet off: POST /api/repos/create · GET /api/models/R · POST /api/validate-yaml (twice;
once with Xet) · POST /api/models/R/preupload/main · POST /R.git/info/lfs/objects/batch · PUT the content ·
POST verify · POST /api/models/R/commit/main. With nothing changed the commit is left out, and
GET /api/models/R/revision/main ends it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, NamedTuple

Fault = int | Literal["dropped", "lost"]  # a status; no answer; no answer although it was done


class Commit(NamedTuple):
    oid: str
    summary: str
    paths: tuple[str, ...]


class Repo:
    def __init__(self, *, private: bool) -> None:
        self.private = private
        self.files: dict[str, bytes] = {}
        self.commits = [Commit("0" * 40, "initial commit", ())]


class LoopbackHub:
    """Use as a context manager; ``faults[k]`` strikes the k-th call from 0."""

    def __init__(self, *, lfs: bool) -> None:
        self.lfs = lfs  # whether .safetensors go the LFS way, or everything is a regular file
        self.faults: dict[int, Fault] = {}
        self.always: Fault | None = None
        self.calls: list[str] = []
        self.tokens: set[str] = set()
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *arguments: object) -> None:
                pass

            def _any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                hub.tokens.add(self.headers.get("Authorization", ""))
                path = self.path.partition("?")[0]
                fault = hub.always or hub.faults.get(len(hub.calls))
                hub.calls.append(f"{self.command} {path}")
                if fault == "dropped":
                    self.close_connection = True
                    return
                status, answer = (fault, {"error": "busy"}) if isinstance(fault, int) else hub.answer(path, body)
                if fault == "lost":
                    self.close_connection = True
                    return
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PUT = _any  # noqa: N815

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> LoopbackHub:
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, path: str, body: bytes) -> tuple[int, Any]:
        routes = {
            r"/api/repos/create": self._create,
            r"/api/validate-yaml": lambda body: (200, {"warnings": [], "errors": []}),
            r"/api/models/([^/]+/[^/]+)(?:/revision/main)?": self._info,
            r"/api/models/([^/]+/[^/]+)/preupload/main": self._preupload,
            r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch": self._batch,
            r"/objects/(\w{64})": self._store,
            r"/verify": lambda body: (200 if json.loads(body)["oid"] in self.objects else 404, {}),
            r"/api/models/([^/]+/[^/]+)/commit/main": self._commit,
        }
        for pattern, answer in routes.items():
            if match := re.fullmatch(pattern, path):
                return answer(*match.groups(), body)
        return 404, {"error": f"this Hub has no {path}"}

    def _create(self, body: bytes) -> tuple[int, Any]:
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        status = 409 if name in self.repos else 200
        self.repos.setdefault(name, Repo(private=asked.get("visibility") == "private" or bool(asked.get("private"))))
        return status, {"url": f"{self.url}/{name}", "name": name, "id": "0", "error": "exists"}

    def _info(self, name: str, body: bytes) -> tuple[int, Any]:
        repo = self.repos[name]
        return 200, {"id": name, "modelId": name, "sha": repo.commits[-1].oid, "private": repo.private, "tags": []}

    def _preupload(self, name: str, body: bytes) -> tuple[int, Any]:
        answers = []
        for file in json.loads(body)["files"]:
            lfs = self.lfs and file["path"].endswith(".safetensors")
            answer = {"path": file["path"], "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False}
            if (content := self.repos[name].files.get(file["path"])) is not None:
                answer["oid"] = _sha256(content) if lfs else _git_oid(content)
            answers.append(answer)
        return 200, {"files": answers}

    def _batch(self, name: str, body: bytes) -> tuple[int, Any]:
        found = []
        for item in json.loads(body)["objects"]:
            actions = {
                "upload": {"href": f"{self.url}/objects/{item['oid']}"},
                "verify": {"href": f"{self.url}/verify"},
            }
            known = item["oid"] in self.objects
            found.append({"oid": item["oid"], "size": item["size"]} | ({} if known else {"actions": actions}))
        return 200, {"transfer": "basic", "objects": found}

    def _store(self, oid: str, body: bytes) -> tuple[int, Any]:
        if _sha256(body) != oid:
            return 400, {"error": "other content than announced"}
        self.objects[oid] = body
        return 200, {}

    def _commit(self, name: str, body: bytes) -> tuple[int, Any]:
        repo = self.repos[name]
        lines = [json.loads(line) for line in body.splitlines()]
        header = lines[0]["value"]
        if header.get("parentCommit", repo.commits[-1].oid) != repo.commits[-1].oid:
            return 412, {"error": "the branch has moved on"}
        files = {line["value"]["path"]: self._content(line) for line in lines[1:]}
        repo.files |= files
        oid = hashlib.sha1(repo.commits[-1].oid.encode() + body).hexdigest()
        repo.commits.append(Commit(oid, header["summary"], tuple(sorted(files))))
        return 200, {"commitUrl": f"{self.url}/{name}/commit/{oid}", "commitOid": oid, "success": True}

    def _content(self, line: dict[str, Any]) -> bytes:
        value = line["value"]
        return base64.b64decode(value["content"]) if line["key"] == "file" else self.objects[value["oid"]]


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
