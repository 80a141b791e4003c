// Score against cost: one curve a method, the cells that the filters show.
const CONFIG = {
  displaylogo: false,
  responsive: true,
  modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
  toImageButtonOptions: { format: "svg", filename: "pareto" },
};

// The points that surely no other one beats, whatever their intervals leave open; as in reports/pareto/points.py.
function frontierOf(points, fewer) {
  const [best, worst] = fewer ? ["left", "right"] : ["right", "left"], sign = fewer ? 1 : -1;
  const beats = (other, point) => other.y >= point.y && sign * other[best] <= sign * point[worst] && (other.x !== point.x || other.y !== point.y);
  const kept = points.filter((point) => !points.some((other) => beats(other, point)));
  return [...new Map(kept.map(({ x, y }) => [`${x} ${y}`, [x, y]])).values()].sort((a, b) => a[0] - b[0]);
}

// How far intervals of x are drawn: no more beyond the points than half of what these span; as in reports/pareto/curve_drawing.py.
function withReach(points) {
  const all = points.map((point) => point.x), low = Math.min(...all), high = Math.max(...all), half = (high - low) / 2 || high / 2;
  return points.map((point) => ({ ...point, from: Math.max(point.left, low - half), to: Math.min(point.right, high + half) }));
}

// A low end that lets the best be told apart: what lies far below the middle would squeeze all else.
function lowestShown(scores, best) {
  const sorted = [...scores].sort((a, b) => a - b), top = sorted.at(-1);
  const lowest = best.length ? Math.min(...best) : sorted[Math.floor(sorted.length / 4)];
  const reach = Math.max(2.5 * (top - sorted[Math.floor(sorted.length / 2)]), 1.15 * (top - lowest) + 1);
  return sorted.find((score) => score >= top - reach);
}

const narrow = () => matchMedia("(max-width: 820px)").matches;

function layoutOf(x, y, extra = {}) {
  const axis = { gridcolor: colour("--line"), linecolor: colour("--faint"), zeroline: false, ticks: "outside", tickcolor: colour("--faint"), ticklen: 4, automargin: true };
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false, hovermode: "closest", hoverdistance: 24,
    font: { family: getComputedStyle(document.body).fontFamily, size: 12.5, color: colour("--ink") },
    margin: { l: 52, r: 12, t: extra.annotations?.length ? 26 : 10, b: 44 },
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
    xaxis: { ...axis, title: { text: narrow() ? x.replace(" (", "<br>(") : x, standoff: 8 }, ...extra.xaxis },
    yaxis: { ...axis, title: { text: y, standoff: 6 }, ...extra.yaxis },
    shapes: extra.shapes || [], annotations: extra.annotations || [],
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("--faint"), activecolor: colour("--ink") },
  };
}

const tone = (series) => (dark() ? series.dark : series.colour);

function curveTrace(series, points, intervals) {
  const shade = tone(series);
  return {
    type: "scatter", mode: "lines+markers", hoverinfo: "none", name: series.name,
    x: points.map((point) => point.x), y: points.map((point) => point.y), customdata: points.map((point) => point.place),
    line: { color: shade, width: 1.6, dash: series.dash },
    marker: { color: shade, symbol: series.symbol, size: series.size, line: { color: series.filled ? colour("--ground") : shade, width: series.filled ? 0.7 : 1.4 } },
    error_x: { visible: intervals && points.some((point) => point.from < point.to), type: "data", symmetric: false, array: points.map((point) => point.to - point.x), arrayminus: points.map((point) => point.x - point.from), thickness: 1, width: 2, color: shade },
    error_y: { visible: intervals, type: "data", symmetric: false, array: points.map((point) => point.high - point.y), arrayminus: points.map((point) => point.y - point.low), thickness: 1, width: 2, color: shade },
  };
}

// What the best rate for every image would reach: [GFLOPs, score] of every rate.
function dottedTrace(series, ideal) {
  const sorted = [...ideal].sort((a, b) => a[0] - b[0]);
  return { type: "scatter", mode: "lines", hoverinfo: "skip", x: sorted.map(([x]) => x), y: sorted.map(([, y]) => y), line: { color: tone(series), width: 1.6, dash: "dot" } };
}

