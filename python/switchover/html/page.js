"use strict";
(() => {
  const root = document.documentElement;
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const places = [...document.querySelectorAll(".chart")];
  const narrow = matchMedia("(max-width: 40rem)");
  const dark = matchMedia("(prefers-color-scheme: dark)");

  const CONFIG = {
    responsive: true,
    displaylogo: false,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "zoomIn2d", "zoomOut2d", "autoScale2d"],
  };

  // Colours are names of the style sheet until a chart is drawn, so that one file serves both themes.
  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const coloured = (value) => {
    if (typeof value === "string") return value.startsWith("--") ? colour(value) : value;
    if (Array.isArray(value)) return typeof value.at(-1) === "number" ? value : value.map(coloured);
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, coloured(item)]));
    }
    return value;
  };
  const axis = () => ({ gridcolor: colour("--rule"), zerolinecolor: colour("--rule"), automargin: true });
  const base = () => ({
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: colour("--ink"), size: narrow.matches ? 11 : 13 },
    margin: { l: 8, r: 12, t: 40, b: 8 },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("--faint"), activecolor: colour("--ink") },
    legend: { orientation: "h", y: -0.12, yanchor: "top" },
    hoverlabel: { bgcolor: colour("--ground"), font: { color: colour("--ink") } },
    dragmode: narrow.matches ? false : "zoom",
  });
  const layout = (own) => {
    const made = { ...base(), ...coloured(own) };
    for (const key of new Set(["xaxis", "yaxis", ...Object.keys(made).filter((name) => /^[xy]axis/.test(name))])) {
      made[key] = { ...axis(), ...made[key] };
    }
    return made;
  };
  const draw = (place) => {
    const chart = charts[Number(place.dataset.chart)];
    place.dataset.drawn = "yes";
    return Plotly.react(place, coloured(chart.traces), layout(chart.layout), CONFIG);
  };
  const again = () => places.filter((place) => place.dataset.drawn).forEach(draw);

  // A chart is drawn when it comes into sight: a page of fifty runs opens at once.
  const seen = new IntersectionObserver(
    (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => {
      seen.unobserve(entry.target);
      draw(entry.target);
    }),
    { rootMargin: "300px" },
  );
  places.forEach((place) => seen.observe(place));
  addEventListener("beforeprint", () => places.forEach(draw));

  document.getElementById("theme").addEventListener("click", () => {
    const now = root.dataset.theme ?? (dark.matches ? "dark" : "light");
    root.dataset.theme = now === "dark" ? "light" : "dark";
    again();
  });
  dark.addEventListener("change", again);
  narrow.addEventListener("change", again);
})();
