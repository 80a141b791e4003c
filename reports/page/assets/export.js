// What leaves the page: the command that measures a row, and the rows that the filters leave, as a file.
function startExport() {
  for (const button of document.querySelectorAll("#table .copy")) button.addEventListener("click", () => copyCommand(button.dataset.command));
  byId("export").addEventListener("click", () => {
    const address = URL.createObjectURL(new Blob([csvOfShown()], { type: "text/csv" }));
    element("a", { href: address, download: "rows.csv" }).click();
    URL.revokeObjectURL(address);
  });
}

async function copyCommand(command) {
  const said = byId("copied");
  let copied = true;
  try { await navigator.clipboard.writeText(command); } catch { copied = false; }  // a browser may ask, or refuse
  said.textContent = copied ? `Copied: ${command}` : command;
  said.hidden = false;
}

// The rows as they stand, in their order. A number has its column; what is said beside numbers, such as an interval, another.
function csvOfShown() {
  const tables = [...document.querySelectorAll("#table .group:not([hidden])")].map(rowsOf);
  const heads = [...new Set(tables.flatMap((table) => table.heads))];
  const rows = tables.flatMap((table) => table.rows.map((row) => heads.map((head) => row.get(head) ?? "")));
  return [heads, ...rows].map((row) => row.map(csvField).join(",") + "\r\n").join("");
}

function rowsOf(group) {
  const heads = [...group.querySelectorAll("thead th")].map((head) => head.textContent.trim());
  const title = group.querySelector("h3:first-child")?.textContent.trim();
  const rows = [...group.querySelectorAll("tbody tr:not([hidden])")].map((row) => {
    const fields = new Map(title ? [["Table", title]] : []);
    [...row.cells].forEach((cell, column) => {
      const text = cell.textContent.trim(), number = cell.dataset.sort;
      if (number === undefined || number === "") fields.set(heads[column], text);
      else {
        fields.set(heads[column], number);
        if (text.replace("−", "-") !== number) fields.set(`${heads[column]}, as shown`, text);
      }
    });
    return fields;
  });
  const found = new Set(rows.flatMap((row) => [...row.keys()]));
  const order = ["Table", ...heads.flatMap((head) => [head, `${head}, as shown`])];
  return { heads: order.filter((head) => found.has(head)), rows };
}

const csvField = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
