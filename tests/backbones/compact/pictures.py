"""Made-up labelled pictures: a coloured shape on a clear ground."""

from PIL import Image, ImageDraw

from embodied_midtrain.backbones.compact.general import Thing

COLOURS = {"ruby": (220, 20, 20), "leaf": (20, 180, 40), "sea": (20, 60, 230), "sun": (250, 230, 30)}


def things() -> list[Thing]:
    return [
        Thing("shapes", f"{name}{shape}", f"{name} {shape}", ("toy",), True, True, lambda c=colour, s=shape: draw(c, s))
        for name, colour in COLOURS.items()
        for shape in ("disc", "bar", "block")
    ]


def draw(colour: tuple[int, int, int], shape: str) -> Image.Image:
    image = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    pen = ImageDraw.Draw(image)
    if shape == "disc":
        pen.ellipse((8, 8, 56, 56), fill=(*colour, 255))
    else:
        pen.rectangle((8, 24, 56, 40) if shape == "bar" else (10, 10, 54, 54), fill=(*colour, 255))
    return image
