// After the first paint, in the order in which people look: filters and table, the plot, then samples and tokens.
async function start() {
  const data = await unpackedJson("data");
  if (byId("methods")) await fill(data);
  document.documentElement.dataset.ready = "true";
}

async function fill(data) {
  let plot = null, tokens = null;
  const filters = startFilters(data, () => {
    filterTables(data, filters);
    plot?.controls();
    plot?.draw();
  });
  startTables();
  startExport();
  filters.start();
  const plotting = await startPlotly();
  if (plotting && byId("plot")) plot = startPlot(data, filters);
  if (data.compares.length) await startCompare(data);
  tokens = await startTokens(data, await unpackedJson("tokens"), plotting);
  document.addEventListener("themechange", () => {
    plot?.draw();
    tokens?.draw();
  });
}

requestAnimationFrame(() => setTimeout(start, 0));
