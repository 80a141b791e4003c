// Token groups, drawn from the picture and from which group each patch is in; tokens and cost of every block.
function ownersAfter(cell, sample, block) {
  const [rows, columns] = cell.grid;
  for (let before = block; before > 0; before--) {
    const owners = cell.owners[sample][before - 1];
    if (owners) return owners;
  }
  return Array.from({ length: rows * columns }, (_, patch) => patch);
}

// Mean RGB of every patch of the picture: (rows * columns) triples.
function patchColours(picture, rows, columns) {
  const canvas = element("canvas", { width: columns * 8, height: rows * 8 }), context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  const sums = Array.from({ length: rows * columns }, () => [0, 0, 0]);
  for (let y = 0; y < canvas.height; y++) {
    for (let x = 0; x < canvas.width; x++) {
      const sum = sums[(y >> 3) * columns + (x >> 3)], at = 4 * (y * canvas.width + x);
      for (let channel = 0; channel < 3; channel++) sum[channel] += data[at + channel] / 64;
    }
  }
  return sums;
}

function drawGroups(canvas, picture, grid, owners) {
  const [rows, columns] = grid, cell = Math.max(8, Math.floor(560 / columns)), means = new Map();
  canvas.width = columns * cell;
  canvas.height = rows * cell;
  patchColours(picture, rows, columns).forEach((rgb, patch) => {
    const sum = means.get(owners[patch]) ?? [0, 0, 0, 0];
    rgb.forEach((value, channel) => { sum[channel] += value; });
    sum[3] += 1;
    means.set(owners[patch], sum);
  });
  const context = canvas.getContext("2d");
  owners.forEach((owner, patch) => {
    const x = (patch % columns) * cell, y = Math.floor(patch / columns) * cell, [r, g, b, n] = means.get(owner);
    context.fillStyle = owner < 0 ? "#8A8A8A" : `rgb(${r / n} ${g / n} ${b / n})`;
    context.fillRect(x, y, cell, cell);
    if (owner < 0) hatch(context, x, y, cell);
  });
  context.fillStyle = "#FFFFFF";
  const line = Math.max(1, Math.round(cell / 16));
  owners.forEach((owner, patch) => {
    const column = patch % columns, x = column * cell, y = Math.floor(patch / columns) * cell;
    if (column > 0 && owners[patch - 1] !== owner) context.fillRect(x - line / 2, y, line, cell);
    if (patch >= columns && owners[patch - columns] !== owner) context.fillRect(x, y - line / 2, cell, line);
  });
}

function hatch(context, x, y, cell) {
  context.strokeStyle = "#A6A6A6";
  context.lineWidth = Math.max(1, cell / 20);
  context.beginPath();
  context.moveTo(x, y + cell);
  context.lineTo(x + cell, y);
  context.stroke();
}

function drawPicture(canvas, picture) {
  const side = 560, scale = side / Math.max(picture.naturalWidth, picture.naturalHeight);
  canvas.width = Math.round(picture.naturalWidth * scale);
  canvas.height = Math.round(picture.naturalHeight * scale);
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
}

async function pictureOf(url) {
  const picture = new Image();
  picture.src = url;
  await picture.decode();
  return picture;
}

async function startTokens(data, sets, plotting) {
  const reduced = data.cells.map((cell, place) => place).filter((place) => data.cells[place].series !== null && data.cells[place].status === "done");
  if (!byId("left") || !reduced.length) return null;
  const firsts = [...data.firstTokens, ...data.compares.map(({ first }) => first ?? [])];
  let tokens = null, pictures = [], state = null;

  // What one model's cells made of its images; without any, tokens and cost of all cells.
  async function open(number) {
    const withMaps = reduced.filter((place) => sets?.[number].cells[place]), offered = withMaps.length ? withMaps : reduced;
    tokens = withMaps.length ? sets[number] : null;
    pictures = tokens ? await Promise.all(tokens.views.map(pictureOf)) : [];
    const first = firsts.find((pair) => pair.length && pair.every((place) => offered.includes(place))) ?? [];
    const [left, right = left] = new Set([...first, ...offered]), entries = offered.map((place) => [String(place), data.cells[place].name]);
    state = { left, right, sample: 0, block: 0 };
    for (const side of ["left", "right"]) fillSelect(byId(side), entries, String(state[side]));
    if (tokens) {
      fillSelect(byId("sample"), tokens.ids.map((id, i) => [String(i), id]), "0");
      byId("block-label").textContent = tokens.frames ? "At" : "After block";
      byId("caption-input").textContent = tokens.frames ? "drawn without reduction" : "what the model sees";
      const slider = byId("block");
      slider.max = tokens.cells[left].owners[0].length;
      state.block = Math.round(slider.max / 2);
      slider.value = state.block;
    }
    draw();
  }

  function draw() {
    if (tokens) drawMaps(data, tokens, pictures[state.sample], state);
    if (plotting) drawBlocks(data, tokens, state);
  }

  for (const side of ["left", "right"]) byId(side).addEventListener("change", (event) => { state[side] = Number(event.target.value); draw(); });
  byId("sample")?.addEventListener("change", (event) => { state.sample = Number(event.target.value); draw(); });
  byId("block")?.addEventListener("input", (event) => { state.block = Number(event.target.value); draw(); });
  if (sets && byId("viewed")) {
    fillSelect(byId("viewed"), sets.map(({ label }, i) => [String(i), label]), "0");
    byId("viewed").addEventListener("change", (event) => open(Number(event.target.value)));
  }
  await open(0);
  return { draw };
}

