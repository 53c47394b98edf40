"""What the loopback Hub of hub_server.py remembers: repositories with commits, branches and tags, all in memory."""

import base64
import hashlib
import re
from dataclasses import dataclass, field

DATE = "2024-01-01T00:00:00.000Z"
LFS_SUFFIXES = (".safetensors", ".bin", ".png", ".model", ".parquet", ".arrow")


class HubRefusalError(Exception):
    """Ends a request with a status, and the X-Error-Code from which the client chooses its exception."""

    def __init__(self, status, message, code=None, headers=()):
        super().__init__(message)
        self.status, self.message, self.code, self.headers = status, message, code, dict(headers)


@dataclass
class Blob:
    content: bytes
    lfs: bool = False

    @property
    def oid(self):
        """What the client compares: git's hash of a regular file, sha256 of a large one."""
        if self.lfs:
            return hashlib.sha256(self.content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()

    def describe(self, path):
        large = {"lfs": {"oid": self.oid, "size": len(self.content), "pointerSize": 134}} if self.lfs else {}
        return {"type": "file", "oid": self.oid[:40], "size": len(self.content), "path": path} | large


@dataclass
class Repo:
    kind: str
    repo_id: str
    private: bool = False
    commits: dict = field(default_factory=dict)  # oid -> {"parent", "title", "message", "user", "files"}
    branches: dict = field(default_factory=dict)
    tags: dict = field(default_factory=dict)

    def commit(self, branch, files, title, message="", user="system"):
        parent = self.branches.get(branch)
        oid = hashlib.sha1(f"{self.repo_id} {len(self.commits)} {parent} {title}".encode()).hexdigest()
        self.commits[oid] = {"parent": parent, "title": title, "message": message, "user": user, "files": files}
        self.branches[branch] = oid
        return oid

    def resolve(self, revision):
        oid = self.branches.get(revision) or self.tags.get(revision) or revision
        if oid not in self.commits:
            raise HubRefusalError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return oid

    def files(self, revision="main"):
        return self.commits[self.resolve(revision)]["files"]

    def describe(self, revision="main"):
        names = [{"rfilename": path} for path in sorted(self.files(revision))]
        flags = {"private": self.private, "gated": False, "disabled": False, "downloads": 0, "likes": 0, "tags": []}
        name = {"_id": self.repo_id, "id": self.repo_id, "modelId": self.repo_id, "sha": self.resolve(revision)}
        return name | flags | {"lastModified": DATE, "createdAt": DATE, "siblings": names}

    def log(self, revision):
        oid, entries = self.resolve(revision), []
        while oid:
            commit = self.commits[oid]
            entry = {"id": oid, "title": commit["title"], "message": commit["message"], "date": DATE}
            entries.append(entry | {"authors": [{"user": commit["user"]}]})
            oid = commit["parent"]
        return entries

    def tree(self, revision, folder="", recursive=False):
        start, entries = folder + "/" if folder else "", {}
        inside = {path: blob for path, blob in sorted(self.files(revision).items()) if path.startswith(start)}
        if folder and not inside:
            raise HubRefusalError(404, f"{folder} does not exist", "EntryNotFound")
        for path, blob in inside.items():
            for end in [found.start() for found in re.finditer("/", path) if found.start() > len(start)]:
                entries.setdefault(path[:end], {"type": "directory", "oid": "0" * 40, "size": 0, "path": path[:end]})
                if not recursive:
                    break
            if recursive or "/" not in path[len(start) :]:
                entries[path] = blob.describe(path)
        return list(entries.values())


class HubStore:
    """All repositories and large objects; who may see and change them."""

    def __init__(self):
        self.repos, self.objects = {}, {}

    def find(self, kind, repo_id, user, write=False):
        """The repository, or the refusal that the Hub gives: it does not tell strangers what exists."""
        repo = self.repos.get((kind or "models", repo_id))
        owner = repo_id.split("/")[0]
        if repo is None or (repo.private and user != owner):
            raise HubRefusalError(404 if user else 401, "Repository not found", "RepoNotFound")
        if write and user != owner:
            raise HubRefusalError(403 if user else 401, f"You don't have the rights to write to {repo_id}")
        return repo

    def create(self, kind, repo_id, user, private=False):
        """A new repository with the Hub's first commit, or None where there is one already."""
        if user is None:
            raise HubRefusalError(401, "Invalid username or password.")
        if repo_id.split("/")[0] != user:
            raise HubRefusalError(403, f"You don't have the rights to create {repo_id} as {user}")
        if (kind, repo_id) in self.repos:
            return None
        repo = self.repos[kind, repo_id] = Repo(kind, repo_id, private)
        repo.commit("main", {".gitattributes": Blob(b"*.safetensors filter=lfs\n")}, "initial commit")
        return repo

    def commit(self, repo, branch, user, lines):
        """Apply the lines of a commit request: a header, then one operation each; all of them or none."""
        if branch not in repo.branches:
            raise HubRefusalError(404, f"Invalid rev id: {branch}", "RevisionNotFound")
        header, *steps = lines
        header = header["value"]
        if header.get("parentCommit", repo.branches[branch]) != repo.branches[branch]:
            raise HubRefusalError(412, "A commit has happened since. Please refresh and try again.")
        files = dict(repo.files(branch))
        for step in steps:
            self.apply(files, step["key"], step["value"])
        return repo.commit(branch, files, header["summary"], header.get("description", ""), user)

    def apply(self, files, key, value):
        path = value["path"]
        if key == "file":
            files[path] = Blob(base64.b64decode(value["content"]))
        elif key == "lfsFile":
            if value["oid"] not in self.objects:
                raise HubRefusalError(400, f"{path} points to an object that was not uploaded")
            files[path] = Blob(self.objects[value["oid"]], lfs=True)
        else:
            inside = path.rstrip("/") + "/"
            gone = [name for name in files if name == path or (key == "deletedFolder" and name.startswith(inside))]
            if not gone:
                raise HubRefusalError(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
            for name in gone:
                del files[name]
