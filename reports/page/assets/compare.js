// Two cells on the same samples. All statistics were computed when the page was written; see pairs.py.
const FIRST_SHOWN = 12, MORE_SHOWN = 24;

// Place of the pair a < b among all pairs of n cells, in the order (0, 1), (0, 2), ..., (1, 2), ...
const pairPlace = (a, b, n) => a * n - (a * (a + 1)) / 2 + (b - a - 1);

function pairNumbers(compare, a, b) {
  const [first, second] = a < b ? [a, b] : [b, a], flip = a < b ? 1 : -1;
  const place = pairPlace(first, second, compare.cells.length);
  const ends = [flip * compare.low[place], flip * compare.high[place]].sort((x, y) => x - y);
  const only = [compare.onlyA[place], compare.onlyB[place]];
  return {
    difference: compare.value[b] - compare.value[a], low: ends[0], high: ends[1], p: compare.p[place],
    onlyA: only[a < b ? 0 : 1], onlyB: only[a < b ? 1 : 0],
  };
}

// One set of cells on the same samples, with what is chosen of it.
async function openSet(data, number) {
  const compare = data.compares[number], samples = await unpackedJson(`samples${number}`);
  const [a, b] = compare.first ? compare.first.map((place) => compare.cells.indexOf(place)) : [0, 1];
  return {
    compare, samples, pictures: (await unpackedJson(`pictures${number}`)) ?? {}, listed: samplesOf(compare, samples),
    names: compare.cells.map((place) => data.cells[place].name), binary: compare.kind === "labels" || compare.kind === "agreement",
    state: { a, b, which: "", shown: FIRST_SHOWN },
  };
}

async function startCompare(data) {
  const opened = [await openSet(data, 0)];
  let set = opened[0];

  function draw() {
    const { compare, names, listed, binary, state } = set, { a, b } = state, entries = names.map((name, i) => [String(i), name]);
    fillSelect(byId("cell-a"), entries, String(a));
    fillSelect(byId("cell-b"), entries, String(b));
    const numbers = a === b ? null : pairNumbers(compare, a, b);
    byId("verdict").replaceChildren(...(numbers ? verdict(compare, names, state, numbers, binary) : [element("p", { textContent: "A and B are the same cell; choose another." })]));
    const kinds = listed.kinds(a, b);
    if (!kinds.some(([key]) => key === state.which)) state.which = kinds[0][0];
    fillSwitch(byId("which"), kinds.map(([key, text, found]) => [key, `${text} (${found.length})`, !found.length]), state.which, (key) => {
      state.which = key;
      state.shown = FIRST_SHOWN;
      drawSamples();
    });
    drawSamples();
  }

  function drawSamples() {
    const { compare, samples, pictures, listed, binary, state } = set, { a, b } = state;
    const [, , found] = listed.kinds(a, b).find(([key]) => key === state.which);
    const seen = found.filter((i) => pictures[samples.ids[i]]), order = binary ? [...seen, ...found.filter((i) => !pictures[samples.ids[i]])] : found;
    byId("pictured").textContent = found.length ? `${seen.length} of these ${found.length} have a picture.${compare.kept < compare.n ? ` The ${compare.kept} of ${compare.n} samples on which cells differ most are kept on this page.` : ""}` : "No such sample.";
    byId("samples").classList.toggle("long", compare.kind === "captions");
    byId("samples").replaceChildren(...order.slice(0, state.shown).map((i) => listed.item(i, a, b, pictures)));
    byId("more").hidden = order.length <= state.shown;
  }

  byId("compared")?.addEventListener("change", async (event) => {
    const number = Number(event.target.value);
    opened[number] ??= await openSet(data, number);
    set = opened[number];
    draw();
  });
  byId("cell-a").addEventListener("change", (event) => { set.state.a = Number(event.target.value); draw(); });
  byId("cell-b").addEventListener("change", (event) => { set.state.b = Number(event.target.value); draw(); });
  byId("swap").addEventListener("click", () => { [set.state.a, set.state.b] = [set.state.b, set.state.a]; draw(); });
  byId("more").addEventListener("click", () => { set.state.shown += MORE_SHOWN; drawSamples(); });
  draw();
}

function verdict(compare, names, { a, b }, numbers, binary) {
  const digits = digitsOf(numbers.low, numbers.high), interval = `[${signed(numbers.low, digits)}, ${signed(numbers.high, digits)}]`;
  const figure = (what, value, more = "") => element("div", {}, element("p", { className: "what", textContent: what }), element("p", { className: "value" }, value, element("small", { textContent: more })));
  const apart = numbers.low > 0 || numbers.high < 0, found = apart && numbers.p <= 0.05;
  const better = numbers.difference > 0 ? "B" : "A";
  const said = found
    ? `${better} is better on these ${compare.n} samples by ${fixed(Math.abs(numbers.difference), digits)} points: the interval leaves out zero, ${pValue(numbers.p)}.`
    : `These ${compare.n} samples cannot tell A and B apart: ${apart ? `the interval leaves out zero, but ${pValue(numbers.p)}` : "the interval of the difference holds zero"}.`;
  const pairs = (names.length * (names.length - 1)) / 2;
  return [
    element("div", { className: "figures" },
      figure(`A  ${names[a]}`, fixed(compare.value[a], digits), ` ${compare.label}`),
      figure(`B  ${names[b]}`, fixed(compare.value[b], digits), ` ${compare.label}`),
      figure("B − A, points", signed(numbers.difference, digits), ` ${interval}`),
      figure(compare.test, pValue(numbers.p))),
    element("p", { className: "said" }, `${said} `, element("span", { className: "small", textContent: `95 %: ${compare.interval}. One of ${pairs} possible pairs: the p-value is not corrected for having chosen it.` })),
    binary ? countsTable(compare, { a, b }, numbers) : element("p", { className: "said small", textContent: `A scores higher on ${numbers.onlyA} samples, B on ${numbers.onlyB}, both alike on ${compare.n - numbers.onlyA - numbers.onlyB}.` }),
  ];
}

