"""The test hub as Civitai: its API's answers in their true shape, and its downloads.

A model lies in repos/civitai/ID/ (the files) and repos/civitai/ID.json, whose key "civitai" has what the API tells:

    {"name", "type", "description", "creator", "tags", "nsfw", "allowNoCredit", "allowCommercialUse", "allowDerivatives",
     "allowDifferentLicense", "versions": [{"id", "name", "baseModel", "trainedWords", "availability", "earlyAccessEndsAt",
     "login": "401" or "page" (what who is not logged in gets), "bought": [tokens], "files": [{"name", "type", "primary",
     "metadata", "size", "sha256", "scan"}]}]}

each optional but name, versions, and their id and files' names. size and sha256 tell another than the file has.
"""
import hashlib
import json
import os
import re
import urllib.parse
import zlib

TOKENS = ("cv_good", "cv_other")


def pages(hub):
    """(model id, what it says) of every model there is."""
    folder = os.path.join(hub.root, "repos", "civitai")
    for name in sorted(os.listdir(folder) if os.path.isdir(folder) else ()):
        if name.endswith(".json"):
            with open(os.path.join(folder, name), encoding="utf-8") as file:
                yield int(name[:-5]), json.load(file)["civitai"]


def find(hub, model=None, version=None):
    for number, page in pages(hub):
        if number == model:
            return number, page, None
        for one in page["versions"]:
            if one["id"] == version:
                return number, page, one
    return None, None, None


def path_of(hub, model, name):
    return os.path.join(hub.root, "repos", "civitai", str(model), name)


def file_answer(hub, base, model, version, number, told):
    path = path_of(hub, model, told["name"])
    with open(path, "rb") as file:
        data = file.read()
    sha256 = told.get("sha256", hashlib.sha256(data).hexdigest()).upper()
    where = f"{base}/api/download/models/{version['id']}"
    details = {"format": "SafeTensor", "size": None, "fp": None, **told.get("metadata", {})}
    if not told.get("primary", number == 0):
        query = {"type": told.get("type", "Model"), **{key: value for key, value in details.items() if value}}
        where += "?" + urllib.parse.urlencode(query)
    answer = {
        "id": version["id"] * 10 + number, "sizeKB": told.get("size", len(data)) / 1024, "name": told["name"],
        "type": told.get("type", "Model"), "pickleScanResult": told.get("scan", "Success"), "pickleScanMessage": "No Pickle imports",
        "virusScanResult": "Success", "virusScanMessage": None, "scannedAt": "2024-03-05T10:14:31.013Z", "metadata": details,
        "hashes": {"AutoV1": sha256[:8], "AutoV2": sha256[:10], "SHA256": sha256, "CRC32": f"{zlib.crc32(data):08X}",
                   "BLAKE3": hashlib.blake2s(data).hexdigest().upper(), "AutoV3": sha256[:12]},
        "downloadUrl": where,
    }
    if told.get("primary", number == 0):
        answer["primary"] = True
    return answer


def version_answer(hub, base, model, version):
    files = [file_answer(hub, base, model, version, number, told) for number, told in enumerate(version["files"])]
    return {
        "id": version["id"], "name": version.get("name", "v1.0"), "createdAt": "2024-03-01T10:00:00.000Z",
        "updatedAt": "2024-03-05T10:11:12.131Z", "publishedAt": "2024-03-02T09:08:07.060Z", "status": "Published",
        "trainedWords": version.get("trainedWords", []), "trainingStatus": None, "trainingDetails": None,
        "baseModel": version.get("baseModel", "SD 1.5"), "baseModelType": "Standard",
        "earlyAccessEndsAt": version.get("earlyAccessEndsAt"), "availability": version.get("availability", "Public"),
        "description": None, "uploadType": "Created", "stats": {"downloadCount": 42, "rating": 5, "thumbsUpCount": 7}, "files": files,
        "images": [{"url": f"{base}/images/{version['id']}.mp4", "type": "video", "nsfwLevel": 1},
                   {"url": f"{base}/images/{version['id']}.jpeg", "type": "image", "nsfwLevel": 1, "width": 512, "height": 512,
                    "hash": "U7F$"}],
        "downloadUrl": f"{base}/api/download/models/{version['id']}",
    }


