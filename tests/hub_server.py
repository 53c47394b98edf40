"""A small Hub on loopback: what huggingface_hub's client needs to push, to list and to load, in memory.

    with HubServer() as hub:
        subprocess.run([...], env=os.environ | hub.environment(home, user="alice"))

HF_ENDPOINT and HF_HUB_DISABLE_XET are read when huggingface_hub is imported, so a client is a process of its own (or
the test patches huggingface_hub.constants). A token `hf_<user>` is that user; a user may write in the own namespace
only. Repositories, branches, tags and commits behave as on the Hub; Xet, pull requests and discussions are missing.
`hub.fail(503, "/commit/", times=2)` makes matching requests fail; `hub.requests` lists what was asked.
"""

import hashlib
import json
import re
import socket
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from hub_store import LFS_SUFFIXES, HubRefusalError, HubStore

REPO = r"/api/(?P<kind>models|datasets|spaces)/(?P<repo_id>[^/]+/[^/]+)"
GIT = r"/(?:(?P<kind>datasets|spaces)/)?(?P<repo_id>[^/]+/[^/]+?)"
ROUTES = []


def route(method, pattern):
    """Register a handler method; the named groups of the pattern are its arguments, unquoted."""

    def register(function):
        ROUTES.append((method, re.compile(pattern), function))
        return function

    return register


