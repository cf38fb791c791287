"""Furniture, ray tracings, handbooks and printed pages, from packages that are made here."""

import io
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from embodied_midtrain.artifacts import Skips
from embodied_midtrain.sources.registry.chart_sources import RealCharts
from embodied_midtrain.sources.registry.furniture import Furniture, objects
from embodied_midtrain.sources.registry.handbooks import GimpScreens, ScipyPlots, gimp_figures, scipy_figures
from embodied_midtrain.sources.registry.package import keep
from embodied_midtrain.sources.registry.pages import Pages
from embodied_midtrain.sources.registry.povray import Povray


def png(shade: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (30, 20), (shade, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


CATALOGUE = """
name=Test objects
license=CC0
id#1=a
name#1=Armchair
tags#1=Scopia, Seat
category#1=Living room
icon#1=/icons/chair.png
width#1=59.4
depth#1=62.7
height#1=105
name#2=Ghost
icon#2=/icons/missing.png
name#10=Kettle
tags#10=
creationDate#10=2008-04-29
category#10=Miscellaneous
icon#10=/icons/kettle.png
width#10=20
depth#10=20
height#10=25
"""


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("PluginFurnitureCatalog.properties", CATALOGUE.replace("\n", "\r\n"))
        archive.writestr("icons/chair.png", png())
        archive.writestr("icons/kettle.png", png()[:40])
    keep(
        tmp_path / "debian/sweethome3d-furniture", "sweethome3d-furniture", "1", [("usr/Test.sh3f", buffer.getvalue())]
    )
    root = "usr/share/doc/povray/examples"
    scenes = [(f"{root}/templates/Woods/36_T_Wood{i}.jpg", png(i)) for i in range(70)]
    scenes += [(f"{root}/previews/objects/polygon.jpg", png()), (f"{root}/portfolio/x.jpg", png())]
    keep(tmp_path / "debian/povray-examples", "povray-examples", "1", scenes)
    return tmp_path


def test_furniture_has_its_own_sizes_and_licence(cache: Path) -> None:
    chair, kettle = objects(cache)
    assert (chair.label, chair.tags, chair.width, chair.height) == ("Armchair", ("seat",), 59.4, 105.0)
    assert (kettle.label, kettle.tags, kettle.id) == ("Kettle", (), "Test/10")
    skips = Skips()
    (sample,) = Furniture().samples(cache, 5, 0, skips)
    assert sample.licence == "CC0"
    assert "rmchair" in sample.answer
    assert skips.counts() == {"broken image": 1}


def test_ray_tracings_are_named_by_file_and_folder_and_no_folder_fills_the_source(cache: Path) -> None:
    samples = list(Povray().samples(cache, 1000, 0, Skips()))
    assert len(samples) == 61
    answers = {sample.id: sample.answer for sample in samples}
    assert "polygon (objects)." in answers["previews/objects/polygon"]
    assert all("wood (woods)." in answer for id, answer in answers.items() if "Woods" in id)


def test_plots_carry_the_summary_of_their_function(tmp_path: Path) -> None:
    page = """<h1>scipy.x.f<a class="headerlink">¶</a></h1><dl><dd><p>Compute <em>the</em> f &amp; g.</p>
    <pre>code</pre><p>The plot shows f.</p><figure>
    <img alt="../../_images/f-1.png" class="plot-directive" src="../../_images/f-1.png" /></figure>
    <pre>more</pre><img alt="../../_images/f-2.png" class="plot-directive" src="../../_images/f-2.png" />
    <img alt="../../_images/gone.png" class="plot-directive" src="../../_images/gone.png" /><img src="logo.png"/>"""
    root = "usr/share/doc/python-scipy-doc/html"
    files = [(f"{root}/reference/generated/scipy.x.f.html", page.encode())]
    files += [(f"{root}/_images/f-{i}.png", png()) for i in (1, 2)]
    package = keep(tmp_path / "debian/python-scipy-doc", "python-scipy-doc", "1", files)
    assert [figure.text for figure in scipy_figures(package)] == [
        "scipy.x.f: Compute the f & g. The plot shows f.",
        "scipy.x.f: Compute the f & g.",
    ]
    assert {sample.id for sample in ScipyPlots().samples(tmp_path, 9, 0, Skips())} == {"f-1", "f-2"}


def test_screenshots_carry_title_and_caption_and_icons_are_left_out(tmp_path: Path) -> None:
    page = """<title>17.2. Noise</title><img src="images/icon.png" alt="" />
    <p class="title"><strong>Figure 17.3. <span>“<span>Scale </span>”</span> examples</strong></p>
    <img src="images/a.png" alt="" /><div class="caption"><p>Scale = 1</p></div>
    <img src="images/b.png" alt="" /><br class="figure-break" />
    <img src="images/c.png" alt="" /><div class="caption"><p>Alone</p></div><img src="images/icon2.png" />"""
    root = "usr/share/gimp/2.0/help/en"
    files = [(f"{root}/noise.html", page.encode())]
    files += [(f"{root}/images/{name}.png", png()) for name in ("a", "b", "c", "icon", "icon2")]
    package = keep(tmp_path / "debian/gimp-help-en", "gimp-help-en", "1", files)
    assert [figure.text for figure in gimp_figures(package)] == [
        "“Scale” examples. Scale = 1 (Noise).",
        "“Scale” examples (Noise).",
        "Alone (Noise).",
    ]
    assert len(list(GimpScreens().samples(tmp_path, 2, 0, Skips()))) == 2


def pdf(*lines: str) -> bytes:
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"pdf.fonttype": 42}):
        figure = Figure(figsize=(5, 7))
        for i, line in enumerate(lines):
            figure.text(0.1, 0.9 - 0.05 * i, line, fontsize=11)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="pdf")
    return buffer.getvalue()