def model_answer(hub, base, number, page):
    return {
        "id": number, "name": page["name"], "description": page.get("description", "<p>Made up.</p>"),
        "allowNoCredit": page.get("allowNoCredit", True), "allowCommercialUse": page.get("allowCommercialUse", ["Image"]),
        "allowDerivatives": page.get("allowDerivatives", True), "allowDifferentLicense": page.get("allowDifferentLicense", False),
        "type": page.get("type", "LORA"), "minor": False, "sfwOnly": False, "poi": False, "nsfw": page.get("nsfw", False),
        "nsfwLevel": 1, "availability": "Public", "cosmetic": None, "supportsGeneration": True,
        "stats": {"downloadCount": 99, "favoriteCount": 0, "commentCount": 3, "ratingCount": 0, "rating": 0},
        "creator": {"username": page.get("creator", "somebody"), "image": None}, "tags": page.get("tags", []),
        "modelVersions": [{"index": index, **version_answer(hub, base, number, version)}
                          for index, version in enumerate(page["versions"])],
    }


class Civitai:
    """The part of a handler that answers as Civitai; it sends with the handler's own means."""

    def __init__(self, handler, refused):
        self.handler, self.hub, self.refused = handler, handler.hub, refused

    def serve(self, path):
        """False if the path is none of Civitai's."""
        match = re.fullmatch(r"/api/(v1/models|v1/model-versions|download/models)/([^/]+)", path)
        if not match:
            return False
        kind, text = match.groups()
        token = self.handler.token()
        if token is not None and token not in TOKENS:
            raise self.refused(401, None, "Unauthorized")
        number = int(text) if text.isdigit() else 0
        {"v1/models": self.model, "v1/model-versions": self.version, "download/models": self.download}[kind](number, token)
        return True

    def base(self):
        return f"http://{self.handler.headers.get('Host')}"

    def model(self, number, token):
        found, page, _ = find(self.hub, model=number)
        if not found:
            raise self.refused(404, None, f"No model with id {number}")
        self.handler.send_json(200, model_answer(self.hub, self.base(), found, page))

    def version(self, number, token):
        found, page, version = find(self.hub, version=number)
        if not found:
            raise self.refused(404, None, f"Model version not found: {number}")
        answer = version_answer(self.hub, self.base(), found, version)
        brief = {"name": page["name"], "type": page.get("type", "LORA"), "nsfw": page.get("nsfw", False), "poi": False}
        self.handler.send_json(200, {**answer, "modelId": found, "air": f"urn:air:sd1:lora:civitai:{found}@{number}", "model": brief})

    def download(self, number, token):
        """To the CDN with a signed address, for who may."""
        found, _, version = find(self.hub, version=number)
        if not found:
            raise self.refused(404, None, "No file")
        if version.get("login") and token is None:
            if version["login"] == "page":
                return self.handler.redirect(307, "/login?returnUrl=/models&reason=download-auth", {})
            raise self.refused(401, None, "The creator of this asset requires you to be logged in to download it")
        if version.get("availability") == "EarlyAccess" and token not in version.get("bought", ()):
            raise self.refused(403 if token else 401, None, "This asset is in Early Access. You can use Buzz to purchase it now")
        wanted = {key: value for key, value in self.handler.query.items() if key in ("type", "format", "size", "fp")}
        for index, told in enumerate(version["files"]):
            details = {"type": told.get("type", "Model"), "format": "SafeTensor", **told.get("metadata", {})}
            fits = all(str(details.get(key, "")).lower() == value.lower() for key, value in wanted.items())
            if fits if wanted else told.get("primary", index == 0):
                folder = os.path.join(self.hub.root, "repos", "civitai", str(found))
                where = self.hub.cdn_path(f"civitai/{found}", folder, told["name"])
                base = self.handler.base("cdn")
                return self.handler.redirect(307, f"{base}{where}?{self.hub.cdn_query(where, told['name'])}", {})
        raise self.refused(404, None, "No file of that kind")
