"use strict";
const root = document.documentElement;
root.classList.add("js");
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

// Light and dark: the reader's choice wins over the system's, and is kept where the browser lets a file keep things.
const themeButton = document.getElementById("theme");
const systemDark = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (root.dataset.theme || (systemDark.matches ? "dark" : "light")) === "dark";
const showTheme = () => {
  themeButton.textContent = isDark() ? "☀ Light" : "☾ Dark";
  themeButton.setAttribute("aria-label", isDark() ? "Use light colours" : "Use dark colours");
};
try { const kept = localStorage.getItem("emt-theme"); if (kept) root.dataset.theme = kept; } catch { /* not kept */ }
themeButton.addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  try { localStorage.setItem("emt-theme", root.dataset.theme); } catch { /* not kept */ }
  showTheme();
});
systemDark.addEventListener("change", showTheme);
showTheme();

// Tabs: arrow keys move, as the pattern asks.
for (const list of all("[role=tablist]")) {
  const tabs = all("[role=tab]", list);
  const choose = (chosen, focus) => {
    for (const tab of tabs) {
      const on = tab === chosen;
      tab.setAttribute("aria-selected", on);
      tab.tabIndex = on ? 0 : -1;
      document.getElementById(tab.getAttribute("aria-controls")).hidden = !on;
    }
    if (focus) chosen.focus();
  };
  tabs.forEach((tab, index) => {
    tab.addEventListener("click", () => choose(tab, false));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step) choose(tabs[(index + step + tabs.length) % tabs.length], true);
    });
  });
  if (tabs.length) choose(tabs[0], false);
}

// Selects that show one of several panels.
for (const select of all("select[data-shows]")) {
  const show = () => { for (const panel of all(`[data-panel="${select.dataset.shows}"]`)) panel.hidden = panel.dataset.value !== select.value; };
  select.addEventListener("change", show);
  show();
}

// Long texts open on a click.
for (const text of all(".clamp")) text.addEventListener("click", () => text.classList.toggle("open"));

// The selection table: filter by words and by source, sort by any column.
for (const panel of all("[data-table]")) {
  const body = panel.querySelector("tbody"), count = panel.querySelector("[data-count]");
  const words = panel.querySelector("input[type=search]"), source = panel.querySelector("select");
  const filter = () => {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of body.rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !(wanted.every((w) => text.includes(w)) && (!source.value || row.dataset.source === source.value));
      shown += !row.hidden;
    }
    count.textContent = shown;
  };
  words.addEventListener("input", filter);
  source.addEventListener("change", filter);
  all("thead th", panel).forEach((head, column) => head.querySelector("button")?.addEventListener("click", () => {
    const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const other of all("thead th", panel)) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
    const rows = [...body.rows].sort((a, b) => {
      const x = value(a), y = value(b), bothNumbers = x !== "" && y !== "" && !isNaN(x) && !isNaN(y);
      return sign * (bothNumbers ? x - y : String(x).localeCompare(String(y)));
    });
    body.append(...rows);
  }));
}

const place = (tip, box, x, y) => {
  tip.style.display = "block";
  tip.style.left = Math.max(0, Math.min(x + 14, box.width - tip.offsetWidth)) + "px";
  tip.style.top = Math.max(0, y - tip.offsetHeight - 10) + "px";
};

// Curves: the values under the cursor.
for (const area of all(".plot .area[data-hover]")) {
  const tip = area.querySelector(".tip"), cursor = area.querySelector(".cursor");
  const lines = all("path[data-points]", area).map((path) => ({
    path, points: path.dataset.points.split(" ").map((p) => p.split(";")),
  }));
  area.addEventListener("pointermove", (event) => {
    const box = area.getBoundingClientRect(), at = 100 * (event.clientX - box.left) / box.width;
    tip.replaceChildren();
    let x = at;
    for (const { path, points } of lines) {
      const nearest = points.reduce((a, b) => (Math.abs(b[0] - at) < Math.abs(a[0] - at) ? b : a));
      const row = document.createElement("i"), dot = document.createElement("span");
      dot.className = "dot " + path.getAttribute("class");
      row.append(dot, `${path.dataset.name}: ${nearest[3]} at step ${nearest[2]}`);
      tip.append(row);
      x = nearest[0];
    }
    cursor.style.display = "block";
    cursor.style.left = x + "%";
    place(tip, box, event.clientX - box.left, event.clientY - box.top);
  });
  area.addEventListener("pointerleave", () => { tip.style.display = cursor.style.display = "none"; });
}

// The map: the source of the dot under the cursor lights up; the legend switches sources off.
for (const map of all(".map")) {
  const tip = map.querySelector(".tip"), svg = map.querySelector("svg"), paths = all("path", svg);
  const dots = paths.map((path) => [...path.getAttribute("d").matchAll(/M(\d+) (\d+)/g)].map((m) => [+m[1], +m[2]]));
  const light = (path) => { map.classList.toggle("hovered", !!path); for (const p of paths) p.classList.toggle("lit", p === path); };
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect(), x = 1000 * (event.clientX - box.left) / box.width, y = 1000 * (event.clientY - box.top) / box.height;
    let best = null, least = 900;
    dots.forEach((list, i) => {
      if (paths[i].style.display === "none") return;
      for (const [a, b] of list) { const d = (a - x) ** 2 + (b - y) ** 2; if (d < least) { least = d; best = paths[i]; } }
    });
    light(best);
    if (!best) { tip.style.display = "none"; return; }
    tip.textContent = best.dataset.name;
    place(tip, box, event.clientX - box.left, event.clientY - box.top);
  });
  svg.addEventListener("pointerleave", () => { light(null); tip.style.display = "none"; });
  all(".legend button", map.parentElement).forEach((button) => button.addEventListener("click", () => {
    const on = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", on);
    paths[+button.dataset.path].style.display = on ? "" : "none";
  }));
}

// Rollouts: play or stop all that are shown.
for (const button of all("[data-play]")) button.addEventListener("click", () => {
  const videos = all("video").filter((v) => v.offsetParent !== null), playing = videos.some((v) => !v.paused);
  for (const video of videos) playing ? video.pause() : video.play().catch(() => {});
  button.textContent = playing ? "▶ Play all" : "❚❚ Stop all";
});

// Where the reader is.
const links = new Map(all("nav a").map((a) => [a.hash.slice(1), a]));
const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) {
    for (const link of links.values()) link.classList.remove("here");
    links.get(entry.target.id)?.classList.add("here");
  }
}, { rootMargin: "-20% 0px -75% 0px" });
for (const section of all("section[id]")) watcher.observe(section);