def test_pages_say_what_is_printed_on_them(tmp_path: Path) -> None:
    words = ["The quick brown fox jumps", "over the lazy dog while", "seven sailors sing songs", "about the silver sea"]
    root = "usr/share/doc/texlive-doc"
    files = [(f"{root}/a{i}.pdf", pdf(*words)) for i in range(12)]
    files += [(f"{root}/blank.pdf", pdf()), (f"{root}/broken.pdf", b"%PDF-1.4 nothing")]
    keep(tmp_path / "debian/texlive-humanities-doc", "texlive-humanities-doc", "1", files)
    skips = Skips()
    samples = list(Pages().samples(tmp_path, 50, 0, skips))
    assert skips.counts() == {"broken document": 1, "page without plain text": 1}
    assert len(samples) == 12
    for sample in samples:
        image = sample.pictures[0].decode()
        assert sample.answer in " ".join(words)
        assert max(image.size) <= 336
        assert image.convert("L").getextrema()[0] < 100  # ink
    assert list(Pages().samples(tmp_path, 50, 0, Skips())) == samples


def test_charts_of_real_data_read_their_tables_from_the_wheel(tmp_path: Path) -> None:
    def rows(name: str, text: str) -> tuple[str, bytes]:
        return f"vega_datasets/_data/{name}", text.encode()

    days = "\n".join(f"2012-01-{d:02d},1,{d + 5},{d},1,sun" for d in range(1, 29))
    months = [f"{m} 1 2005" for m in ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug")]
    prices = "\n".join(
        f"{s},{m},{i + 10}" for s in ("MSFT", "AMZN", "IBM", "AAPL", "GOOG") for i, m in enumerate(months)
    )
    power = "\n".join(f"{y}-01-01,{s},{y - 2000}" for s in ("Fossil Fuels", "Renewables") for y in range(2001, 2012))
    files = [
        rows(
            "cars.json",
            str(
                [
                    {"Name": f"car {i}", "Miles_per_Gallon": 1, "Horsepower": 50 + i, "Weight_in_lbs": 99}
                    for i in range(9)
                ]
            ).replace("'", '"'),
        ),
        rows("seattle-weather.csv", f"date,precipitation,temp_max,temp_min,wind,weather\n{days}\n"),
        rows("stocks.csv", f"symbol,date,price\n{prices}\n"),
        rows("us-employment.csv", "month,nonfarm,private,a_b,c,d,e,f,nonfarm_change\n2006-01-01,9,9,1,2,3,4,6,5\n"),
        rows("iowa-electricity.csv", f"year,source,net_generation\n{power}\n"),
        rows(
            "barley.json",
            str([{"yield": 9.5 + i, "variety": f"v{i}", "year": 1931, "site": "Here"} for i in range(6)]).replace(
                "'", '"'
            ),
        ),
        rows("wheat.json", str([{"year": 1700 + i, "wheat": 30 + i} for i in range(20)]).replace("'", '"')),
    ]
    keep(tmp_path / "wheels/vega-datasets-0.9.0", "vega-datasets", "0.9.0", files)
    samples = list(RealCharts().samples(tmp_path, 40, 0, Skips()))
    assert len(samples) == 40
    assert samples[0].origin == "vega-datasets 0.9.0, drawn with matplotlib"