function drawMaps(data, tokens, picture, { left, right, sample, block }) {
  drawPicture(byId("map-input"), picture);
  byId("map-input").setAttribute("aria-label", `sample ${tokens.ids[sample]}`);
  const depth = tokens.cells[left].owners[sample].length;
  const frame = tokens.frames?.[block - 1];
  byId("block-name").textContent = frame ?? (block ? `${block} of ${depth}` : "0 (input)");
  byId("block").setAttribute("aria-valuetext", frame ?? (block ? `after block ${block} of ${depth}` : "input"));
  for (const [side, place] of [["left", left], ["right", right]]) {
    const cell = tokens.cells[place], owners = ownersAfter(cell, sample, block);
    drawGroups(byId(`map-${side}`), picture, cell.grid, owners);
    const dropped = owners.filter((owner) => owner < 0).length;
    const text = `${data.cells[place].name}: ${cell.tokens[sample][block]} of ${cell.tokens[sample][0]} tokens${dropped ? `, ${dropped} patches dropped` : ""}`;
    byId(`caption-${side}`).textContent = text;
    byId(`map-${side}`).setAttribute("aria-label", text);
  }
}

function drawBlocks(data, tokens, { left, right, sample }) {
  const unreduced = data.cells.findIndex((cell) => cell.series === null && cell.status === "done" && cell.group === data.cells[left].group);
  const chosen = [...new Set([unreduced, left, right])].filter((place) => place >= 0);
  const trace = (place, y, first) => {
    const cell = data.cells[place], series = cell.series === null ? null : data.series[cell.series];
    const shade = series ? tone(series) : colour("--faint"), second = place === right && left !== right;
    return {
      type: "scatter", mode: "lines+markers", name: series ? cell.name : "unreduced", x: y.map((_, i) => i + first), y,
      line: { color: shade, width: 2, dash: series ? (second ? "6px,3px" : "solid") : "dot", shape: "linear" },
      marker: { color: shade, symbol: series?.symbol ?? "star", size: series ? 7 : 6 }, hovertemplate: "block %{x}: %{y}<extra></extra>",
    };
  };
  const countsOf = (place) => data.cells[place].blocks.tokens ?? tokens?.cells[place]?.tokens[sample] ?? null;
  const counts = chosen.filter(countsOf).map((place) => trace(place, countsOf(place), 0));
  const macs = chosen.filter((place) => data.cells[place].blocks.macs).map((place) => trace(place, data.cells[place].blocks.macs.map((one) => one / 1e9), 1));
  const legend = { showlegend: true, legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, font: { size: 11.5 } } };
  const low = { rangemode: "tozero" };
  const show = (id, traces, title) => {
    if (traces.length) {
      byId(id).querySelector(":scope > p")?.remove();
      Plotly.react(id, text(traces), { ...layoutOf("block", title, { yaxis: low }), ...legend, margin: { l: 52, r: 8, t: 44, b: 40 } }, { ...CONFIG, displayModeBar: false });
      return;
    }
    Plotly.purge(id);
    byId(id).replaceChildren(element("p", { className: "small", textContent: `n/a: no ${title} is stored` }));
  };
  const text = (traces) => traces.map((one) => ({ ...one, name: plain(one.name) }));
  show("plot-tokens", counts, "tokens after the block");
  show("plot-macs", macs, "GFLOPs of the block");
}