class HubServer:
    """The Hub's memory, its faults to come, and the thread that serves it."""

    def __init__(self):
        self.store, self.faults, self.requests, self.lock = HubStore(), [], [], threading.RLock()
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (HubHandler,), {"hub": self}))
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def __enter__(self):
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.http.shutdown()
        self.http.server_close()

    def environment(self, home, user="alice"):
        """Variables for a client process of `user` with its cache in `home`; user None is nobody."""
        place = {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_TOKEN": f"hf_{user}" if user else ""}
        online = {"HF_HUB_OFFLINE": "0", "HF_DATASETS_OFFLINE": "0", "NO_PROXY": "127.0.0.1"}
        return place | online | {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}

    def repo(self, repo_id, kind="models"):
        return self.store.repos[kind, repo_id]

    def fail(self, status, match="", after=0, times=1, headers=()):
        """Answer `times` requests whose "METHOD /path" matches with `status`, letting `after` through first.

        status "reset" cuts the connection after half of the body was read.
        """
        self.faults.append({"status": status, "match": match, "after": after, "times": times, "headers": headers})

    def due_fault(self, line):
        for fault in self.faults:
            if re.search(fault["match"], line) and fault["times"]:
                key = "after" if fault["after"] else "times"
                fault[key] -= 1
                return fault if key == "times" else None
        return None


class HubHandler(BaseHTTPRequestHandler):
    """One connection; the route decides, HubRefusalError answers anything else than success."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer waits 40 ms for an acknowledgement
    hub = None

    def log_message(self, *_):
        pass

    def handle_any(self):
        self.path = re.sub(r"^http://[^/]+", "", self.path)  # asked as a proxy
        line = f"{self.command} {self.path}"
        with self.hub.lock:
            self.hub.requests.append(line)
            fault = self.hub.due_fault(line)
        if fault and fault["status"] == "reset":
            return self.cut_connection()
        try:
            self.body = self.read_body()
            if fault:
                raise HubRefusalError(fault["status"], "injected fault", headers=fault["headers"])
            with self.hub.lock:
                self.dispatch(urlsplit(self.path))
        except HubRefusalError as problem:
            code = {"X-Error-Code": problem.code} if problem.code else {}
            headers = {"X-Error-Message": problem.message} | code | problem.headers
            self.answer({"error": problem.message}, problem.status, headers)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_any  # noqa: N815

    def dispatch(self, url):
        self.query = parse_qs(url.query)
        self.user = self.authenticated_user()
        method = "GET" if self.command == "HEAD" else self.command
        for known, pattern, function in ROUTES:
            found = pattern.fullmatch(url.path)
            if found and known == method:
                return function(self, **{key: unquote(text or "") for key, text in found.groupdict().items()})
        raise HubRefusalError(404, f"no such page: {method} {url.path}")

    def authenticated_user(self):
        header = self.headers.get("Authorization")
        found = re.fullmatch(r"Bearer hf_(\w+)", header or "")
        if header and not found:
            raise HubRefusalError(401, "Invalid credentials in Authorization header")
        return found and found[1]

    def read_body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def cut_connection(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0) // 2)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def answer(self, value=None, status=200, headers=(), content=None):
        body = json.dumps(value).encode() if content is None else content
        self.send_response(status)
        kind = {"Content-Type": "application/json" if content is None else "application/octet-stream"}
        for key, text in (kind | {"Content-Length": str(len(body))} | dict(headers)).items():
            self.send_header(key, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def find(self, kind, repo_id, write=False):
        return self.hub.store.find(kind, repo_id, self.user, write)

    @route("GET", "/api/whoami-v2")
    def whoami(self):
        if self.user is None:
            raise HubRefusalError(401, "Invalid username or password.")
        token = {"type": "access_token", "accessToken": {"displayName": "test", "role": "write"}}
        self.answer({"type": "user", "name": self.user, "fullname": self.user, "orgs": [], "auth": token})

    @route("POST", "/api/validate-yaml")
    def validate_yaml(self):
        self.answer({"errors": [], "warnings": []})

    @route("POST", "/api/repos/create")
    def create_repo(self):
        asked = json.loads(self.body)
        kind, repo_id = asked.get("type", "model") + "s", f"{asked.get('organization') or self.user}/{asked['name']}"
        page = {"url": f"{self.hub.url}/{'' if kind == 'models' else kind + '/'}{repo_id}"}
        if self.hub.store.create(kind, repo_id, self.user, asked.get("visibility") == "private"):
            return self.answer(page)
        self.answer(page | {"error": "You already created this repo"}, 409)

    @route("GET", REPO + r"(?:/revision/(?P<revision>[^/]+))?")
    def info(self, kind, repo_id, revision):
        self.answer(self.find(kind, repo_id).describe(revision or "main"))

    @route("POST", REPO + "/preupload/(?P<revision>[^/]+)")
    def preupload(self, kind, repo_id, revision):
        known, modes = self.find(kind, repo_id, write=True).files(revision), []
        for file in json.loads(self.body)["files"]:
            path, blob = file["path"], known.get(file["path"])
            large = path.endswith(LFS_SUFFIXES) or file["size"] > 10_000_000
            mode = {"uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
            modes.append({"path": path, "oid": blob.oid if blob else None} | mode)
        self.answer({"files": modes})

    @route("POST", GIT + r"\.git/info/lfs/objects/batch")
    def lfs_batch(self, kind, repo_id):
        self.find(kind, repo_id, write=True)
        actions = []
        for item in json.loads(self.body)["objects"]:
            links = {"upload": {"href": f"{self.hub.url}/lfs/{item['oid']}"}}
            links["verify"] = {"href": f"{self.hub.url}/lfs-verify"}
            known = item["oid"] in self.hub.store.objects
            actions.append({"oid": item["oid"], "size": item["size"]} | ({} if known else {"actions": links}))
        self.answer({"transfer": "basic", "objects": actions})

    @route("PUT", "/lfs/(?P<oid>[0-9a-f]{64})")
    def lfs_put(self, oid):
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise HubRefusalError(400, f"the content is not that of {oid}")
        self.hub.store.objects[oid] = self.body
        self.answer({})

    @route("POST", "/lfs-verify")
    def lfs_verify(self):
        asked = json.loads(self.body)
        if len(self.hub.store.objects.get(asked["oid"], b"")) != asked["size"]:
            raise HubRefusalError(404, f"{asked['oid']} was not uploaded")
        self.answer({})

    @route("POST", REPO + "/commit/(?P<revision>[^/]+)")
    def commit(self, kind, repo_id, revision):
        repo, lines = self.find(kind, repo_id, write=True), [json.loads(line) for line in self.body.splitlines()]
        oid = self.hub.store.commit(repo, revision, self.user, lines)
        self.answer({"success": True, "commitOid": oid, "commitUrl": f"{self.hub.url}/{repo_id}/commit/{oid}"})

    @route("POST", REPO + "/branch/(?P<branch>[^/]+)")
    def create_branch(self, kind, repo_id, branch):
        repo = self.find(kind, repo_id, write=True)
        if branch in repo.branches:
            raise HubRefusalError(409, f"the branch {branch} exists")
        repo.branches[branch] = repo.resolve(json.loads(self.body or b"{}").get("startingPoint", "main"))
        self.answer({})

    @route("POST", REPO + "/tag/(?P<revision>[^/]+)")
    def create_tag(self, kind, repo_id, revision):
        repo, tag = self.find(kind, repo_id, write=True), json.loads(self.body)["tag"]
        if tag in repo.tags:
            raise HubRefusalError(409, f"the tag {tag} exists")
        repo.tags[tag] = repo.resolve(revision)
        self.answer({})

    @route("GET", REPO + "/refs")
    def refs(self, kind, repo_id):
        repo, lists = self.find(kind, repo_id), {"converts": []}
        for key, place, names in (("branches", "heads", repo.branches), ("tags", "tags", repo.tags)):
            lists[key] = [{"name": n, "ref": f"refs/{place}/{n}", "targetCommit": oid} for n, oid in names.items()]
        self.answer(lists)

    @route("GET", REPO + "/commits/(?P<revision>[^/]+)")
    def commits(self, kind, repo_id, revision):
        self.answer(self.find(kind, repo_id).log(revision))

    @route("GET", REPO + "/tree/(?P<revision>[^/]+)(?:/(?P<folder>.+))?")
    def tree(self, kind, repo_id, revision, folder):
        recursive = self.query.get("recursive", [""])[0].lower() == "true"
        self.answer(self.find(kind, repo_id).tree(revision, folder, recursive))

    @route("POST", REPO + "/paths-info/(?P<revision>[^/]+)")
    def paths_info(self, kind, repo_id, revision):
        files = self.find(kind, repo_id).files(revision)
        known = [path for path in parse_qs(self.body.decode()).get("paths", []) if path in files]
        self.answer([files[path].describe(path) for path in known])

    @route("GET", GIT + "/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
    def download(self, kind, repo_id, revision, path):
        repo = self.find(kind, repo_id)
        commit, blob = {"X-Repo-Commit": repo.resolve(revision)}, repo.files(revision).get(path)
        if blob is None:
            raise HubRefusalError(404, f"{path} does not exist", "EntryNotFound", commit)
        content, size = blob.content, len(blob.content)
        headers = commit | {"ETag": f'"{blob.oid}"', "Accept-Ranges": "bytes"}
        if blob.lfs:
            headers |= {"X-Linked-ETag": f'"{blob.oid}"', "X-Linked-Size": str(size)}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not asked:
            return self.answer(content=content, headers=headers)
        start, end = int(asked[1]), min(int(asked[2] or size), size - 1)
        if start >= size:
            raise HubRefusalError(416, "range not satisfiable", headers={"Content-Range": f"bytes */{size}"})
        headers["Content-Range"] = f"bytes {start}-{end}/{size}"
        self.answer(content=content[start : end + 1], status=206, headers=headers)