function startPlot(data, filters) {
  const state = { score: "", axis: "" }, plot = byId("plot");
  const task = () => data.tasks[filters.task], several = () => filters.groups.size > 1;

  function controls() {
    const { scores, axes } = task();
    if (!scores.some((score) => score.name === state.score)) state.score = scores[0]?.name ?? "";
    if (!axes.some((axis) => axis.name === state.axis)) state.axis = axes[0]?.name ?? "";
    fillSelect(byId("score"), scores.map((score) => [score.name, score.short]), state.score);
    fillSwitch(byId("axis"), axes.map((axis) => [axis.name, axis.short]), state.axis, (name) => { state.axis = name; draw(); });
  }

  function visiblePoints() {
    const points = [];
    data.cells.forEach((cell, place) => {
      const x = cell.x[state.axis], score = cell.y[state.score];
      if (!filters.visible(cell) || x === undefined || x === null || !score || score[0] === null) return;
      const [y, low, high] = score;
      const [left, right] = cell.ends[state.axis];
      points.push({ place, cell, x, y, left, right, low: Math.min(low ?? y, y), high: Math.max(high ?? y, y) });
    });
    return withReach(points);
  }

  function draw() {
    const { axes, scores } = task(), axis = axes.find((one) => one.name === state.axis);
    const score = scores.find((one) => one.name === state.score);
    if (!axis || !score) {
      const nothing = { visible: false };
      Plotly.react(plot, [], layoutOf("", "", { xaxis: nothing, yaxis: nothing }), CONFIG);
      byId("plot-notes").textContent = "No finished cell has both a score and a cost.";
      return;
    }
    const points = visiblePoints(), traces = [], dotted = [], shapes = [], notes = [...axis.notes];
    const fair = points.filter((point) => point.cell.fair);
    const noisy = axis.noisy.some((group) => filters.groups.has(group));
    const best = noisy ? [] : frontierOf(fair.length ? fair : points, axis.fewer), annotations = [];
    if (noisy) {
      const text = narrow() ? "Noisy: do not rank by these speeds" : "Noisy: do not rank by these speeds, so there is no frontier";
      annotations.push({ text, xref: "paper", yref: "paper", x: 0, y: 1, xanchor: "left", yanchor: "bottom", showarrow: false, font: { color: colour("--bad") } });
    }
    if (byId("frontier").checked && best.length) {
      traces.push({ type: "scatter", mode: "lines", hoverinfo: "skip", x: best.map(([x]) => x), y: best.map(([, y]) => y), line: { color: colour("--frontier"), width: 9, shape: "linear" }, opacity: 0.75 });
      if (fair.length < points.length) notes.push("untrained methods are not on the frontier");
    }
    // where memory hardly moves, cells are joined by their cost
    const along = (point) => (axis.name === "peak_memory_mib" ? point.cell.x.gmacs ?? point.x : point.x);
    for (const of of curvesOf(points)) {
      const { series, group } = of[0].cell, { dash } = data.groups[group];
      of.sort((a, b) => along(a) - along(b));
      if (series === null) {
        const look = { colour: colour("--ink"), dark: colour("--ink"), name: "unreduced", symbol: "star", size: 14, filled: true, dash: "solid" };
        const named = several() ? { mode: "markers+text", text: of.map((point) => plain(namesAt(points, point, data.groups))), textposition: axis.fewer ? "top left" : "top right", textfont: { size: 11 }, cliponaxis: false } : { mode: "markers" };
        traces.push({ ...curveTrace(look, of, byId("intervals").checked), ...named });
        for (const { y } of of) shapes.push({ type: "line", xref: "paper", x0: 0, x1: 1, y0: y, y1: y, layer: "below", line: { color: colour("--faint"), width: 1, dash: several() ? dash : "dash" } });
      } else {
        traces.push(curveTrace(several() ? { ...data.series[series], dash } : data.series[series], of, byId("intervals").checked));
        const ideal = axis.name === "gmacs" && score.name === scores[0].name ? of.filter(({ cell }) => cell.oracle).map(({ cell }) => cell.oracle) : [];
        if (ideal.length > 1 && of.some((point) => best.some(([x, y]) => x === point.x && y === point.y))) dotted.push(dottedTrace(data.series[series], ideal));
      }
    }
    if (dotted.length) notes.push("dotted: oracle, per image the best of the method's rates, of those on the frontier");
    traces.push(...dotted);
    const yaxis = points.length ? rangeOf(points, best, notes) : {}, xaxis = several() ? scaleOf(points) : {};
    Plotly.react(plot, traces, layoutOf(axis.label, score.label, { shapes, yaxis, xaxis, annotations }), CONFIG);
    byId("plot-notes").textContent = notes.join(" · ");
  }

  byId("score").addEventListener("change", (event) => { state.score = event.target.value; draw(); });
  for (const id of ["intervals", "frontier"]) byId(id).addEventListener("change", draw);
  for (const [enter, leave] of [["pointerover", "pointerout"], ["focusin", "focusout"]]) {
    byId("methods").addEventListener(enter, (event) => {
      const label = event.target.closest("[data-hue]");
      if (label) stress(plot, data.series[Number(label.dataset.hue)].name);
    });
    byId("methods").addEventListener(leave, () => stress(plot, null));
  }
  controls();
  draw();
  startTip(plot, data);
  return { draw, controls };
}