function countsTable(compare, { a }, numbers) {
  const rightA = Math.round((compare.value[a] / 100) * compare.n), both = rightA - numbers.onlyA;
  const [yes, no] = compare.kind === "labels" ? ["right", "wrong"] : ["as unreduced", "other"];
  const row = (head, ...cells) => element("tr", {}, element("th", { scope: "row", textContent: head }), ...cells.map((n) => element("td", { textContent: String(n) })));
  return element("table", { className: "counts" },
    element("thead", {}, element("tr", {}, element("td"), element("th", { scope: "col", textContent: `B ${yes}` }), element("th", { scope: "col", textContent: `B ${no}` }))),
    element("tbody", {}, row(`A ${yes}`, both, numbers.onlyA), row(`A ${no}`, numbers.onlyB, compare.n - both - numbers.onlyA - numbers.onlyB)));
}

// What there is to see of single samples, by kind of task.
function samplesOf(compare, samples) {
  const every = samples.ids.map((_, i) => i);
  const named = (label) => (label === null || label === undefined ? "n/a" : compare.classes[label] ?? `class ${label}`);
  const scores = (i, cell) => samples.score[i][cell] / 10;
  const said = (what, value, mark = "") => [element("dt", { textContent: what }), element("dd", { className: mark, textContent: value })];

  if (compare.kind === "labels") {
    const truths = (i) => [samples.truth[i]].flat();  // several may be right
    const right = (i, cell) => truths(i).includes(samples.said[i][cell]);
    const mark = (i, cell) => said_(named(samples.said[i][cell]), right(i, cell));
    const said_ = (text, fine) => [`${text} ${fine ? "✓" : "✗"}`, fine ? "right" : "wrong"];
    return {
      kinds: (a, b) => [
        ["only-a", "only A right", every.filter((i) => right(i, a) && !right(i, b))],
        ["only-b", "only B right", every.filter((i) => right(i, b) && !right(i, a))],
        ["differ", "both wrong, differently", every.filter((i) => !right(i, a) && !right(i, b) && samples.said[i][a] !== samples.said[i][b])],
      ],
      item: (i, a, b, pictures) => sampleItem(samples.ids[i], pictures, [said("truth", truths(i).map(named).join(" / ")), said("A", ...mark(i, a)), said("B", ...mark(i, b))]),
    };
  }
  if (compare.kind === "agreement") {
    const text = (i, cell) => (samples.said ? named(samples.said[i][cell]) : samples.score[i][cell] ? "as unreduced" : "other");
    return {
      kinds: (a, b) => [
        ["only-a", "only A as unreduced", every.filter((i) => samples.score[i][a] > samples.score[i][b])],
        ["only-b", "only B as unreduced", every.filter((i) => samples.score[i][b] > samples.score[i][a])],
      ],
      item: (i, a, b, pictures) => sampleItem(samples.ids[i], pictures, [said("A", text(i, a)), said("B", text(i, b))]),
    };
  }
  const apart = (i, a, b) => samples.score[i][b] - samples.score[i][a];
  const text = (i, cell) => `${samples.score[i][cell] < 0 ? "n/a" : scores(i, cell).toFixed(1)}${compare.kind === "captions" ? `  ${samples.texts[samples.said[i][cell]] || "(empty)"}` : ""}`;
  return {
    kinds: (a, b) => [
      ["only-a", "A better", every.filter((i) => apart(i, a, b) < 0).sort((i, j) => apart(i, a, b) - apart(j, a, b))],
      ["only-b", "B better", every.filter((i) => apart(i, a, b) > 0).sort((i, j) => apart(j, a, b) - apart(i, a, b))],
    ],
    item: (i, a, b, pictures) => {
      const truth = compare.kind === "captions" ? [said(`1 of ${samples.truth[i].length}`, samples.texts[samples.truth[i][0]])] : [];
      const better = (cell, other) => (samples.score[i][cell] > samples.score[i][other] ? "right" : "wrong");
      return sampleItem(samples.ids[i], pictures, [...truth, said("A", text(i, a), better(a, b)), said("B", text(i, b), better(b, a))]);
    },
  };
}

function sampleItem(id, pictures, lines) {
  const picture = pictures[id]
    ? element("img", { src: pictures[id], alt: "", loading: "lazy", width: 84, height: 84 })
    : element("span", { className: "none", textContent: "no picture" });
  return element("li", {}, picture, element("div", {}, element("p", { className: "id", textContent: id }), element("dl", {}, ...lines.flat())));
}
