// Which cells are shown: the same choice for the plot and the table.
function startFilters(data, changed) {
  const chosen = (id) => new Set([...byId(id).querySelectorAll("input:checked")].map((input) => input.value));
  const state = { group: 0, visible: () => true };

  const read = () => {
    const methods = chosen("methods"), rates = chosen("rates");
    const words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    state.visible = (cell) => {
      if (cell.group !== state.group) return false;
      const named = words.every((word) => cell.name.toLowerCase().includes(word));
      if (cell.series === null) return named || words.length === 0;
      return methods.has(String(cell.series)) && (cell.rate === "" || rates.has(cell.rate)) && named;
    };
    changed();
  };

  byId("search").addEventListener("input", read);
  for (const id of ["methods", "rates"]) {
    byId(id).addEventListener("change", read);
    for (const [what, checked] of [["all", true], ["none", false]]) {
      byId(id).querySelector(`[data-${what}]`).addEventListener("click", () => {
        byId(id).querySelectorAll("input").forEach((input) => { input.checked = checked; });
        read();
      });
    }
  }
  byId("group")?.addEventListener("change", (event) => {
    state.group = Number(event.target.value);
    read();
  });
  state.start = read;
  return state;
}