// The points of each method of each group; the unreduced models last.
function curvesOf(points) {
  const found = new Map();
  for (const point of points) {
    const { series, group } = point.cell, key = `${series} ${group}`;
    found.set(key, [...(found.get(key) ?? []), point]);
  }
  const order = ([{ cell }]) => cell.series ?? Infinity;
  return [...found.values()].sort((a, b) => (order(a) === order(b) ? a[0].cell.group - b[0].cell.group : order(a) - order(b)));
}

// The names of the models whose unreduced ones are this point; they stand at the first of these.
function namesAt(points, point, groups) {
  const here = points.filter(({ cell, x, y }) => cell.series === null && x === point.x && y === point.y);
  return here[0] === point ? here.map(({ cell }) => groups[cell.group].label).join(", ") : "";
}

// Of models that differ much in size the small ones would lie in one heap; as in reports/pareto/overlay.py.
function scaleOf(points) {
  const all = points.map((point) => point.x), low = Math.min(...all), high = Math.max(...all);
  if (!(high > 6 * low)) return {};
  const powers = Array.from({ length: 13 }, (_, i) => 10 ** (i - 4)), tickvals = powers.flatMap((power) => [power, 2 * power, 5 * power]).filter((tick) => low <= tick && tick <= high);
  return { type: "log", tickvals, ticktext: tickvals.map((tick) => String(Number(tick.toPrecision(1)))) };
}

function rangeOf(points, best, notes) {
  const scores = points.map((point) => point.y), low = lowestShown(scores, best.map(([, y]) => y)), top = Math.max(...points.map((point) => point.high));
  const below = scores.filter((score) => score < low).length, margin = 0.05 * (top - low) || 0.5;
  if (below) notes.push(`${below} ${below === 1 ? "cell lies" : "cells lie"} below the axis: double-click shows all`);
  return below ? { range: [low - margin, top + margin] } : { autorange: true };
}

// One curve stands out while its name is pointed at: eleven colours are more than anybody keeps apart.
function stress(plot, name) {
  const curves = (plot.data ?? []).map((trace, i) => [trace, i]).filter(([trace]) => trace.customdata);
  const found = curves.some(([trace]) => trace.name === name);
  if (curves.length) Plotly.restyle(plot, { opacity: curves.map(([trace]) => (found && trace.name !== name ? 0.15 : 1)) }, curves.map(([, i]) => i));
}

// All numbers of the cell under the pointer, as in the table.
function startTip(plot, data) {
  const tip = byId("tip");
  plot.on("plotly_hover", (event) => {
    const place = event.points[0]?.customdata;
    if (place === undefined) return;
    const [[, reducer], [, rate], ...numbers] = numbersOf(place);
    tip.replaceChildren(
      element("b", { textContent: `${reducer}  ${rate === "–" ? "" : rate}` }),
      data.groups.length > 1 ? element("p", { textContent: data.groups[data.cells[place].group].label }) : "",
      element("dl", {}, ...numbers.flatMap(([head, text]) => [element("dt", { textContent: head }), element("dd", { textContent: text })])),
      data.cells[place].dominated ? element("p", { textContent: data.cells[place].dominated }) : "",
      data.cells[place].binds ? element("p", { textContent: data.cells[place].binds }) : "",
    );
    tip.hidden = false;
    const { pageX, pageY } = event.event, room = document.documentElement.clientWidth;
    tip.style.left = `${Math.max(4, Math.min(pageX + 16, room - tip.offsetWidth - 4))}px`;
    const below = event.event.clientY + 16 + tip.offsetHeight < innerHeight;
    tip.style.top = `${below ? pageY + 16 : pageY - 16 - tip.offsetHeight}px`;
  });
  plot.on("plotly_unhover", () => { tip.hidden = true; });
}
