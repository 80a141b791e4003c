// Which cells are shown: the same choice for the plot and the table.
function startFilters(data, changed) {
  const chosen = (id) => new Set([...byId(id).querySelectorAll("input:checked")].map((input) => input.value));
  const state = { task: 0, groups: new Set(), visible: () => true };

  const read = () => {
    const methods = chosen("methods"), rates = chosen("rates"), models = byId("models") ? chosen("models") : null;
    const shown = data.groups.map((_, i) => i).filter((i) => data.groups[i].task === state.task && (!models || models.has(String(i))));
    state.groups = new Set(shown);
    const words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    state.visible = (cell) => {
      if (!state.groups.has(cell.group)) return false;
      const named = words.every((word) => cell.name.toLowerCase().includes(word));
      if (cell.series === null) return named || words.length === 0;
      return methods.has(String(cell.series)) && (cell.rate === "" || rates.has(cell.rate)) && named;
    };
    changed();
  };

  byId("search").addEventListener("input", read);
  for (const id of ["models", "methods", "rates"].filter(byId)) {
    byId(id).addEventListener("change", read);
    for (const [what, checked] of [["all", true], ["none", false]]) {
      byId(id).querySelector(`[data-${what}]`).addEventListener("click", () => {
        byId(id).querySelectorAll("input").forEach((input) => { input.checked = checked; });
        read();
      });
    }
  }
  const ofTask = () => byId("models")?.querySelectorAll("label").forEach((label) => { label.hidden = Number(label.dataset.task) !== state.task; });
  byId("task")?.addEventListener("change", (event) => {
    state.task = Number(event.target.value);
    ofTask();
    read();
  });
  ofTask();
  state.start = read;
  return state;
}
