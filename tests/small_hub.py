"""A hub in a thread: the endpoints that huggingface_hub calls for models, in memory. Nothing leaves this machine."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_the_owner"
LARGE = (".safetensors", ".png", ".webp")
"""What goes the way of large files."""


@dataclass
class Repo:
    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[str] = field(default_factory=lambda: ["0" * 40])
    messages: list[str] = field(default_factory=list)

    @property
    def sha(self) -> str:
        return self.commits[-1]

    def edit(self, **files: bytes) -> None:
        """Change files as a person does on the pages of a hub; __ in a name is a dot."""
        self.put(self.files | {name.replace("__", "."): content for name, content in files.items()})

    def put(self, files: dict[str, bytes]) -> None:
        self.files = files
        told = "".join(map(str, (*sorted(files.items()), len(self.commits))))
        self.commits.append(hashlib.sha1(told.encode()).hexdigest())


@dataclass
class Hub:
    """What a test sees of it, and may change."""

    repos: dict[str, Repo] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    """Large files that came whole, by SHA-256."""
    asked: list[str] = field(default_factory=list)
    """Every request: its method and path."""
    before_storing: Callable[[str], None] = lambda oid: None
    """Called with the SHA-256 of a large file when its bytes begin to come."""
    cut: int = 0
    """Break off the next download of a large file after so many bytes."""
    address: str = ""

    def stored(self) -> list[str]:
        """The large files that were sent, each as often as it was."""
        return [line.rpartition("/")[2] for line in self.asked if line.startswith("PUT /large/")]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *args: object) -> None: ...

    # Answers.

    def answer(self, content: object = b"", status: int = 200, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status: int, code: str, words: str) -> None:
        self.answer({"error": words}, status, X_Error_Code=code, X_Error_Message=words)

    def handle_any(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        self.owner = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        for method, pattern, work in ROUTES:
            if method == self.command and (match := re.fullmatch(pattern, path)):
                work(self, *match.groups())
                return
        self.refuse(404, "EntryNotFound", f"no such address: {path}")

    do_GET = do_HEAD = do_POST = do_PUT = handle_any

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline().strip() or b"0", 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def repo(self, name: str, write: bool = False) -> Repo | None:
        """The repository, if the one who asks may see it; else the answer is given already."""
        found = self.hub.repos.get(name)
        if found is None or (found.private and not self.owner):
            self.refuse(401, "RepoNotFound", "Repository not found")
            return None
        if write and not self.owner:
            self.refuse(403, "", "you may not write here")
            return None
        return found

    # Endpoints.

    def create(self) -> None:
        about = json.loads(self.body())
        if not self.owner:
            return self.refuse(401, "", "Invalid username or password.")
        name = f"{about['organization']}/{about['name']}"
        if name in self.hub.repos:
            return self.answer({"error": "You already created this model repo"}, 409)
        private = about.get("private", about.get("visibility") == "private")
        self.hub.repos[name] = Repo(bool(private))
        return self.answer({"url": f"{self.hub.address}/{name}"})

    def info(self, name: str, revision: str = "main") -> None:
        if not (repo := self.repo(name)):
            return None
        if revision not in ("main", *repo.commits):
            return self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        files = [{"rfilename": path, "size": len(content)} for path, content in sorted(repo.files.items())]
        return self.answer({"id": name, "modelId": name, "sha": repo.sha, "private": repo.private, "siblings": files})

    def tree(self, name: str, revision: str) -> None:
        if repo := self.repo(name):
            self.answer([self.entry(path, content) for path, content in sorted(repo.files.items())])

    def entry(self, path: str, content: bytes) -> dict[str, object]:
        found: dict[str, object] = {"type": "file", "path": path, "size": len(content), "oid": git_sha1(content)}
        if path.endswith(LARGE):
            found["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
        return found

    def preupload(self, name: str, revision: str) -> None:
        files = json.loads(self.body())["files"]
        if not (repo := self.repo(name, write=True)):
            return
        mode = lambda path: "lfs" if path.endswith(LARGE) else "regular"
        oid = lambda path: self.remote_oid(path, repo.files[path]) if path in repo.files else None
        self.answer({"files": [
            {"path": f["path"], "uploadMode": mode(f["path"]), "shouldIgnore": False, "oid": oid(f["path"])} for f in files
        ]})  # fmt: skip

    def remote_oid(self, path: str, content: bytes) -> str:
        return hashlib.sha256(content).hexdigest() if path.endswith(LARGE) else git_sha1(content)

    def batch(self, name: str) -> None:
        objects = json.loads(self.body())["objects"]
        if not self.repo(name, write=True):
            return
        link = lambda oid: {"actions": {"upload": {"href": f"{self.hub.address}/large/{oid}"}}}
        found = [{**o, **({} if o["oid"] in self.hub.large else link(o["oid"]))} for o in objects]
        self.answer({"transfer": "basic", "objects": found})

    def store(self, oid: str) -> None:
        self.hub.before_storing(oid)
        content = self.body()
        if hashlib.sha256(content).hexdigest() != oid:
            self.refuse(400, "", "the bytes are not those that were promised")
            return
        self.hub.large[oid] = content
        self.answer()

    def commit(self, name: str, revision: str) -> None:
        lines = [json.loads(line) for line in self.body().splitlines()]
        if not (repo := self.repo(name, write=True)):
            return
        files = dict(repo.files)
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                repo.messages.append(value["summary"])
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        repo.put(files)
        self.answer({"commitUrl": f"{self.hub.address}/{name}/commit/{repo.sha}", "commitOid": repo.sha})

    def resolve(self, name: str, revision: str, path: str) -> None:
        if not (repo := self.repo(name)):
            return
        if path not in repo.files:
            self.refuse(404, "EntryNotFound", "Entry not found")
            return
        content = repo.files[path]
        about = {"X_Repo_Commit": repo.sha, "ETag": f'"{self.remote_oid(path, content)}"', "Accept_Ranges": "bytes"}
        if self.command == "HEAD":
            self.answer(b"", Content_Length=str(len(content)), **about)
            return
        start = int((re.match(r"bytes=(\d+)-", self.headers.get("Range", "")) or ["", "0"])[1])
        rest, status = content[start:], 206 if start else 200
        if self.hub.cut and path.endswith(".safetensors"):
            part, self.hub.cut = rest[: self.hub.cut], 0
            self.answer(part, status, Content_Length=str(len(rest)), **about)
            self.close_connection = True
            return
        more = {"Content_Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
        self.answer(rest, status, **about, **more)


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


NAME = r"([\w.-]+/[\w.-]+)"
ROUTES: list[tuple[str, str, Callable[..., None]]] = [
    ("POST", "/api/repos/create", Handler.create),
    ("POST", "/api/validate-yaml", lambda self: (self.body(), self.answer({"errors": [], "warnings": []}))[1]),
    ("GET", rf"/api/models/{NAME}", Handler.info),
    ("GET", rf"/api/models/{NAME}/revision/(.+)", Handler.info),
    ("GET", rf"/api/models/{NAME}/tree/([^/]+)", Handler.tree),
    ("POST", rf"/api/models/{NAME}/preupload/(.+)", Handler.preupload),
    ("POST", rf"/api/models/{NAME}/commit/(.+)", Handler.commit),
    ("POST", rf"/{NAME}\.git/info/lfs/objects/batch", Handler.batch),
    ("PUT", r"/large/([0-9a-f]{64})", Handler.store),
    ("HEAD", rf"/{NAME}/resolve/([^/]+)/(.+)", Handler.resolve),
    ("GET", rf"/{NAME}/resolve/([^/]+)/(.+)", Handler.resolve),
]


@contextmanager
def hub_in_a_thread() -> Iterator[Hub]:
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Own", (Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
