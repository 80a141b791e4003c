// Tables: rows follow the filters, columns sort by click or key; what has no number comes last either way.
function startTables() {
  for (const table of document.querySelectorAll("#table table")) {
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      head.querySelector("button").addEventListener("click", () => sortTable(table, head, column));
    });
  }
}

function sortTable(table, head, column) {
  const numeric = head.classList.contains("num"), before = head.getAttribute("aria-sort");
  const first = numeric ? "descending" : "ascending", other = numeric ? "ascending" : "descending";
  const order = before === first ? other : first, sign = order === "ascending" ? 1 : -1;
  for (const cell of table.tHead.rows[0].cells) cell.setAttribute("aria-sort", cell === head ? order : "none");
  const key = (row) => {
    const cell = row.cells[column];
    return numeric ? (cell.dataset.sort === "" ? NaN : Number(cell.dataset.sort)) : cell.textContent;
  };
  const rows = [...table.tBodies[0].rows].map((row) => [key(row), row]);
  rows.sort(([a], [b]) => {
    if (!numeric) return sign * a.localeCompare(b, undefined, { numeric: true });
    if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
    return sign * (a - b);
  });
  table.tBodies[0].append(...rows.map(([, row]) => row));
}

function filterTables(data, filters) {
  let shown = 0, all = 0;
  for (const group of document.querySelectorAll("#table .group")) group.hidden = !filters.groups.has(Number(group.dataset.group));
  for (const row of document.querySelectorAll("#table tbody tr")) {
    const cell = data.cells[Number(row.dataset.cell)];
    row.hidden = !filters.visible(cell);
    all += filters.groups.has(cell.group);
    shown += !row.hidden;
  }
  byId("shown").textContent = shown === all ? `${all} cells. A click on a heading sorts.` : `${shown} of ${all} cells, as filtered above.`;
}

// Header and text of every number of a cell, as they stand in the table.
function numbersOf(place) {
  const row = document.querySelector(`#table tr[data-cell="${place}"]`);
  const heads = row.closest("table").tHead.rows[0].cells;
  return [...row.cells].map((cell, column) => [heads[column].textContent.trim(), cell.textContent.trim()]);
}
