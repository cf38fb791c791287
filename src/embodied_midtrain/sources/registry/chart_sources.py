"""Chart questions: on invented tables (anywhere), and on real data from the PyPI wheel of vega-datasets."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from embodied_midtrain.artifacts import Skips
from embodied_midtrain.samples import Sample, question
from embodied_midtrain.sources.registry.charts import Data, ask, draw, kinds_for
from embodied_midtrain.sources.registry.fetch import wheel
from embodied_midtrain.sources.registry.images import picture
from embodied_midtrain.sources.registry.package import Package
from embodied_midtrain.sources.registry.source import Group

_QUESTIONS = 2
"""About each chart: drawing it is what takes time."""
_LABELS = (
    ("January", "February", "March", "April", "May", "June", "July", "August"),
    ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"),
    ("Norway", "Chile", "Kenya", "Japan", "Canada", "Spain", "India", "Peru"),
    ("apples", "bananas", "cherries", "grapes", "lemons", "pears"),
    ("North", "South", "East", "West"),
    ("bus", "bicycle", "train", "car", "on foot"),
    ("2016", "2017", "2018", "2019", "2020", "2021", "2022", "2023"),
    ("bakery", "dairy", "fish", "fruit", "meat", "drinks"),
    ("chess", "football", "music", "reading", "swimming"),
    ("Oslo", "Lima", "Nairobi", "Kyoto", "Quebec", "Seville", "Pune"),
)
_SUBJECTS = (
    ("Sales by {}", "sales (thousands)", ("shop", "online", "market")),
    ("Rainfall", "rain (mm)", ("valley", "coast", "hills")),
    ("Visitors", "visitors (hundreds)", ("adults", "children", "groups")),
    ("Energy used", "energy (kWh)", ("house A", "house B", "house C")),
    ("Survey answers", "people", ("first year", "second year", "third year")),
    ("Deliveries on time", "deliveries (%)", ("red line", "blue line", "green line")),
    ("Average price", "price (euro)", ("new", "used", "rented")),
    ("Points scored", "points", ("team Ash", "team Birch", "team Cedar")),
)


def invented(rng: random.Random) -> Data:
    """A table with plausible words and round values."""
    labels = rng.choice(_LABELS)
    count = rng.randint(3, len(labels))
    # Months and years stay in order.
    first = rng.randrange(len(labels) - count + 1)
    title, unit, names = rng.choice(_SUBJECTS)
    series = rng.sample(names, rng.choice((1, 1, 1, 2, 2, 3)))
    top = rng.choice((10, 50, 100, 500))
    values = {name: tuple(float(rng.randint(1, top)) for _ in range(count)) for name in series}
    return Data(title.format("group"), unit, labels[first : first + count], values)


class InventedCharts:
    """Charts of invented tables, with questions and exact answers."""

    name = "chart-qa"
    group: Group = "chart"
    licence = "CC0-1.0"

    def samples(self, cache: Path, limit: int, seed: int, skips: Skips) -> Iterator[Sample]:
        """See `RegistrySource.samples`."""
        origin = "drawn with matplotlib"
        return _samples(self.name, invented, limit, seed, licence=self.licence, origin=origin)


class RealCharts:
    """Charts of real data: cars, weather, share prices, employment, electricity, harvests."""

    name = "data-charts"
    group: Group = "chart"
    licence = "MIT"

    def samples(self, cache: Path, limit: int, seed: int, skips: Skips) -> Iterator[Sample]:
        """See `RegistrySource.samples`."""
        package = wheel(
            "vega-datasets", "0.9.0", "3d7c63917be6ca9b154b565f4779a31fedce57b01b5b9d99d8a34a7608062a1d", cache
        )
        tables = _tables(package)

        def real(rng: random.Random) -> Data:
            return rng.choice(tables)(rng)

        origin = f"{package.name} {package.version}, drawn with matplotlib"
        return _samples(self.name, real, limit, seed, licence=self.licence, origin=origin)


def _samples(
    source: str, invent: Callable[[random.Random], Data], limit: int, seed: int, *, licence: str, origin: str
) -> Iterator[Sample]:
    for number in range(-(-limit // _QUESTIONS)):
        # One generator a chart: a larger pool begins with the smaller one.
        rng = random.Random(f"{seed}:{source}:{number}")
        data = invent(rng)
        kind = rng.choice(kinds_for(data))
        written = "bar" in kind and rng.random() < 0.6
        image = picture(draw(data, kind, rng, written=written), lossy=False)
        name = f"{kind.replace(' ', '-')}-{number:05d}"
        for i, (asked, answered) in enumerate(ask(data, kind, rng, _QUESTIONS, written=written)):
            if number * _QUESTIONS + i < limit:
                yield question(source, f"{name}-{i}", image, asked, answered, licence=licence, origin=origin)


Table = Callable[[random.Random], Data]


def _rows(package: Package, file: str) -> list[dict[str, Any]]:
    text = package.read(f"vega_datasets/_data/{file}").decode()
    rows: list[dict[str, Any]] = list(csv.DictReader(io.StringIO(text))) if file.endswith(".csv") else json.loads(text)
    return rows


def _tables(package: Package) -> list[Table]:
    """Functions that each cut a small random table out of one data set."""
    cars = [row for row in _rows(package, "cars.json") if row["Miles_per_Gallon"] and row["Horsepower"]]
    weather, stocks = _rows(package, "seattle-weather.csv"), _rows(package, "stocks.csv")
    jobs, power = _rows(package, "us-employment.csv"), _rows(package, "iowa-electricity.csv")
    barley, wheat = _rows(package, "barley.json"), _rows(package, "wheat.json")

    def of_cars(rng: random.Random) -> Data:
        field, unit = rng.choice((("Horsepower", "horsepower"), ("Weight_in_lbs", "weight (lb)")))
        chosen = {row["Name"].title(): float(row[field]) for row in rng.sample(cars, rng.randint(3, 5))}
        return Data(
            field.replace("_", " ").title().replace("In Lbs", ""), unit, tuple(chosen), {unit: tuple(chosen.values())}
        )

    def of_weather(rng: random.Random) -> Data:
        first = rng.randrange(len(weather) - 8)
        days = weather[first : first + rng.randint(4, 7)]
        series = {
            "highest": tuple(float(d["temp_max"]) for d in days),
            "lowest": tuple(float(d["temp_min"]) for d in days),
        }
        return Data("Temperature in Seattle", "temperature (°C)", tuple(d["date"][5:] for d in days), series)

    def of_stocks(rng: random.Random) -> Data:
        price = {(row["symbol"], row["date"]): float(row["price"]) for row in stocks}
        dates = [date for symbol, date in price if symbol == "MSFT" and ("GOOG", date) in price]
        first = rng.randrange(len(dates) - 7)
        span = dates[first : first + rng.randint(4, 6)]
        names = rng.sample(("MSFT", "AMZN", "IBM", "AAPL", "GOOG"), rng.randint(1, 3))
        series = {name: tuple(price[name, date] for date in span) for name in names}
        return Data("Share prices", "price (dollars)", tuple(date[:3] + date[-4:] for date in span), series)

    def of_jobs(rng: random.Random) -> Data:
        branches = [name for name in jobs[0] if name not in ("month", "nonfarm", "private", "nonfarm_change")]
        row, names = rng.choice(jobs), rng.sample(branches, rng.randint(3, 5))
        values = tuple(float(row[name]) for name in names)
        return Data(
            f"Jobs, {row['month'][:7]}", "jobs (thousands)", tuple(n.replace("_", " ") for n in names), {"jobs": values}
        )

    def of_power(rng: random.Random) -> Data:
        years = sorted({row["year"][:4] for row in power})
        first = rng.randrange(len(years) - 6)
        span = years[first : first + rng.randint(4, 6)]
        found = {(row["source"], row["year"][:4]): float(row["net_generation"]) for row in power}
        names = sorted({source for source, _ in found})
        return Data(
            "Electricity in Iowa", "generation (GWh)", tuple(span), {n: tuple(found[n, y] for y in span) for n in names}
        )

    def of_barley(rng: random.Random) -> Data:
        site, year = rng.choice(sorted({(row["site"], row["year"]) for row in barley}))
        rows = [row for row in barley if (row["site"], row["year"]) == (site, year)]
        chosen = rng.sample(rows, rng.randint(3, min(6, len(rows))))
        values = tuple(round(float(row["yield"]), 1) for row in chosen)
        return Data(
            f"Barley, {site} {year}", "yield (bushels/acre)", tuple(row["variety"] for row in chosen), {"yield": values}
        )

    def of_wheat(rng: random.Random) -> Data:
        first = rng.randrange(len(wheat) - 9)
        span = wheat[first : first + rng.randint(5, 8)]
        values = tuple(float(row["wheat"]) for row in span)
        return Data("Price of wheat", "price (shillings)", tuple(str(row["year"]) for row in span), {"price": values})

    return [of_cars, of_weather, of_stocks, of_jobs, of_power, of_barley, of_wheat]
